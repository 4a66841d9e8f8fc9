"""The watchdog's loop: one leader over all hosts, a round every two seconds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence

from unjam.core.errors import DependencyDown
from unjam.core.ports import Ledger, WorkerRef
from unjam.observe import words
from unjam.watchdog.reconcile import Reconciler

TICK_S = 2.0
LEADER_TTL_S = 6.0
"""A leader that cannot be seen is replaced within this time: three missed rounds."""

Chore = Callable[[], Awaitable[None]]


async def watch(
    *,
    ledger: Ledger,
    reconciler: Reconciler,
    me: WorkerRef,
    stopping: asyncio.Event,
    leader_chores: Sequence[Chore] = (),
    tick_s: float = TICK_S,
) -> None:
    """Run until *stopping* is set. Whoever leads does the rounds; the others stand by."""
    while not stopping.is_set():
        began = time.monotonic()
        try:
            await asyncio.to_thread(ledger.renew, me, {}, ())
            if await _leads(ledger, reconciler, me):
                await reconciler.tick()
                for chore in leader_chores:
                    await _tolerate(chore)
        except DependencyDown as error:
            words.dependency_lost(error.code, error.detail)
        except Exception as error:  # the next round must come, whatever this one met
            words.watchdog_fault(error)
        rest = max(0.05, tick_s - (time.monotonic() - began))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), rest)
    with contextlib.suppress(DependencyDown):
        await ledger.retire(me.id)


async def _leads(ledger: Ledger, reconciler: Reconciler, me: WorkerRef) -> bool:
    """Whether it is for us to do the rounds. A leader of this host that is seen to be dead is
    replaced at once."""
    if await ledger.lead("watchdog", me.id, LEADER_TTL_S):
        return True
    others = [ref for ref, _ in await ledger.processes() if ref.kind == "watchdog"]
    dead = [ref.id for ref in others if reconciler.is_alive(ref) is False]
    if not dead:
        return False
    await ledger.expire(dead)
    return await ledger.lead("watchdog", me.id, LEADER_TTL_S)


async def _tolerate(chore: Chore) -> None:
    try:
        await chore()
    except DependencyDown as error:
        words.dependency_lost(error.code, error.detail)
    except Exception as error:  # one chore's fault is not the others'
        words.watchdog_fault(error)
