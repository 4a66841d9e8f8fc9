"""Is the process up, and are documents taken and worked on?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unjam.core.errors import UnjamError
from unjam.web.house import House, house_of
from unjam.web.schemas import json_response

BEAT_S = 15.0
"""A worker whose last heartbeat is older than this counts as gone."""
_CHECK_S = 3.0
_REMEMBER_S = 0.5

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process answers")
async def healthz(request: Request) -> Response:
    """From memory: it answers whatever is full or away. *dependencies*: closed is good; open and
    half_open mean that documents wait for it."""
    states = house_of(request).breakers.states()
    return json_response({"ok": True, "dependencies": states})


@router.get(
    "/readyz",
    summary="Documents are taken and worked on",
    responses={
        200: {"description": "ready"},
        503: {"description": "not ready: `reasons` says why"},
    },
)
async def readyz(request: Request) -> Response:
    """200 when the ledger can be written, the queue answers and a worker lives; else 503."""
    house = house_of(request)
    now = time.monotonic()
    last: tuple[float, dict[str, Any]] | None = getattr(request.app.state, "readiness", None)
    if last is None or now - last[0] > _REMEMBER_S:
        last = (now, await readiness(house))
        request.app.state.readiness = last
    report = last[1]
    return json_response(report, 200 if report["ready"] else 503)


async def readiness(house: House) -> dict[str, Any]:
    """``{"ready", "workers", "vector_store", "reasons": [{"code", "detail", "hint"}]}``.

    Never raises.
    """
    workers = 0

    async def worker() -> None:
        nonlocal workers
        beats = await house.ledger.processes()
        workers = sum(1 for p, age in beats if p.kind in ("worker", "stock") and age < BEAT_S)

    async def ledger() -> None:
        # A real durable write, on one row: a full disk is not seen by reading.
        await house.ledger.lead("readiness-probe", "api", 5.0)

    found = await asyncio.gather(
        _fault("ledger_unwritable", ledger),
        _fault("queue_down", house.queue.ping),
        _fault("ledger_unwritable", worker),
    )
    reasons = list({f["code"]: f for f in found if f is not None}.values())
    if workers == 0 and not any(r["code"] == "ledger_unwritable" for r in reasons):
        reasons.append(
            {
                "code": "no_worker",
                "detail": f"no worker has sent a heartbeat for {BEAT_S:.0f} s",
                "hint": "Start one: unjam up, or unjam worker.",
            }
        )
    store = house.settings.vector_store
    return {"ready": not reasons, "workers": workers, "vector_store": store, "reasons": reasons}


async def _fault(code: str, check: Callable[[], Awaitable[object]]) -> dict[str, str] | None:
    try:
        async with asyncio.timeout(_CHECK_S):
            await check()
    except TimeoutError:
        return {"code": code, "detail": f"no answer within {_CHECK_S:.0f} s", "hint": ""}
    except UnjamError as error:
        return {"code": error.code, "detail": error.detail, "hint": error.hint}
    except Exception as error:
        return {"code": code, "detail": f"{type(error).__name__}: {error}", "hint": ""}
    return None
