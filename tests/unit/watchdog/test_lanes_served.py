"""Lanes without a listener, counts that do not match, and a suspended queue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from tests.fixtures.ledger import PIN, accepted
from unjam.core.document import Ticket
from unjam.queue.lanes import LARGE, PROCESSING
from unjam.queue.memory import MemoryQueue
from unjam.stores.ledger import SqlLedger
from unjam.stores.memory import memory_ledger
from unjam.stores.memory_vectors import MemoryVectors
from unjam.watchdog.lanes_served import LanesServed
from unjam.watchdog.reconcile import Reconciler


@pytest.fixture
async def book() -> AsyncIterator[SqlLedger]:
    ledger = await memory_ledger()
    yield ledger
    await ledger.close()


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


async def in_line(book: SqlLedger, queue: MemoryQueue, n: int, lane: str) -> Ticket:
    await accepted(book, n, lane=lane)
    (ticket,) = await book.pushable(10)
    await queue.push([ticket])
    await book.mark_pushed([ticket])
    return ticket


async def test_a_lane_that_nobody_serves_gives_its_documents_back(book: SqlLedger) -> None:
    queue, clock = MemoryQueue(), Clock()
    await queue.register_worker("stock", [PROCESSING], 1)
    keeper = LanesServed(book, queue, clock)
    ticket = await in_line(book, queue, 1, LARGE)
    await keeper.check()
    clock.now += 14
    await keeper.check()
    assert (await queue.lengths())[LARGE] == 1
    clock.now += 1
    await keeper.check()
    lengths = await queue.lengths()
    assert (lengths[LARGE], lengths[PROCESSING]) == (0, 1)
    document = await book.get(ticket.document_id)
    assert document is not None
    assert document.lane == PROCESSING
    # What enters a lane that was given up need not wait again.
    await in_line(book, queue, 2, LARGE)
    await keeper.check()
    assert (await queue.lengths())[PROCESSING] == 2


async def test_a_lane_whose_worker_comes_back_keeps_its_documents(book: SqlLedger) -> None:
    queue, clock = MemoryQueue(), Clock()
    await queue.register_worker("stock", [PROCESSING], 1)
    keeper = LanesServed(book, queue, clock)
    await in_line(book, queue, 1, LARGE)
    await keeper.check()
    clock.now += 10
    await queue.register_worker("back", [LARGE], 2)
    await keeper.check()
    await queue.unregister_worker("back")
    clock.now += 10
    await keeper.check()
    assert (await queue.lengths())[LARGE] == 1


async def test_nothing_moves_while_nobody_serves_anything(book: SqlLedger) -> None:
    queue, clock = MemoryQueue(), Clock()
    keeper = LanesServed(book, queue, clock)
    await in_line(book, queue, 1, LARGE)
    for _ in range(4):
        await keeper.check()
        clock.now += 10
    assert (await queue.lengths())[LARGE] == 1


def reconciler(book: SqlLedger, queue: MemoryQueue) -> Reconciler:
    nothing = cast(Any, None)
    return Reconciler(
        ledger=book,
        queue=queue,
        vectors=MemoryVectors(),
        blobs=nothing,
        embedder=nothing,
        current_pin=lambda: PIN,
        is_alive=lambda _: True,
    )


async def test_a_count_that_is_short_twice_has_the_lanes_looked_at_whole(
    book: SqlLedger, caplog: pytest.LogCaptureFixture
) -> None:
    queue = MemoryQueue()
    for n in (1, 2, 3):
        await in_line(book, queue, n, PROCESSING)
    keeper = reconciler(book, queue)
    queue._lanes[PROCESSING].popleft()  # somebody's LPOP
    await keeper.compare_counts()
    assert (await queue.lengths())[PROCESSING] == 2
    await keeper.compare_counts()
    assert (await queue.lengths())[PROCESSING] == 3


async def test_a_suspension_is_said_once_and_so_is_its_end(
    book: SqlLedger, caplog: pytest.LogCaptureFixture
) -> None:
    queue = MemoryQueue()
    keeper = reconciler(book, queue)
    caplog.set_level("INFO")
    for held in (False, True, True, False):
        queue.held_back = held
        await keeper.look_at_the_books()
    said = [r.getMessage() for r in caplog.records if "suspended" in r.getMessage()]
    assert len(said) == 2
    assert "rq resume" in said[0]
