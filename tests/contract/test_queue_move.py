"""Tickets change lanes: in every adapter of Queue, in the ledger, and in both together."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis

from tests.contract.test_queue import ME, AnyQueue, ids, tickets
from tests.fixtures.ledger import accepted, claimed, searchable
from unjam.core.document import Ticket
from unjam.core.errors import UsageError
from unjam.queue import order
from unjam.queue.lanes import DEAD, HIGH, LARGE, LOW, PROCESSING
from unjam.queue.memory import MemoryQueue
from unjam.queue.rq_queue import RqQueue
from unjam.stores.ledger import SqlLedger


@pytest.fixture(params=["memory", "rq"])
async def queue(request: pytest.FixtureRequest) -> AsyncIterator[AnyQueue]:
    made: AnyQueue = (
        MemoryQueue()
        if request.param == "memory"
        else RqQueue(request.getfixturevalue("redis_url"))
    )
    yield made
    await made.close()


async def test_moved_tickets_leave_their_lane_and_keep_their_order(queue: AnyQueue) -> None:
    some = tickets(6)
    await queue.push(some)
    moved = await queue.move([some[4], some[1]], LOW)
    assert [(t.job_id, t.lane) for t in moved] == [(some[1].job_id, LOW), (some[4].job_id, LOW)]
    assert ids(await queue.take([PROCESSING], 9, ME)) == ids([some[0], *some[2:4], some[5]])
    taken = await queue.take([LOW], 9, ME)
    assert ids(taken) == ids([some[1], some[4]])
    assert {t.lane for t in taken} == {LOW}


async def test_what_is_in_hand_or_absent_is_not_moved(queue: AnyQueue) -> None:
    some = tickets(3)
    await queue.push(some[:2])
    (taken,) = await queue.take([PROCESSING], 1, ME)
    assert ids(await queue.move(some, HIGH)) == [some[1].job_id]
    assert (await queue.lengths())[HIGH] == 1
    await queue.put_back([taken], ME)
    assert ids(await queue.take([PROCESSING], 9, ME)) == [some[0].job_id]


async def test_moving_twice_is_moving_once(queue: AnyQueue) -> None:
    some = tickets(4)
    await queue.push(some)
    assert len(await queue.move(some, LOW)) == 4
    assert await queue.move(some, LOW) == []
    assert (await queue.lengths())[LOW] == 4
    assert await queue.present([Ticket(t.document_id, 1, LOW) for t in some]) == [True] * 4


async def test_tickets_of_several_lanes_move_together(queue: AnyQueue) -> None:
    small, low, large = tickets(1), tickets(2, LOW)[1:], tickets(3, LARGE)[2:]
    await queue.push([*small, *low, *large])
    assert len(await queue.move([*small, *low, *large], LARGE)) == 2
    assert (await queue.lengths())[LARGE] == 3


async def test_a_moved_job_is_whole_for_rqs_own_tools(redis_url: str) -> None:
    queue = RqQueue(redis_url)
    some = tickets(12_345)
    await queue.push(some)
    assert len(await queue.move(some[:11_000], "rag_pdf")) == 11_000
    await queue.close()
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.llen("rq:queue:rag_pdf") == 11_000
        assert client.llen("rq:queue:rag_processing") == 1_345
        assert client.hget(f"rq:job:{some[0].job_id}", "origin") == "rag_pdf"
        assert client.hget(f"rq:job:{some[-1].job_id}", "origin") == "rag_processing"
        assert "rq:queue:rag_pdf" in client.smembers("rq:queues")


async def test_the_ledger_changes_the_lane_of_what_stands_in_line(ledger: SqlLedger) -> None:
    queued, received, stale, running = [await accepted(ledger, n) for n in range(1, 5)]
    await ledger.mark_pushed([queued, running])
    await claimed(ledger, running)
    done = Ticket(await searchable(ledger, 9), 1, PROCESSING)
    old = Ticket(stale.document_id, stale.enqueue_seq + 1, PROCESSING)
    asked = [queued, received, old, running, done, Ticket("nobody", 1, PROCESSING)]
    changed = await ledger.change_lane(asked, LOW)
    assert changed == [queued, received]
    lanes = {d.id: d.lane for d in await ledger.get_many([t.document_id for t in asked])}
    assert lanes[queued.document_id] == lanes[received.document_id] == LOW
    assert {lanes[t.document_id] for t in (stale, running, done)} == {PROCESSING}
    assert [t.document_id for t in await ledger.standing_in(LOW)] == [
        queued.document_id,
        received.document_id,
    ]
    assert {t.lane for t in await ledger.standing_in(LOW)} == {LOW}
    assert await ledger.change_lane(await ledger.standing_in(LOW), LOW) == []


async def test_a_move_is_in_the_ledger_and_in_the_queue(ledger: SqlLedger, queue: AnyQueue) -> None:
    some = [await accepted(ledger, n) for n in range(1, 6)]
    await queue.push(some)
    await ledger.mark_pushed(some)
    moved = await order.move(ledger, queue, some[:2], HIGH)
    assert ids(moved) == ids(some[:2])
    assert await order.move_all(ledger, queue, PROCESSING, LOW) == 3
    lengths = await queue.lengths()
    assert (lengths[HIGH], lengths[PROCESSING], lengths[LOW]) == (2, 0, 3)
    assert [t.lane for t in await ledger.queued_slice("", 9)] == [HIGH, HIGH, LOW, LOW, LOW]


async def test_a_move_that_was_cut_off_is_brought_to_its_end_by_repeating(
    ledger: SqlLedger, queue: AnyQueue
) -> None:
    some = [await accepted(ledger, n) for n in range(1, 4)]
    await queue.push(some)
    await ledger.mark_pushed(some)
    await ledger.change_lane(some, LOW)  # and then the process died
    assert await queue.present(await ledger.standing_in(LOW)) == [False] * 3
    assert len(await order.move(ledger, queue, some, LOW)) == 3
    assert await queue.present(await ledger.standing_in(LOW)) == [True] * 3


async def test_no_document_goes_to_the_dead_letters_lane(
    ledger: SqlLedger, queue: AnyQueue
) -> None:
    with pytest.raises(UsageError, match="rag_dlq"):
        await order.move(ledger, queue, [await accepted(ledger, 1)], DEAD)
