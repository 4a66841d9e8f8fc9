"""What a document or a question costs does not grow with the documents that the ledger holds.

Counted in steps of SQLite's virtual machine, which repeat, not in seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from tests.fixtures.ledger import WORKER, accepted, claimed, submission
from unjam.core.dead_letters import DeadFilter
from unjam.core.document import State
from unjam.core.outcome import Dead, Done
from unjam.stores.ledger import SqlLedger, backlog

FEW, MANY = 50, 3_000
EACH = 10
"""Steps between two looks at the counter."""


class Steps:
    def __init__(self) -> None:
        self.taken = 0

    def one_more(self) -> int:
        self.taken += EACH
        return 0


@pytest.fixture
def steps() -> Iterator[Steps]:
    """Counts those of every connection that is opened from now on."""
    counter = Steps()

    def connected(dbapi: Any, _record: Any) -> None:
        dbapi.set_progress_handler(counter.one_more, EACH)

    event.listen(Engine, "connect", connected)
    yield counter
    event.remove(Engine, "connect", connected)


class House:
    """A ledger with documents of one user, in every state that collects many."""

    def __init__(self, ledger: SqlLedger) -> None:
        self.ledger = ledger
        self.next = 0

    async def fill(self, upto: int) -> None:
        """A third searchable, a third dead, a third in line."""
        while self.next < upto:
            numbers = range(self.next, min(upto, self.next + 300))
            self.next = numbers.stop
            answers = await self.ledger.accept([submission(n) for n in numbers])
            ids = [a.document_id for a in answers]
            line = [t for t in await self.ledger.pushable(1_000) if t.document_id in set(ids)]
            await self.ledger.mark_pushed(line)
            for n, ticket in enumerate(line):
                if n % 3:
                    claim = await claimed(self.ledger, ticket, cap=10_000)
                    dead = Dead("password_protected", "it wants a password")
                    await self.ledger.settle(claim, Done(3) if n % 3 == 1 else dead)

    async def life(self, n: int) -> None:
        ticket = await accepted(self.ledger, n)
        await self.ledger.mark_pushed([ticket])
        claim = await claimed(self.ledger, ticket, cap=10_000)
        self.ledger.renew(WORKER, {claim.document_id: claim.token}, [], 0)
        await self.ledger.settle(claim, Done(3))

    def questions(self, base: int) -> dict[str, Callable[[], Awaitable[object]]]:
        led = self.ledger
        new = iter(range(base + 1, base + 1_000))
        own = f"d{base:08d}"
        hashes = [f"{base:064x}", f"{base + 900:064x}"]
        again = submission(base, document_id="d-again")
        return {
            "a life": lambda: self.life(base),
            "the same bytes": lambda: led.accept([again]),
            "known contents": lambda: led.find_live("ann", hashes),
            "known key": lambda: led.find_idempotent("ann", "key"),
            "one": lambda: led.get(own),
            "several": lambda: led.get_many([own, "d00000001"]),
            "newest": lambda: led.list(user_id="ann", limit=10),
            "newest dead": lambda: led.list(state=State.DEAD, user_id="ann", limit=10),
            "newest of all": lambda: led.list(limit=10),
            "another user's": lambda: led.list(user_id="bob", limit=10),
            "events of one": lambda: led.events(own),
            "last events": lambda: led.events(None, limit=10),
            "last event": led.last_event,
            "equation": led.equation,
            "states": led.state_counts,
            "backlog": led.backlog,
            "counters": led.counters,
            "seen by search": lambda: led.visible([own, "d00000001"]),
            "pins": led.pins_in_use,
            "pushable": lambda: led.pushable(10),
            "in line": lambda: led.queued_slice("", 10),
            "wake": lambda: led.wake(10),
            "clean-ups": lambda: led.due_cleanups(10),
            "unreferenced": lambda: led.unreferenced_blobs(0.0, 10),
            "processes": led.processes,
            "lead": lambda: led.lead("role", "holder", 10.0),
            "late": lambda: led.count_late(300.0, 10),
            "trim": lambda: led.trim(10),
            "vitals": lambda: led.vitals(["rag_processing"], 10**9),
            "glimpse": lambda: led.glimpse([own]),
            "expire": lambda: led.expire(["nobody"], 10),
            "visible chunks": lambda: led.visible_chunks(limit=10),
            "gaps": lambda: led.open_gaps(limit=10),
            "keeping": lambda: led.keeping([(own, 1)]),
            "dead page": lambda: led.dead_page(DeadFilter(), limit=10),
            "dead of a reason": lambda: led.dead_page(DeadFilter(reason="parse_failed"), limit=10),
            "retry a reason": lambda: led.retry_many(DeadFilter(reason="parse_failed"), limit=10),
            "a change": lambda: led.replace(own, submission(next(new), document_id=own)),
            "a cancel": lambda: led.cancel(own),
            "a retry": lambda: led.retry(own),
            "a delete": lambda: led.delete(own),
        }


async def cost(house: House, steps: Steps, base: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, ask in house.questions(base).items():
        before = steps.taken
        await ask()
        found[name] = steps.taken - before
    return found


async def test_nothing_costs_more_in_a_full_house(
    tmp_path: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "SAMPLE", 10)  # of the line it looks at so many, however long
    ledger = await SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}", durable=False)
    try:
        house = House(ledger)
        await house.fill(FEW)
        few = await cost(house, steps, 10_000_000)
        await house.fill(MANY)
        many = await cost(house, steps, 20_000_000)
    finally:
        await ledger.close()
    assert {n: (few[n], many[n]) for n in few if many[n] > 2 * few[n] + 500} == {}
