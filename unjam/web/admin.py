"""The operators' part: what the queues and workers look like; ``dead_letters`` joins it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unjam.web import audit, capacity, dead_letters, incidents, levers
from unjam.web.health import BEAT_S
from unjam.web.house import House, house_of
from unjam.web.queues import queue_list
from unjam.web.schemas import json_response

PREFIX = "/api/rag/admin"
router = APIRouter(prefix=PREFIX, tags=["operators"])


@router.get("/queues", summary="Lanes: who waits, who serves, since when")
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


router.include_router(dead_letters.router)
router.include_router(capacity.router)
router.include_router(levers.router)
router.include_router(audit.router)
router.include_router(incidents.router)
