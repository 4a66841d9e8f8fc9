"""Errors as ``application/problem+json`` (RFC 9457), with a stable ``code`` and a ``hint``."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from unjam.core.errors import (
    Backlogged,
    Conflict,
    LeaseLost,
    NotFound,
    NotNow,
    TooLarge,
    UnjamError,
    UsageError,
)
from unjam.core.reasons import REASONS
from unjam.web.house import language_of

_log = logging.getLogger("unjam.api")
MEDIA_TYPE = "application/problem+json"


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
        "Check the id or the path; `unjam list` and /docs show what exists.",
        "찾을 수 없습니다",
        "id나 경로를 확인하세요. `unjam list`와 /docs에서 볼 수 있습니다.",
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

_HTTP_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def status_of(error: UnjamError) -> int:
    """The HTTP status of one of our errors."""
    if isinstance(error, UsageError) and error.code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[error.code]
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return 500


_STATUS_BY_CODE = {"malformed_body": 400, "unsupported_media_type": 415}
_STATUSES: tuple[tuple[type[UnjamError], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (LeaseLost, 409),
    (TooLarge, 413),
    (UsageError, 422),
    (Backlogged, 429),
    (NotNow, 503),
)


def words_of(code: str, lang: str) -> tuple[str, str]:
    """Title and hint of *code*; waiting reasons have theirs in ``core.reasons``."""
    word = PROBLEMS.get(code)
    if word is not None:
        return (word.title_ko, word.hint_ko) if lang == "ko" else (word.title, word.hint)
    reason = REASONS.get(code)
    if reason is not None:
        return reason.what_in(lang), reason.hint_in(lang)
    return code.replace("_", " "), ""


def problem(
    status: int,
    code: str,
    detail: str,
    lang: str,
    *,
    hint: str = "",
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """One problem document. *hint* overrides the table's."""
    title, standard_hint = words_of(code, lang)
    body = {
        "type": f"urn:unjam:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail.encode("utf-8", "replace").decode(),
        "code": code,
        "hint": hint or standard_hint,
        **(extra or {}),
    }
    return Response(
        orjson.dumps(body),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={"Content-Language": lang, "Cache-Control": "no-store", **(headers or {})},
    )


def problem_of(error: UnjamError, lang: str) -> Response:
    """The problem document of one of our errors."""
    headers: dict[str, str] = {}
    if isinstance(error, NotNow):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    status = status_of(error)
    code = error.code if status != 500 else "internal"
    code = "invalid" if code == UsageError.code else code  # raised without a code of its own
    known = code in PROBLEMS or code in REASONS
    return problem(
        status, code, error.detail, lang, hint="" if known else error.hint, headers=headers
    )


def install(app: FastAPI) -> None:
    """Make every expected error that leaves a route a problem document.

    The unexpected ones are caught by ``auth.Gatekeeper``, the outermost layer.
    """
    app.add_exception_handler(UnjamError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


async def _on_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, UnjamError)
    if status_of(error) == 500:
        _log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
    return problem_of(error, language_of(request))


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        {"where": ".".join(str(p) for p in e["loc"]), "what": str(e["msg"])}
        for e in error.errors()[:20]
    ]
    detail = "; ".join(f"{f['where']}: {f['what']}" for f in faults)
    return problem(422, "invalid", detail, language_of(request), extra={"errors": faults})


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "bad_request" if error.status_code < 500 else "")
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"nothing is served at {request.url.path}"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    return problem(
        error.status_code, code or "internal", detail, language_of(request), headers=headers
    )


def _allowed(request: Request) -> list[str]:
    """Every method of this path; the framework names those of the first route only."""
    paths: dict[str, dict[str, object]] = request.app.openapi()["paths"]
    own = request.url.path.strip("/").split("/")
    methods: set[str] = set()
    for path, operations in paths.items():
        parts = path.strip("/").split("/")
        if len(parts) == len(own) and all(
            p.startswith("{") or p == o for p, o in zip(parts, own, strict=True)
        ):
            methods |= {verb.upper() for verb in operations}
    return sorted(methods) or ["GET"]


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody is there to read it; keeps the log quiet
