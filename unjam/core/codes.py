"""Every error code with what it means and what to do, in English and Korean.

The API's answers, ``unjam explain`` and the generated page read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """Title and hint of one code in both languages."""

    title: str
    hint: str
    title_ko: str
    hint_ko: str


PROBLEMS: Mapping[str, Word] = {
    "malformed_body": Word(
        "The body cannot be read",
        "Send multipart/form-data as RFC 7578 has it; curl -F does.",
        "본문을 읽을 수 없습니다",
        "RFC 7578 형식의 multipart/form-data로 보내세요. curl -F가 그렇게 합니다.",
    ),
    "bad_request": Word(
        "The request cannot be understood",
        "Compare it with /docs.",
        "요청을 이해할 수 없습니다",
        "/docs의 형식과 비교해 보세요.",
    ),
    "invalid": Word(
        "A field is missing or has a wrong value",
        "The detail names the field; /docs shows what it may hold.",
        "필드가 없거나 값이 올바르지 않습니다",
        "상세에 필드 이름이 있습니다. 허용 값은 /docs에 있습니다.",
    ),
    "invalid_label": Word(
        "A label is too long or not printable",
        "Use at most 255 printable characters.",
        "라벨이 너무 길거나 표시할 수 없는 문자가 있습니다",
        "표시 가능한 문자 255자 이내로 지정하세요.",
    ),
    "invalid_metadata": Word(
        "The metadata cannot be kept",
        "Send a JSON object of scalars or lists of scalars, at most 16 KiB.",
        "메타데이터를 저장할 수 없습니다",
        "스칼라 또는 스칼라 목록으로 된 16 KiB 이하의 JSON 객체를 보내세요.",
    ),
    "invalid_cursor": Word(
        "The cursor is not one of ours",
        "Take next_cursor of the page before, unchanged, or leave it out.",
        "커서가 올바르지 않습니다",
        "이전 페이지의 next_cursor를 그대로 쓰거나 생략하세요.",
    ),
    "missing_file": Word(
        "The upload holds no file",
        "Send multipart/form-data with a part named `file` "
        "(curl -F file=@report.pdf URL), or use `unjam add`.",
        "업로드에 파일이 없습니다",
        "`file` 파트를 담은 multipart/form-data로 보내세요(curl -F file=@report.pdf URL). "
        "`unjam add`도 됩니다.",
    ),
    "unsupported_media_type": Word(
        "The body's content type is not accepted here",
        "Send multipart/form-data with a part named `file`.",
        "본문의 Content-Type을 받을 수 없습니다",
        "`file` 파트를 담은 multipart/form-data로 보내세요.",
    ),
    "unauthorised": Word(
        "A token is needed",
        "Send `Authorization: Bearer <token>` with RAG_API_TOKEN's value.",
        "토큰이 필요합니다",
        "`Authorization: Bearer <토큰>` 헤더에 RAG_API_TOKEN 값을 보내세요.",
    ),
    "admin_unauthorised": Word(
        "An operator's token is needed",
        "Send `Authorization: Bearer <token>` with ADMIN_TOKEN's value; when unset, it stands in "
        "the file admin-token of the data folder.",
        "운영자 토큰이 필요합니다",
        "`Authorization: Bearer <토큰>` 헤더에 ADMIN_TOKEN 값을 보내세요. 설정하지 않았다면 데이터 "
        "폴더의 admin-token 파일에 있습니다.",
    ),
    "host_refused": Word(
        "This host name is not served here",
        "Call the server by localhost or its address, or add the name to RAG_ALLOWED_HOSTS.",
        "허용되지 않은 호스트 이름입니다",
        "localhost나 주소로 호출하거나 RAG_ALLOWED_HOSTS에 이름을 추가하세요.",
    ),
    "origin_refused": Word(
        "Requests from other web pages are refused",
        "Call the API from a program, or from a page of this very server.",
        "다른 웹 페이지에서 온 요청은 거부됩니다",
        "프로그램에서 호출하거나 이 서버의 페이지에서 호출하세요.",
    ),
    "not_found": Word(
        "There is no such thing",
        "`unjam list` shows documents, `unjam postmortem --list` incidents, /docs paths.",
        "찾을 수 없습니다",
        "문서는 `unjam list`, 장애는 `unjam postmortem --list`, 경로는 /docs에서 볼 수 있습니다.",
    ),
    "method_not_allowed": Word(
        "This path does not know that method",
        "The header Allow lists those it knows.",
        "이 경로에서 지원하지 않는 메서드입니다",
        "Allow 헤더에 가능한 메서드가 있습니다.",
    ),
    "conflict": Word(
        "The document's state does not allow it",
        "Look at its state first (GET the document).",
        "문서의 현재 상태에서는 할 수 없습니다",
        "먼저 문서의 상태를 확인하세요.",
    ),
    "count_changed": Word(
        "Not as many dead letters match as expected; nothing was changed",
        "Look again, and repeat the call with the new number.",
        "예상한 수와 다른 수의 데드레터가 일치하여 아무것도 바꾸지 않았습니다",
        "다시 조회한 뒤 새 개수로 호출하세요.",
    ),
    "lane_unserved": Word(
        "No live worker serves that queue",
        "Start one with `unjam worker --queues NAME`, or choose a queue that is served.",
        "이 큐를 담당하는 워커가 없습니다",
        "`unjam worker --queues 이름`으로 워커를 시작하거나 담당 워커가 있는 큐를 고르세요.",
    ),
    "unknown_lane": Word(
        "There is no such queue",
        "`unjam queue list` shows those that exist.",
        "그런 큐가 없습니다",
        "`unjam queue list`로 있는 큐를 확인하세요.",
    ),
    "idempotency_conflict": Word(
        "This Idempotency-Key was used with another body",
        "Use a new key for new content; repeat a key only with the same bytes.",
        "이 Idempotency-Key는 다른 내용에 이미 쓰였습니다",
        "새 내용에는 새 키를 쓰고, 같은 키는 같은 내용에만 다시 쓰세요.",
    ),
    "too_large": Word(
        "The upload is too large",
        "Split it, or raise RAG_MAX_UPLOAD_MB.",
        "업로드가 너무 큽니다",
        "나누어 올리거나 RAG_MAX_UPLOAD_MB를 올리세요.",
    ),
    "backlog_full": Word(
        "Too much stands in line",
        "Try again after the seconds in Retry-After; more workers shorten the line, and "
        "RAG_MAX_QUEUED_DOCUMENTS, RAG_MAX_QUEUED_MB and RAG_MAX_QUEUE_AGE_S set the limits.",
        "대기 중인 문서가 너무 많습니다",
        "Retry-After의 초만큼 뒤에 다시 시도하세요. 워커를 늘리면 빨라지고, 한도는 "
        "RAG_MAX_QUEUED_DOCUMENTS, RAG_MAX_QUEUED_MB, RAG_MAX_QUEUE_AGE_S로 정합니다.",
    ),
    "disk_low": Word(
        "The disk of the originals is nearly full",
        "Free disk space, or lower RAG_MIN_FREE_DISK_MB; try again after Retry-After.",
        "원본 저장 디스크가 거의 찼습니다",
        "디스크 공간을 확보하거나 RAG_MIN_FREE_DISK_MB를 낮추고, Retry-After의 초만큼 뒤에 다시 "
        "시도하세요.",
    ),
    "not_now": Word(
        "Not possible right now",
        "Try again after the seconds in Retry-After.",
        "지금은 할 수 없습니다",
        "Retry-After의 초만큼 뒤에 다시 시도하세요.",
    ),
    "internal": Word(
        "Something unexpected happened here",
        "The server's log, api.log, has the details.",
        "서버에서 예기치 못한 일이 일어났습니다",
        "자세한 내용은 서버 로그(api.log)에 있습니다.",
    ),
}


OTHER_CODES: Mapping[str, Word] = {
    "error": Word(
        "An error without a code of its own",
        "Read the detail.",
        "별도 코드가 없는 오류",
        "상세 내용을 확인하세요.",
    ),
    "dependency_down": Word(
        "Redis, the vector store, the endpoint, the originals' folder or the ledger is away",
        "Documents wait and go on by themselves; the code of the waiting reason says which.",
        "Redis, 벡터 저장소, 임베딩 엔드포인트, 원본 폴더, 원장 중 하나가 응답하지 않음",
        "문서는 대기하다가 자동으로 재개됩니다. 대기 사유 코드가 어느 것인지 알려 줍니다.",
    ),
    "unparseable": Word(
        "The bytes cannot become text",
        "The reason in the document's record says why and what to do.",
        "파일에서 텍스트를 얻을 수 없음",
        "문서 기록의 사유에 원인과 조치가 있습니다.",
    ),
    "lease_lost": Word(
        "Another worker owns the document now",
        "Nothing to do: the slower one stops without side effects.",
        "이제 다른 워커가 문서를 맡고 있음",
        "할 일은 없습니다. 늦은 쪽이 부작용 없이 멈춥니다.",
    ),
    "setup": Word(
        "The installation or its settings cannot work as they are",
        "The hint names the setting.",
        "설치 상태나 설정이 그대로는 동작할 수 없음",
        "힌트에 해당 설정이 나옵니다.",
    ),
    "ledger_newer": Word(
        "The ledger was written by a newer unjam",
        "Install that version or a newer one, or point RAG_DATA_DIR elsewhere.",
        "더 새로운 버전의 unjam이 만든 원장임",
        "같거나 더 새로운 버전을 설치하거나 RAG_DATA_DIR을 다른 곳으로 지정하세요.",
    ),
    "port_taken": Word(
        "A port that must be ours is taken",
        "Choose another port with the option named, or stop what listens there.",
        "필요한 포트가 이미 사용 중임",
        "안내된 옵션으로 다른 포트를 고르거나 그 포트를 쓰는 프로그램을 종료하세요.",
    ),
    "tokens_needed": Word(
        "Listening beyond this machine needs tokens",
        "Set RAG_API_TOKEN and ADMIN_TOKEN to long random values.",
        "이 머신 밖에서 접근하게 하려면 토큰이 필요함",
        "RAG_API_TOKEN과 ADMIN_TOKEN을 길고 무작위인 값으로 설정하세요.",
    ),
    "api_down": Word(
        "No server answers at the client's address",
        "Start one with `unjam up`, or give the right URL.",
        "클라이언트가 부르는 주소에 서버가 없음",
        "`unjam up`으로 시작하거나 올바른 URL을 지정하세요.",
    ),
    "bad_url": Word(
        "The client's address is no URL, or no unjam server stands there",
        "Give the address that `unjam up` prints.",
        "클라이언트 주소가 URL이 아니거나 unjam 서버가 아님",
        "`unjam up`이 출력한 주소를 지정하세요.",
    ),
    "wait_timeout": Word(
        "The document was not done within the time given",
        "It goes on all the same; wait longer or look at it with `unjam show`.",
        "주어진 시간 안에 문서가 끝나지 않음",
        "처리는 계속됩니다. 더 기다리거나 `unjam show`로 확인하세요.",
    ),
    "undelivered": Word(
        "A webhook or Slack message did not arrive",
        "Nothing to do: it is sent again. The log of the watchdog names the receiver.",
        "웹훅이나 Slack 메시지가 전달되지 않음",
        "할 일은 없습니다. 다시 보냅니다. 워치독 로그에 수신처가 나옵니다.",
    ),
    "unreadable_file": Word(
        "A local file cannot be read",
        "Check its path and permissions.",
        "로컬 파일을 읽을 수 없음",
        "경로와 권한을 확인하세요.",
    ),
}
"""Codes that are met outside the HTTP API, or are a class of ``core.errors``' default."""
