"""kill -9 of the leading watchdog: the next one sees that it is dead and does not wait for it."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import closing

from unjam.core.document import State
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended
from unjam.watchdog.loop import LEADER_TTL_S, TICK_S


async def test_the_next_watchdog_leads_at_once(stack: Stack) -> None:
    ledger = stack.services.ledger
    first, second = stack.watchdog(), stack.watchdog()

    async def watchdogs() -> set[int]:
        return {ref.pid for ref, _ in await ledger.processes()}

    await until("both report", watchdogs, lambda w: w == {first.pid, second.pid})
    leader, other = (first, second) if await _leads(stack, first.pid) else (second, first)
    leader.signal(signal.SIGKILL)
    await leader.ended()
    killed = time.monotonic()
    await until("the other leads", lambda: _leads(stack, other.pid), deadline_s=LEADER_TTL_S + 5)
    took_s = time.monotonic() - killed
    assert took_s < TICK_S + 2.0, f"{took_s:.1f} s: it waited for a dead one's time to run out"
    await until("the dead one is forgotten", watchdogs, lambda w: w == {other.pid})


async def test_a_clean_end_hands_over_at_once(stack: Stack) -> None:
    ledger = stack.services.ledger
    watchdog = stack.watchdog()
    await until("it leads", lambda: _leads(stack, watchdog.pid))
    assert await watchdog.stop() == 0
    assert await ledger.lead("watchdog", "somebody", 1.0)


async def test_documents_move_on_after_it_was_killed(stack: Stack) -> None:
    killed = stack.watchdog()
    await until("it leads", lambda: _leads(stack, killed.pid))
    killed.signal(signal.SIGKILL)
    await killed.ended()
    stack.worker()
    stack.watchdog()
    document_id = await stack.add("The press of line 4 is oiled in May.")
    documents = await until_ended(stack.services.ledger, [document_id])
    assert documents[document_id].state is State.SEARCHABLE


async def _leads(stack: Stack, pid: int) -> bool:
    """Whether the watchdog process *pid* holds the leadership, as the ledger has it."""
    with closing(sqlite3.connect(stack.data_dir / "ledger.db")) as book:
        row = book.execute("SELECT holder FROM leaders WHERE role = 'watchdog'").fetchone()
    return row is not None and f".{pid}." in row[0]
