"""Every reason for which a document waits or is parked, with what to do, in English and Korean.

One table: the API's ``hint``, the CLI's words, the dead letters' grouping and the generated
reference page all read it, so none of them can name a reason that the others do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["dead", "waiting", "ended"]


@dataclass(frozen=True, slots=True)
class Reason:
    """*what* happened and the *hint* what to do; ``_ko`` in Korean."""

    code: str
    kind: Kind
    what: str
    hint: str
    what_ko: str
    hint_ko: str

    def what_in(self, lang: str) -> str:
        return self.what_ko if lang == "ko" else self.what

    def hint_in(self, lang: str) -> str:
        return self.hint_ko if lang == "ko" else self.hint


_TABLE = (
    # -- dead: the bytes --------------------------------------------------------------------
    Reason(
        "encrypted",
        "dead",
        "The file is encrypted or password-protected.",
        "Remove the password and upload the file again.",
        "파일이 암호로 보호되어 있습니다.",
        "암호를 해제한 뒤 다시 업로드하세요.",
    ),
    Reason(
        "empty",
        "dead",
        "The file holds no text at all.",
        "Check that the right file was chosen; upload it again once it has content.",
        "파일에 텍스트가 전혀 없습니다.",
        "올바른 파일인지 확인하고 내용이 있는 파일을 다시 업로드하세요.",
    ),
    Reason(
        "needs_ocr",
        "dead",
        "The pages are images; there is no text layer to read.",
        "Run OCR over the file (for a PDF: ocrmypdf) and upload the result.",
        "페이지가 이미지뿐이라 읽을 텍스트가 없습니다.",
        "OCR(예: PDF는 ocrmypdf)을 실행한 결과를 업로드하세요.",
    ),
    Reason(
        "unsupported_type",
        "dead",
        "This kind of file cannot be read.",
        "Export it as PDF, DOCX, HTML or text and upload that.",
        "지원하지 않는 파일 형식입니다.",
        "PDF, DOCX, HTML 또는 텍스트로 내보내어 업로드하세요.",
    ),
    Reason(
        "corrupt",
        "dead",
        "The file is damaged: truncated, or not what it claims to be.",
        "Open it in its own program, save it anew and upload that.",
        "파일이 손상되었습니다(잘렸거나 형식이 다릅니다).",
        "원래 프로그램에서 열어 다시 저장한 뒤 업로드하세요.",
    ),
    Reason(
        "too_little_text",
        "dead",
        "Far less text came out than a file of this size should hold.",
        "Check for scanned pages or exotic fonts; export as text or run OCR, then upload again.",
        "파일 크기에 비해 추출된 텍스트가 지나치게 적습니다.",
        "스캔 페이지나 특수 글꼴인지 확인하고, 텍스트로 내보내거나 OCR 후 다시 업로드하세요.",
    ),
    Reason(
        "decompression_bomb",
        "dead",
        "The archive unpacks to an absurd size.",
        "If the file is genuine, split it; otherwise treat it as hostile.",
        "압축을 풀면 비정상적으로 커지는 파일입니다.",
        "정상 파일이면 나누어 업로드하고, 아니면 악성 파일로 취급하세요.",
    ),
    Reason(
        "parser_crashed",
        "dead",
        "The parser crashed on this file each time it was tried.",
        "Export the file to another format; keep this one as a sample for a bug report.",
        "이 파일을 읽는 동안 파서가 매번 비정상 종료되었습니다.",
        "다른 형식으로 내보내어 업로드하고, 이 파일은 버그 신고용으로 보관하세요.",
    ),
    Reason(
        "parser_memory",
        "dead",
        "Reading this file needs more memory than a parser may take.",
        "Split the file, or raise RAG_WORKER_MEMORY_MB and retry.",
        "파일을 읽는 데 허용된 것보다 많은 메모리가 필요합니다.",
        "파일을 나누거나 RAG_WORKER_MEMORY_MB를 올린 뒤 재시도하세요.",
    ),
    Reason(
        "parser_timeout",
        "dead",
        "Reading this file took longer than a parser may take.",
        "Split the file or export it to a simpler format.",
        "파일을 읽는 시간이 한도를 넘었습니다.",
        "파일을 나누거나 단순한 형식으로 내보내세요.",
    ),
    Reason(
        "parser_output",
        "dead",
        "The file yields more text than a document may have.",
        "Split the file into parts.",
        "추출된 텍스트가 문서 한 개의 한도를 넘었습니다.",
        "파일을 여러 개로 나누세요.",
    ),
    # -- dead: the work ---------------------------------------------------------------------
    Reason(
        "kills_its_worker",
        "dead",
        "The worker died three times while it held only this document.",
        "Look at the evidence (memory, signal); split the file, or give workers more memory.",
        "이 문서만 처리하던 워커가 세 번 연속 종료되었습니다.",
        "증거(메모리, 시그널)를 확인하고 파일을 나누거나 워커 메모리를 늘리세요.",
    ),
    Reason(
        "errors_exhausted",
        "dead",
        "The document failed with errors of its own too often.",
        "Read the last error in the detail; retry once its cause is gone.",
        "문서 자체의 오류로 재시도 한도를 넘었습니다.",
        "마지막 오류 내용을 확인하고 원인을 없앤 뒤 재시도하세요.",
    ),
    Reason(
        "embedding_refused",
        "dead",
        "The embedding endpoint refuses a text of this document.",
        "See which chunk in the evidence; change the document or the model.",
        "임베딩 API가 이 문서의 일부 텍스트를 거부합니다.",
        "증거에서 해당 청크를 확인하고 문서나 모델을 바꾸세요.",
    ),
    Reason(
        "original_missing",
        "dead",
        "The stored original is gone from the blob store.",
        "Upload the file again, and find out who removed files from the storage folder.",
        "저장된 원본 파일이 사라졌습니다.",
        "파일을 다시 업로드하고, 저장 폴더에서 파일을 지운 원인을 찾으세요.",
    ),
    # -- waiting ----------------------------------------------------------------------------
    Reason(
        "processing_error",
        "waiting",
        "The last attempt failed; another follows.",
        "Nothing to do: it retries by itself. The detail names the error.",
        "마지막 시도가 실패했으며 곧 다시 시도합니다.",
        "할 일은 없습니다. 자동으로 재시도합니다. 상세에 오류가 있습니다.",
    ),
    Reason(
        "embedding_throttled",
        "waiting",
        "The embedding API asks to slow down (429).",
        "Nothing to do; if it lasts, raise the API limit or add keys (OPENAI_API_KEYS).",
        "임베딩 API가 속도 제한(429)을 요청했습니다.",
        "할 일은 없습니다. 오래 지속되면 API 한도를 올리거나 키를 추가하세요(OPENAI_API_KEYS).",
    ),
    Reason(
        "embedding_quota",
        "waiting",
        "The embedding account has no quota left.",
        "Add credit or another key; work goes on by itself afterwards.",
        "임베딩 계정의 할당량이 소진되었습니다.",
        "크레딧이나 다른 키를 추가하세요. 이후 자동으로 재개됩니다.",
    ),
    Reason(
        "embedding_unauthorised",
        "waiting",
        "Every embedding key is refused (401), or the worker has none.",
        "Set a valid OPENAI_API_KEY for every worker, stock RQ workers too; work goes on by itself afterwards.",
        "모든 임베딩 키가 거부되었거나(401) 워커에 키가 없습니다.",
        "모든 워커(기본 RQ 워커 포함)에 올바른 OPENAI_API_KEY를 설정하세요. 이후 자동으로 재개됩니다.",
    ),
    Reason(
        "embedding_down",
        "waiting",
        "The embedding endpoint does not answer, or with errors.",
        "Check OPENAI_BASE_URL and the provider's status; work goes on by itself afterwards.",
        "임베딩 엔드포인트가 응답하지 않거나 오류를 냅니다.",
        "OPENAI_BASE_URL과 제공자 상태를 확인하세요. 이후 자동으로 재개됩니다.",
    ),
    Reason(
        "embedding_dimension_changed",
        "waiting",
        "The endpoint gives vectors of another dimension than the index holds.",
        "Point RAG_EMBEDDING_MODEL at the model the index was built with, or under a new name.",
        "임베딩 벡터의 차원이 인덱스와 다릅니다.",
        "RAG_EMBEDDING_MODEL을 인덱스를 만든 모델로 되돌리거나 새 이름으로 지정하세요.",
    ),
    Reason(
        "vector_store_down",
        "waiting",
        "The vector store does not answer or refuses writes.",
        "Check RAG_CHROMA_URL or RAG_VECTOR_STORE_URL, and its disk; work goes on by itself afterwards.",
        "벡터 저장소가 응답하지 않거나 쓰기를 거부합니다.",
        "RAG_CHROMA_URL 또는 RAG_VECTOR_STORE_URL과 디스크를 확인하세요. 이후 자동으로 재개됩니다.",
    ),
    Reason(
        "queue_down",
        "waiting",
        "Redis does not answer.",
        "Check RAG_REDIS_URL; documents are safe in the ledger and go on by themselves.",
        "Redis가 응답하지 않습니다.",
        "RAG_REDIS_URL을 확인하세요. 문서는 원장에 안전하며 자동으로 재개됩니다.",
    ),
    Reason(
        "queue_full",
        "waiting",
        "Redis is full (maxmemory) and takes no further documents; what it holds drains.",
        "Raise Redis' maxmemory or remove foreign keys; documents enter by themselves.",
        "Redis가 가득 차(maxmemory) 문서를 더 받지 못합니다. 이미 담긴 문서는 처리됩니다.",
        "Redis의 maxmemory를 올리거나 다른 키를 지우세요. 문서는 자동으로 들어갑니다.",
    ),
    Reason(
        "ledger_unwritable",
        "waiting",
        "The ledger's disk is full or read-only.",
        "Free disk space; work goes on by itself afterwards.",
        "원장의 디스크가 가득 찼거나 읽기 전용입니다.",
        "디스크 공간을 확보하세요. 이후 자동으로 재개됩니다.",
    ),
    Reason(
        "blob_store_down",
        "waiting",
        "The folder or bucket of the originals cannot be read.",
        "Check the storage path and its disk, or the bucket and its endpoint; work goes on by itself afterwards.",
        "원본 저장 폴더나 버킷을 읽을 수 없습니다.",
        "저장 경로와 디스크, 또는 버킷과 엔드포인트를 확인하세요. 이후 자동으로 재개됩니다.",
    ),
    Reason(
        "worker_died",
        "waiting",
        "The worker that held it died; it is taken up again.",
        "Nothing to do: it continues from the last stored batch.",
        "처리하던 워커가 종료되어 다시 시작합니다.",
        "할 일은 없습니다. 마지막 저장 지점부터 이어집니다.",
    ),
    Reason(
        "worker_unfit",
        "waiting",
        "The worker that took it cannot work: its parser does not start, or it lacks memory, processes or open files.",
        "See the worker's log, `free -h` and its limits (ulimit -u, -n); it is tried again by itself and costs no attempt.",
        "문서를 맡은 워커가 일할 수 없습니다. 파서가 시작되지 않거나 메모리, 프로세스, 열린 파일이 부족합니다.",
        "워커 로그, `free -h`, 한도(ulimit -u, -n)를 확인하세요. 시도 횟수에 들지 않고 자동으로 다시 시도합니다.",
    ),
    Reason(
        "setup_incomplete",
        "waiting",
        "The worker's host lacks something that this document needs, such as its model's tokenizer.",
        "The detail names it: install or configure it on every host with workers; work goes on by itself afterwards.",
        "이 문서에 필요한 것(모델의 토크나이저 등)이 워커의 호스트에 없습니다.",
        "상세에 이름이 있습니다. 워커가 있는 모든 호스트에 설치하거나 설정하세요. 이후 자동으로 재개됩니다.",
    ),
    Reason(
        "handed_back",
        "waiting",
        "The worker was asked to stop and handed it back.",
        "Nothing to do: another worker takes it.",
        "워커가 종료 요청을 받아 문서를 반납했습니다.",
        "할 일은 없습니다. 다른 워커가 이어받습니다.",
    ),
    Reason(
        "paused",
        "waiting",
        "A person paused its queue.",
        "Let it go on with `unjam queue resume`; uploads are taken meanwhile.",
        "운영자가 이 큐를 일시 중지했습니다.",
        "`unjam queue resume`으로 재개하세요. 그동안에도 업로드는 받습니다.",
    ),
    Reason(
        "in_line",
        "waiting",
        "It stands in line behind other documents.",
        "Nothing to do; more workers shorten the line (unjam up --workers N).",
        "다른 문서 뒤에서 차례를 기다립니다.",
        "할 일은 없습니다. 워커를 늘리면 빨라집니다(unjam up --workers N).",
    ),
    # -- ended by a person ------------------------------------------------------------------
    Reason(
        "cancelled_by_user",
        "ended",
        "Somebody cancelled it.",
        "Retry it to put it back to work, or delete it.",
        "사용자가 취소했습니다.",
        "다시 처리하려면 재시도하고, 아니면 삭제하세요.",
    ),
    Reason(
        "dropped",
        "ended",
        "Somebody dropped it from the dead letters.",
        "Retry it if it is wanted after all, or delete it.",
        "데드레터에서 제거되었습니다.",
        "다시 필요하면 재시도하고, 아니면 삭제하세요.",
    ),
)

REASONS: Mapping[str, Reason] = {r.code: r for r in _TABLE}


def hint_of(code: str, lang: str = "en") -> str:
    """What to do about *code*; "" when nothing is wrong."""
    reason = REASONS.get(code)
    return reason.hint_in(lang) if reason else ""
