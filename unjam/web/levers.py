"""Operators' levers on the queues: order, lanes by size and by rules, pauses, ringing again.

Bodies are read as JSON whatever the content type: the runbook's curl calls send a form's.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.responses import Response

from unjam.core.breaker import EVERY_LANE, PAUSE, paused_lanes
from unjam.core.ports import Strategy
from unjam.queue import order
from unjam.queue.lanes import LARGE, PROCESSING
from unjam.queue.rules import FIELDS, MIB, OPERATORS, parse_rules
from unjam.web.audit import operator_of
from unjam.web.bodies import described, json_body
from unjam.web.house import house_of
from unjam.web.schemas import json_response

router = APIRouter()
AT_ONCE = 100_000
EVERY = EVERY_LANE.removeprefix(PAUSE)
Queue = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReorderIn(_Body):
    """Which documents come first; *fair*: the users in turn."""

    strategy: Strategy = Field(examples=["oldest_first"])
    limit: int = Field(100, ge=1, le=AT_ONCE, description="so many are brought to the front")
    queue: Queue = PROCESSING


class SeparateIn(_Body):
    size_threshold_mb: float = Field(10, ge=0, le=1e9, description="1 MB = 1,048,576 bytes")
    target_queue: Queue = LARGE
    queue: Queue | None = Field(None, description="only out of this one; else out of any")


class PrioritizeIn(_Body):
    """The first rule that matches wins; what none matches stays where it is."""

    rules: Annotated[
        list[dict[str, Any]],
        Field(
            min_length=1,
            max_length=100,
            description=f"conditions on {', '.join(FIELDS)} with {' '.join(OPERATORS)}, all of "
            "which must hold, and a priority: high, low, or normal (where size and type put it)",
            examples=[[{"file_size_mb": {"$lt": 5}, "priority": "high"}]],
        ),
    ]


class PauseIn(_Body):
    queue: Queue | None = Field(None, description="only this one; else all")


class RequeueIn(_Body):
    """Some documents, or all that wait in a queue."""

    ids: Annotated[list[str], Field(max_length=10_000)] | None = None
    queue: Queue | None = None

    @field_validator("ids")
    @classmethod
    def _no_nul(cls, value: list[str] | None) -> list[str] | None:
        if any("\0" in i or len(i) > 255 for i in value or ()):
            raise ValueError("holds something that is no id")
        return value


class MovedOut(BaseModel):
    moved: int
    ids: list[str]


class PrioritizedOut(BaseModel):
    """Waiting documents by the rule that matched."""

    high: int
    normal: int
    low: int
    unmatched: int


class PausedOut(BaseModel):
    paused: list[str] = Field(description='queues that are paused now; "*": all')


class RequeuedOut(BaseModel):
    requeued: int
    ids: list[str] = Field(description="no queue held these, and one does now")
    in_line: int = Field(description="stood in their queue anyway")
    skipped: list[str] = Field(description="do not wait for a worker")


def _moved(ids: list[str]) -> Response:
    return json_response({"moved": len(ids), "ids": ids})


@router.post(
    "/reorder-queue",
    response_model=MovedOut,
    openapi_extra=described(ReorderIn),
    summary="Bring documents to the front of a queue",
)
async def reorder_queue(request: Request) -> Response:
    """In one step, while workers take from it; nothing is lost or doubled."""
    house = house_of(request)
    asked = await json_body(request, ReorderIn)
    lane = await order.check_known(house.queue, asked.queue)
    ids = await order.reorder(house.ledger, house.queue, lane, asked.strategy, asked.limit)
    await house.ledger.note_audit(
        operator_of(request), "reorder_queue", {**asked.model_dump(), "moved": len(ids)}
    )
    return _moved(ids)


@router.post(
    "/separate-large-jobs",
    response_model=MovedOut,
    openapi_extra=described(SeparateIn),
    summary="Give large documents a queue of their own",
)
async def separate_large_jobs(request: Request) -> Response:
    """422 when no live worker serves the target."""
    house = house_of(request)
    asked = await json_body(request, SeparateIn)
    sources = [await order.check_known(house.queue, asked.queue)] if asked.queue else []
    larger_than = int(asked.size_threshold_mb * MIB)
    ids = await order.separate(house.ledger, house.queue, larger_than, asked.target_queue, sources)
    await house.ledger.note_audit(
        operator_of(request), "separate_large_jobs", {**asked.model_dump(), "moved": len(ids)}
    )
    return _moved(ids)


@router.post(
    "/prioritize-queue",
    response_model=PrioritizedOut,
    openapi_extra=described(PrioritizeIn),
    summary="Send waiting documents to queues by rules",
)
async def prioritize_queue(request: Request) -> Response:
    """422 names an unknown field or operator, and a queue that nobody serves."""
    house = house_of(request)
    asked = await json_body(request, PrioritizeIn)
    counts = await order.prioritise(house.ledger, house.queue, parse_rules(asked.rules))
    await house.ledger.note_audit(
        operator_of(request), "prioritize_queue", {"rules": asked.rules, **counts}
    )
    return json_response(counts)


@router.post(
    "/pause",
    response_model=PausedOut,
    openapi_extra=described(PauseIn),
    summary="Let nobody take documents from a queue, or from any",
)
async def pause(request: Request) -> Response:
    """Kept in the ledger, so it outlives every restart. Uploads are taken, and what is being
    worked on comes to its end."""
    house = house_of(request)
    asked = await json_body(request, PauseIn)
    lane = await order.check_known(house.queue, asked.queue) if asked.queue else EVERY
    await house.ledger.pause(lane, operator_of(request))
    return await _pauses(request)


@router.post(
    "/resume",
    response_model=PausedOut,
    openapi_extra=described(PauseIn),
    summary="Let a paused queue go on, or all of them",
)
async def resume(request: Request) -> Response:
    """Without a queue: every pause ends, that of `rq suspend` too."""
    house = house_of(request)
    asked = await json_body(request, PauseIn)
    await house.ledger.resume(asked.queue or EVERY, operator_of(request))
    return await _pauses(request, resume=asked.queue is None)


async def _pauses(request: Request, *, resume: bool = False) -> Response:
    house = house_of(request)
    await house.breakers.refresh()
    paused = sorted(paused_lanes(await house.ledger.dependency_states()))
    await house.queue.show_pauses(paused, resume=resume)
    return json_response({"paused": paused})


@router.post(
    "/requeue",
    response_model=RequeuedOut,
    openapi_extra=described(RequeueIn),
    summary="Ring again for documents that wait",
)
async def requeue(request: Request) -> Response:
    """Makes sure that a queue holds them; safe to repeat. (The reconciler does it by itself.)"""
    house = house_of(request)
    asked = await json_body(request, RequeueIn)
    if asked.ids is not None:
        rung = await order.ring_again(house.ledger, house.queue, asked.ids)
    else:
        lane = await order.check_known(house.queue, asked.queue or PROCESSING)
        rung = await order.ring_lane(house.ledger, house.queue, lane)
    data = {"queue": asked.queue, "requeued": len(rung.requeued), "in_line": rung.in_line}
    await house.ledger.note_audit(operator_of(request), "requeue", data)
    return json_response(
        {
            "requeued": len(rung.requeued),
            "ids": rung.requeued,
            "in_line": rung.in_line,
            "skipped": rung.skipped,
        }
    )
