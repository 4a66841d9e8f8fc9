"""Tells the ledger how a supervisor's workers ended: evidence for the documents they held, and all
that there is of those that never came so far as to have a heartbeat."""

from __future__ import annotations

import asyncio
import contextlib

from unjam.core.errors import DependencyDown
from unjam.core.ports import Ledger
from unjam.worker.identity import host_id
from unjam.worker.supervisor import ENDINGS_KEPT, Supervisor, Tier

Ends = asyncio.Queue[tuple[str, int]]


async def follow_exits(supervisor: Supervisor, ledger: Ledger) -> None:
    """Until cancelled. What the ledger does not take now is lost: it is evidence, no state."""
    ends: Ends = asyncio.Queue(ENDINGS_KEPT)
    writing = asyncio.create_task(_write(ends, ledger), name="note exits")
    try:
        while True:
            process_id, code = await supervisor.endings.get()
            # Asked at once: its successor begins 50 ms later, and then nobody knows what it was.
            if _was_worker(supervisor, process_id) and not ends.full():
                ends.put_nowait((process_id, code))
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def _was_worker(supervisor: Supervisor, process_id: str) -> bool:
    tiers = supervisor.tiers()
    lives = supervisor.lives().items()
    name = next((n for n, (p, s) in lives if f"{host_id()}.{p}.{s}" == process_id), "")
    return tiers.get(name) is Tier.WORKER


async def _write(ends: Ends, ledger: Ledger) -> None:
    while True:
        process_id, code = await ends.get()
        with contextlib.suppress(DependencyDown):
            await ledger.note_exit(process_id, code)
