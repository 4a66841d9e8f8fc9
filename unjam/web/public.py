"""The public API under ``/api/rag``: documents, search, the ledger equation."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from unjam.core.chunk import chunk_ids
from unjam.core.document import AcceptKind, Document, State
from unjam.core.errors import Conflict, NotFound, UsageError
from unjam.web.house import Binding, House, house_of, language_of
from unjam.web.problems import described
from unjam.web.schemas import (
    ChunksOut,
    DocumentOut,
    DocumentsOut,
    EquationOut,
    HitsOut,
    ProblemOut,
    ReceiptOut,
    ReceiptsOut,
    SearchIn,
    fields_of,
    hit_json,
    json_response,
    receipt_json,
    receipt_status,
)
from unjam.web.sse import Stream, Tail
from unjam.web.uploads import receive_form
from unjam.web.view import shown

PREFIX = "/api/rag"
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}\Z")

DocumentId = Annotated[str, Path(description="the document's id", max_length=200)]
Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        description="repeating a request under its key answers the same document again; the key "
        "under other bytes is a 409; a key is remembered for 7 days",
    ),
]


_ALWAYS = (400, 401, 403, 422, 503)
_UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "the document; POST takes several parts of this name",
                        },
                        "user_id": {
                            "type": "string",
                            "maxLength": 255,
                            "description": "a label for whose document it is; duplicates are per "
                            "user",
                        },
                        "metadata": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "description": "a JSON object of scalars or lists, at most 16 KiB",
                        },
                    },
                },
                "encoding": {"file": {"contentType": "application/octet-stream"}},
            }
        },
    }
}

router = APIRouter(prefix=PREFIX, tags=["documents"])


def _location(document_id: str) -> dict[str, str]:
    return {"Location": f"{PREFIX}/documents/{document_id}"}


async def _document(house: House, document_id: str) -> Document:
    found = await house.ledger.get(document_id) if _ID.match(document_id) else None
    if found is None:
        raise NotFound(f"no document {document_id!a}")
    return found


# -- taking documents in ----------------------------------------------------------------------
@router.post(
    "/documents",
    status_code=202,
    response_model=ReceiptOut | ReceiptsOut,
    responses={
        200: {"description": "the same bytes live already: `duplicate_of`", "model": ReceiptOut},
        **described(*_ALWAYS, 409, 413, 415, 429),
    },
    openapi_extra=_UPLOAD_BODY,
    summary="Upload one or several documents",
)
async def add_documents(request: Request, idempotency_key: Key = "") -> Response:
    house, lang = house_of(request), language_of(request)
    form = await receive_form(request, house.intake)
    receipts = await house.intake.accept(
        form.files,
        user_id=form.user_id,
        metadata=form.metadata,
        idempotency_key=idempotency_key,
    )
    bodies = [receipt_json(r, lang) for r in receipts]
    replayed = {"Idempotency-Replayed": "true"}
    if len(receipts) == 1:
        only = receipts[0]
        if only.kind is AcceptKind.CONFLICT:
            raise Conflict(
                f"Idempotency-Key {idempotency_key!a} belongs to document {only.document_id}, "
                "which has other bytes",
                code="idempotency_conflict",
            )
        headers = _location(only.document_id)
        if only.kind is AcceptKind.REPLAYED:
            headers |= replayed
        return json_response(bodies[0], receipt_status(only), headers)
    statuses = {receipt_status(r) for r in receipts}
    status = 202 if 202 in statuses else 200 if 200 in statuses else 409
    all_replayed = all(r.kind is AcceptKind.REPLAYED for r in receipts)
    return json_response({"items": bodies}, status, replayed if all_replayed else None)


@router.put(
    "/documents/{document_id}",
    status_code=202,
    response_model=ReceiptOut,
    responses={
        200: {"description": "the document holds these bytes already", "model": ReceiptOut},
        **described(*_ALWAYS, 404, 409, 413, 415, 429),
    },
    openapi_extra=_UPLOAD_BODY,
    summary="Give a document new content",
)
async def replace_document(
    request: Request, document_id: DocumentId, idempotency_key: Key = ""
) -> Response:
    """A new generation. Search answers from the old one until the new one is complete."""
    house, lang = house_of(request), language_of(request)
    document = await _document(house, document_id)
    if document.state is State.DELETED:
        raise NotFound(f"document {document_id} was deleted")
    form = await receive_form(request, house.intake, max_files=1)
    receipt = await house.intake.replace(
        document, form.files[0], metadata=form.metadata, idempotency_key=idempotency_key
    )
    if receipt.kind is AcceptKind.CONFLICT:
        raise Conflict(
            f"Idempotency-Key {idempotency_key!a} was used with other bytes",
            code="idempotency_conflict",
        )
    return json_response(
        receipt_json(receipt, lang), receipt_status(receipt), _location(receipt.document_id)
    )


# -- looking ----------------------------------------------------------------------------------
@router.get(
    "/documents",
    response_model=DocumentsOut,
    responses=described(*_ALWAYS),
    summary="List documents, newest first",
)
async def list_documents(
    request: Request,
    state: Annotated[State | None, Query(description="only documents in this state")] = None,
    user_id: Annotated[str | None, Query(max_length=255)] = None,
    ids: Annotated[
        str | None,
        Query(max_length=20_000, description="only these, comma-separated, at most 200; no cursor"),
    ] = None,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    house = house_of(request)
    if ids is not None:
        wanted = ids.split(",")
        if len(wanted) > 200:
            raise UsageError(f"{len(wanted)} ids are too many", hint="Ask for at most 200 at once.")
        found = await house.ledger.get_many([i for i in wanted if _ID.match(i)])
        return json_response({"items": await shown(request, found), "next_cursor": None})
    for name, value in (("user_id", user_id), ("cursor", cursor)):
        if value and "\0" in value:
            raise UsageError(f"{name} holds a NUL character", code="invalid")
    page = await house.ledger.list(state=state, user_id=user_id, cursor=cursor, limit=limit)
    items = await shown(request, page.items)
    return json_response({"items": items, "next_cursor": page.next_cursor})


@router.get(
    "/documents/{document_id}",
    response_model=DocumentOut,
    responses=described(*_ALWAYS, 404),
    summary="One document: where it stands and why",
)
async def show_document(request: Request, document_id: DocumentId) -> Response:
    document = await _document(house_of(request), document_id)
    (body,) = await shown(request, [document])
    return json_response(body)


@router.get(
    "/documents/{document_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "frames: the ledger's events (`id` is their number), `progress` with "
            "the document, and a last `end`",
            "content": {"text/event-stream": {}},
        },
        **described(*_ALWAYS, 404),
    },
    summary="What happens to a document, as server-sent events",
)
async def document_events(
    request: Request,
    document_id: DocumentId,
    follow: Annotated[bool, Query(description="go on after the document has ended")] = False,
    after: Annotated[int, Query(ge=0, lt=2**63, description="skip events up to this one")] = 0,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """Replays what happened, then goes on live. Reconnecting resumes after Last-Event-ID."""
    house = house_of(request)
    document = await _document(house, document_id)
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19):
            raise UsageError("Last-Event-ID is not an event number", code="invalid")
        after = int(last_event_id)
    binding: Binding = request.app.state.binding
    tail: Tail = request.app.state.tail
    stream = Stream(
        house.ledger,
        tail,
        binding.closing,
        document_id=document.id,
        after=after,
        follow=follow,
        lang=language_of(request),
        keeps=house.breakers.keeps,
        forecast=request.app.state.forecaster.now,
    )
    return StreamingResponse(
        stream.frames(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.get(
    "/documents/{document_id}/chunks",
    response_model=ChunksOut,
    responses=described(*_ALWAYS, 404),
    summary="The chunks that search can find",
)
async def document_chunks(
    request: Request,
    document_id: DocumentId,
    cursor: Annotated[str | None, Query(max_length=20)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    house = house_of(request)
    document = await _document(house, document_id)
    first = _chunk_index(cursor)
    last = min(first + limit, document.chunks) if document.visible_generation else 0
    if document.state is State.DELETED or first >= last:
        return json_response({"items": [], "next_cursor": None})
    ids = chunk_ids(document.id, document.visible_generation, last, first)
    items = [
        {"id": c.id, "index": c.index, "text": c.text, "page": c.page, "section": c.section}
        for c in await _stored(house, ids)
    ]
    following = str(last) if last < document.chunks else None
    return json_response({"items": items, "next_cursor": following})


def _chunk_index(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit()):
        raise UsageError(f"cursor {cursor!a} is not one of ours", code="invalid_cursor")
    return int(cursor)


async def _stored(house: House, ids: Any) -> Any:
    """The chunks, from whichever collection in use holds them (several while a model changes)."""
    for pin in [house.current_pin(), *await house.ledger.pins_in_use()]:
        found = await house.vectors.get(pin.fingerprint.collection, ids)
        if found:
            return found
    return []


# -- changing ---------------------------------------------------------------------------------
@router.post(
    "/documents/{document_id}/cancel",
    response_model=DocumentOut,
    responses=described(*_ALWAYS, 404, 409),
    summary="Stop working on a document",
)
async def cancel_document(request: Request, document_id: DocumentId) -> Response:
    house = house_of(request)
    await _document(house, document_id)
    document = await house.ledger.cancel(document_id)
    (body,) = await shown(request, [document])
    return json_response(body)


@router.post(
    "/documents/{document_id}/retry",
    status_code=202,
    response_model=DocumentOut,
    responses=described(*_ALWAYS, 404, 409),
    summary="Put a dead, cancelled or waiting document back to work",
)
async def retry_document(request: Request, document_id: DocumentId) -> Response:
    house = house_of(request)
    await _document(house, document_id)
    ticket = await house.ledger.retry(document_id, house.current_pin())
    house.intake.ring([ticket])
    document = await _document(house, document_id)
    (body,) = await shown(request, [document])
    return json_response(body, 202, _location(document_id))


@router.delete(
    "/documents/{document_id}",
    status_code=204,
    response_class=Response,
    responses=described(*_ALWAYS, 404),
    summary="Delete a document with its chunks and its original",
)
async def delete_document(request: Request, document_id: DocumentId) -> Response:
    house = house_of(request)
    await _document(house, document_id)
    await house.ledger.delete(document_id)
    return Response(status_code=204)


# -- search and the equation ------------------------------------------------------------------
@router.post(
    "/search",
    response_model=HitsOut,
    responses=described(*_ALWAYS),
    tags=["search"],
    summary="Find the chunks nearest to a question",
)
async def search(request: Request, body: SearchIn) -> Response:
    hits = await house_of(request).retriever.search(body.query, body.k, body.filter)
    return json_response({"hits": [hit_json(h) for h in hits]})


@router.get(
    "/ledger",
    response_model=EquationOut,
    responses=described(*_ALWAYS),
    tags=["ledger"],
    summary="The ledger equation: every accepted document, accounted for",
)
async def ledger_equation(request: Request) -> Response:
    return json_response(fields_of(await house_of(request).ledger.equation()))


__all__ = ["PREFIX", "ProblemOut", "router"]
