"""Operators' dead letters: grouped by cause, one with its evidence, retry and drop by filter."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from starlette.responses import Response

from unjam.core.dead_letters import AT_ONCE, DeadFilter
from unjam.core.errors import DependencyDown, UsageError
from unjam.core.reasons import REASONS
from unjam.web.bodies import described, json_body
from unjam.web.house import House, house_of, language_of
from unjam.web.schemas import DocumentOut, document_json, event_json, json_response, timestamp

router = APIRouter(prefix="/dlq")
BY = "operator"
Text = Annotated[str, Field(max_length=255)]
Asked = Annotated[str | None, Query(max_length=255)]


class DeadFilterIn(BaseModel):
    """All that is given must match; ``{}`` means every dead letter."""

    model_config = ConfigDict(extra="forbid")

    reason: Text | None = Field(None, examples=["parser_crashed"])
    user_id: Text | None = None
    media_type: Text | None = None

    @field_validator("reason", "user_id", "media_type")
    @classmethod
    def _no_nul(cls, value: str | None) -> str | None:
        if value and "\0" in value:
            raise ValueError("holds a NUL character")
        return value


class DeadLettersIn(BaseModel):
    """Which dead letters to act on: some ids, or a filter."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[Text], Field(max_length=AT_ONCE)] | None = None
    filter: DeadFilterIn | None = None
    expected: int | None = Field(
        None, ge=0, description="how many the caller saw; when others match, nothing happens (409)"
    )
    limit: int = Field(AT_ONCE, ge=1, le=AT_ONCE, description="at most so many, oldest first")

    @model_validator(mode="after")
    def _one_of_two(self) -> DeadLettersIn:
        if (self.ids is None) == (self.filter is None):
            raise ValueError('give either "ids" or "filter" ({} means all)')
        return self

    def which(self) -> DeadFilter:
        if self.filter is not None:
            return DeadFilter(**self.filter.model_dump())
        return DeadFilter(ids=[i for i in self.ids or () if "\0" not in i])


class GroupOut(BaseModel):
    reason: str
    count: int
    what: str = Field(description="what happened, in the caller's language")
    hint: str = Field(description="what to do, in the caller's language")


class DeadLettersOut(BaseModel):
    items: list[DocumentOut]
    next_cursor: str | None
    total: int = Field(description="how many match the filter")
    groups: list[GroupOut] = Field(description="all dead letters by cause, most first")


class DeadLetterOut(DocumentOut):
    """The document, and what is known of its end."""

    what: str
    died_at: str
    evidence: dict[str, Any] = Field(
        description="attempts, step, worker; of the parsing child: signal, exit_status, "
        "max_rss_bytes, cpu_s, stderr and its limits; of an error: exception, traceback"
    )
    history: list[dict[str, Any]] = Field(description="the last events, oldest first")


class RetriedOut(BaseModel):
    retried: int
    ids: list[str]
    remaining: int = Field(description="dead letters that still match")


class DroppedOut(BaseModel):
    dropped: int
    ids: list[str]
    remaining: int = Field(description="dead letters that still match")


@router.get("", response_model=DeadLettersOut, summary="Dead letters, newest first, and by cause")
async def dead_letters(
    request: Request,
    reason: Asked = None,
    user_id: Asked = None,
    media_type: Asked = None,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    house, lang = house_of(request), language_of(request)
    given = {"reason": reason, "user_id": user_id, "media_type": media_type, "cursor": cursor}
    for name, value in given.items():
        if value and "\0" in value:
            raise UsageError(f"{name} holds a NUL character", code="invalid")
    which = DeadFilter(reason, user_id, media_type)
    page = await house.ledger.dead_page(which, cursor=cursor, limit=limit)
    return json_response(
        {
            "items": [document_json(d, lang) for d in page.items],
            "next_cursor": page.next_cursor,
            "total": await house.ledger.count_dead(which),
            "groups": await groups(house, lang),
        }
    )


async def groups(house: House, lang: str) -> list[dict[str, Any]]:
    """Reasons and how many are dead of each, most first."""
    counts = await house.ledger.dead_by_reason()
    return [{"reason": code, "count": n, **_words(code, lang)} for code, n in counts.items()]


def _words(code: str, lang: str) -> dict[str, str]:
    reason = REASONS.get(code)
    if reason is None:
        return {"what": code, "hint": ""}
    return {"what": reason.what_in(lang), "hint": reason.hint_in(lang)}


@router.get(
    "/{document_id}", response_model=DeadLetterOut, summary="One dead letter with its evidence"
)
async def dead_letter(
    request: Request, document_id: Annotated[str, Path(max_length=255, pattern=r"^[\w-]+$")]
) -> Response:
    house, lang = house_of(request), language_of(request)
    letter = await house.ledger.dead_letter(document_id)
    return json_response(
        {
            **document_json(letter.document, lang),
            "what": _words(letter.document.reason, lang)["what"],
            "died_at": timestamp(letter.died_at),
            "evidence": dict(letter.evidence),
            "history": [event_json(e) for e in letter.history],
        }
    )


@router.post(
    "/retry",
    response_model=RetriedOut,
    openapi_extra=described(DeadLettersIn),
    summary="Put dead letters back to work, in one step",
)
async def retry_dead_letters(request: Request) -> Response:
    """Exactly those that match at this moment, in one transaction. The body is read as JSON
    whatever the content type."""
    house = house_of(request)
    asked = await json_body(request, DeadLettersIn)
    which = asked.which()
    ids = await retry(house, which, expected=asked.expected, limit=asked.limit)
    remaining = await house.ledger.count_dead(which)
    return json_response({"retried": len(ids), "ids": ids, "remaining": remaining})


@router.post(
    "/drop",
    response_model=DroppedOut,
    openapi_extra=described(DeadLettersIn),
    summary="End dead letters without a retry, in one step",
)
async def drop_dead_letters(request: Request) -> Response:
    """They become cancelled with the reason ``dropped``: what search shows of them stays, and so
    does the original until the document is deleted."""
    house = house_of(request)
    asked = await json_body(request, DeadLettersIn)
    which = asked.which()
    ids = await drop(house, which, expected=asked.expected, limit=asked.limit)
    remaining = await house.ledger.count_dead(which)
    return json_response({"dropped": len(ids), "ids": ids, "remaining": remaining})


async def retry(
    house: House,
    which: DeadFilter,
    *,
    expected: int | None = None,
    limit: int = AT_ONCE,
    by: str = BY,
) -> list[str]:
    """Put those that match back to work; their ids. Raises Conflict, as ``Ledger.retry_many``."""
    tickets = await house.ledger.retry_many(
        which, expected=expected, limit=limit, pin=house.current_pin(), by=by
    )
    ids = [t.document_id for t in tickets]
    await _unpark(house, ids)
    house.intake.ring(tickets)
    return ids


async def drop(
    house: House,
    which: DeadFilter,
    *,
    expected: int | None = None,
    limit: int = AT_ONCE,
    by: str = BY,
) -> list[str]:
    """End those that match without a retry; their ids. Raises Conflict."""
    ids = await house.ledger.drop_many(which, expected=expected, limit=limit, by=by)
    await _unpark(house, ids)
    return ids


async def _unpark(house: House, ids: list[str]) -> None:
    # With Redis away the reconciler mirrors it later; the ledger has answered already.
    with contextlib.suppress(DependencyDown):
        await house.queue.unpark(ids)
