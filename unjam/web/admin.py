"""The operators' part: what the queues, workers and dead letters look like. Reads only."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from unjam.core.document import State
from unjam.web.health import BEAT_S
from unjam.web.house import House, house_of, language_of
from unjam.web.schemas import document_json, json_response

PREFIX = "/api/rag/admin"
router = APIRouter(prefix=PREFIX, tags=["operators"])

_DLQ = "rag_dlq"
_LANES = ("rag_high", "rag_processing", "rag_low", "rag_large_docs")


async def queue_list(house: House) -> list[dict[str, Any]]:
    """Every lane and the dead letters: name and length. The standard lanes are always there."""
    lengths = await house.queue.lengths()
    names = list(dict.fromkeys([*_LANES, *sorted(lengths), _DLQ]))
    names.append(names.pop(names.index(_DLQ)))
    return [{"name": name, "count": lengths.get(name, 0)} for name in names]


@router.get("/queues", summary="Lanes and their lengths")
async def queues(request: Request) -> Response:
    return json_response({"queues": await queue_list(house_of(request))})


@router.get("/workers", summary="Processes that hold or watch documents")
async def workers(request: Request) -> Response:
    return json_response({"workers": await worker_list(house_of(request))})


async def worker_list(house: House) -> list[dict[str, Any]]:
    """Every process with a heartbeat; *live* while it is younger than 15 s."""
    return [
        {
            "id": p.id,
            "kind": p.kind,
            "host": p.host,
            "pid": p.pid,
            "version": p.version,
            "beat_age_s": round(age, 1),
            "live": age < BEAT_S,
        }
        for p, age in await house.ledger.processes()
    ]


@router.get("/dlq", summary="Dead letters, newest first")
async def dead_letters(
    request: Request,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    house, lang = house_of(request), language_of(request)
    page = await house.ledger.list(state=State.DEAD, cursor=cursor, limit=limit)
    items = [document_json(d, lang) for d in page.items]
    return json_response({"items": items, "next_cursor": page.next_cursor})
