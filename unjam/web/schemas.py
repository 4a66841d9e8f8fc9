"""The shapes that the HTTP API takes and gives; OpenAPI is made from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.responses import Response

from unjam.core.breaker import Breaker
from unjam.core.document import CLAIMABLE, AcceptKind, Document, State
from unjam.core.events import Event
from unjam.core.reasons import hint_of
from unjam.observe.forecast import Forecast
from unjam.pipeline.intake import Receipt
from unjam.web.house import HitLike
from unjam.web.problems import words_of

Example = Annotated[str, Field(examples=["0198c0de-0000-7000-8000-000000000001"])]


def json_response(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON, never cached: every answer here is a moment's truth."""
    return Response(
        orjson.dumps(value),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def timestamp(at: float | None) -> str | None:
    """RFC 3339 in UTC, milliseconds."""
    if at is None:
        return None
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


# -- documents --------------------------------------------------------------------------------
class ProgressOut(BaseModel):
    stage: str = Field(description="the state, as long as it is being worked on; else empty")
    done: int = Field(description="chunks stored of the newest generation")
    total: int = Field(description="0 = not known yet")


class AttemptsOut(BaseModel):
    errors: int = Field(description="errors of the document's own")
    deaths: int = Field(description="deaths of a worker that held only this document")
    throttles: int = Field(description="waits for rate limits; never count against it")


class DocumentOut(BaseModel):
    """One document. Times are RFC 3339 in UTC."""

    id: Example
    state: State
    reason: str = Field(description="why it waits or is parked; empty while it moves")
    hint: str = Field(description="what to do, in the caller's language")
    detail: str
    progress: ProgressOut
    attempts: AttemptsOut
    next_step_at: str | None
    eta_s: float | None = Field(description="about how long until it is searchable; null = unknown")
    chunks: int = Field(description="chunks that search can find")
    filename: str
    names: list[str] = Field(description="further names under which the same bytes arrived")
    media_type: str
    size_bytes: int
    content_hash: str = Field(description="sha-256 of the bytes, hex")
    user_id: str
    metadata: dict[str, Any]
    generation: int
    visible_generation: int = Field(description="0 = not searchable yet")
    lane: str
    created_at: str
    updated_at: str
    searchable_at: str | None


class DocumentsOut(BaseModel):
    items: list[DocumentOut]
    next_cursor: str | None


_WORKING = frozenset({State.PARSING, State.CHUNKING, State.EMBEDDING, State.STORING})


Keeps = Callable[[State, str], Breaker | None]
"""What keeps documents of a state and lane where they are, though no row of theirs says so."""


def document_json(
    document: Document,
    lang: str,
    keeps: Keeps = lambda _state, _lane: None,
    forecast: Forecast | None = None,
) -> dict[str, Any]:
    """The fields of :class:`DocumentOut`."""
    kept = keeps(document.state, document.lane)
    reason, detail, next_step_at = document.reason, document.detail, document.next_step_at
    eta_s = forecast.eta_s(document, time.time()) if forecast and kept is None else None
    if document.state in CLAIMABLE:
        if kept is not None:
            reason, detail, next_step_at = kept.reason, kept.detail, kept.until
        reason = reason or "in_line"
    return {
        "id": document.id,
        "state": document.state.value,
        "reason": reason,
        "hint": hint_of(reason, lang),
        "detail": detail,
        "progress": {
            "stage": document.state.value if document.state in _WORKING else "",
            "done": document.progress_done,
            "total": document.progress_total,
        },
        "attempts": {
            "errors": document.errors,
            "deaths": document.deaths,
            "throttles": document.throttles,
        },
        "next_step_at": timestamp(next_step_at),
        "eta_s": eta_s,
        "chunks": document.chunks,
        "filename": document.filename,
        "names": list(document.names),
        "media_type": document.media_type,
        "size_bytes": document.size_bytes,
        "content_hash": document.content_hash,
        "user_id": document.user_id,
        "metadata": dict(document.metadata),
        "generation": document.generation,
        "visible_generation": document.visible_generation,
        "lane": document.lane,
        "created_at": timestamp(document.created_at),
        "updated_at": timestamp(document.updated_at),
        "searchable_at": timestamp(document.searchable_at),
    }


# -- uploads ----------------------------------------------------------------------------------
class ReceiptOut(BaseModel):
    """What became of one uploaded file; *status* is its own HTTP status."""

    model_config = ConfigDict(extra="allow")

    status: int
    id: Example
    state: State
    outcome: AcceptKind
    duplicate_of: str | None = None
    filename: str
    media_type: str
    size_bytes: int
    user_id: str


class ReceiptsOut(BaseModel):
    items: list[ReceiptOut]


def receipt_status(receipt: Receipt) -> int:
    return {AcceptKind.DUPLICATE: 200, AcceptKind.CONFLICT: 409}.get(receipt.kind, 202)


def receipt_json(receipt: Receipt, lang: str) -> dict[str, Any]:
    """The fields of :class:`ReceiptOut`; a refused one carries its problem's fields too."""
    body: dict[str, Any] = {
        "status": receipt_status(receipt),
        "id": receipt.document_id,
        "state": receipt.state.value,
        "outcome": receipt.kind.value,
        "filename": receipt.filename,
        "media_type": receipt.media_type,
        "size_bytes": receipt.size_bytes,
        "user_id": receipt.user_id,
    }
    if receipt.kind is AcceptKind.DUPLICATE:
        body["duplicate_of"] = receipt.document_id
    if receipt.kind is AcceptKind.CONFLICT:
        title, hint = words_of("idempotency_conflict", lang)
        body |= {"code": "idempotency_conflict", "detail": title, "hint": hint}
    return body


# -- events -----------------------------------------------------------------------------------
def event_json(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "document_id": event.document_id,
        "generation": event.generation,
        "at": timestamp(event.at),
        "kind": event.kind.value,
        "data": dict(event.data),
    }


# -- chunks and search ------------------------------------------------------------------------
class ChunkOut(BaseModel):
    id: str
    index: int
    text: str
    page: int | None
    section: str


class ChunksOut(BaseModel):
    items: list[ChunkOut]
    next_cursor: str | None


class SearchIn(BaseModel):
    """A question to the searchable documents."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=8000, examples=["연차 휴가는 며칠인가요?"])
    k: int = Field(5, ge=1, le=100, description="how many hits at most")
    filter: dict[str, Any] | None = Field(
        None,
        description='only chunks of documents that match, e.g. {"user_id": "kim"}',
        examples=[None],
    )

    @field_validator("query")
    @classmethod
    def _fit(cls, value: str) -> str:
        text = value.encode("utf-8", "replace").decode().replace("\0", " ").strip()
        if not text:
            raise ValueError("the query is empty")
        return text


class HitOut(BaseModel):
    document_id: str
    chunk_id: str
    score: float = Field(description="cosine similarity, −1 … 1")
    text: str
    filename: str
    page: int | None
    section: str
    metadata: dict[str, Any]
    user_id: str


class HitsOut(BaseModel):
    hits: list[HitOut]


def hit_json(hit: HitLike) -> dict[str, Any]:
    return {
        "document_id": hit.document_id,
        "chunk_id": hit.chunk_id,
        "score": float(hit.score),
        "text": hit.text,
        "filename": hit.filename,
        "page": hit.page,
        "section": hit.section,
        "metadata": dict(hit.metadata),
        "user_id": hit.user_id,
    }


# -- the ledger equation ----------------------------------------------------------------------
class EquationOut(BaseModel):
    """accepted = searchable + running + queued + waiting + dead + cancelled + deleted + missing."""

    accepted: int
    searchable: int
    running: int
    queued: int
    waiting: int
    dead: int
    cancelled: int
    deleted: int
    missing: int


def fields_of(value: Any) -> dict[str, Any]:
    """A flat dataclass as JSON."""
    return asdict(value)


class ProblemOut(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="stable, for programs")
    hint: str = Field(description="what to do, in the caller's language")
