"""What every adapter of the port Queue does: RqQueue on a real server, and the double."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from unjam.core.document import Ticket
from unjam.core.ports import Parked
from unjam.queue.lanes import DEAD, DEFAULT_LANES, HIGH, LOW, PROCESSING
from unjam.queue.memory import MemoryQueue
from unjam.queue.rq_queue import RqQueue

AnyQueue = MemoryQueue | RqQueue
ME = "worker.1"


@pytest.fixture(params=["memory", "rq"])
async def queue(request: pytest.FixtureRequest) -> AsyncIterator[AnyQueue]:
    made: AnyQueue = (
        MemoryQueue()
        if request.param == "memory"
        else RqQueue(request.getfixturevalue("redis_url"))
    )
    yield made
    await made.close()


def tickets(count: int, lane: str = PROCESSING, seq: int = 1) -> list[Ticket]:
    return [Ticket(f"0192-doc-{i:04}", seq, lane, 100 + i) for i in range(count)]


def ids(some: list[Ticket]) -> list[str]:
    return [t.job_id for t in some]


async def test_first_in_first_out(queue: AnyQueue) -> None:
    some = tickets(5)
    await queue.push(some)
    assert ids(await queue.take([PROCESSING], 3, ME)) == ids(some[:3])
    assert ids(await queue.take([PROCESSING], 3, ME)) == ids(some[3:])
    assert await queue.take([PROCESSING], 3, ME) == []


async def test_taken_tickets_name_their_lane(queue: AnyQueue) -> None:
    await queue.push([*tickets(1, HIGH), Ticket("b", 7, LOW, 5)])
    taken = await queue.take([HIGH, LOW], 10, ME)
    assert [(t.document_id, t.enqueue_seq, t.lane) for t in taken] == [
        ("0192-doc-0000", 1, HIGH),
        ("b", 7, LOW),
    ]


async def test_lanes_are_served_in_the_order_given(queue: AnyQueue) -> None:
    await queue.push([Ticket("low", 1, LOW), Ticket("high", 1, HIGH), Ticket("mid", 1, PROCESSING)])
    taken = await queue.take([HIGH, PROCESSING, LOW], 2, ME)
    assert [t.document_id for t in taken] == ["high", "mid"]


async def test_pushing_twice_is_pushing_once(queue: AnyQueue) -> None:
    some = tickets(3)
    await queue.push(some)
    await queue.push(some)
    assert (await queue.lengths())[PROCESSING] == 3


async def test_a_ticket_in_hand_or_at_work_is_not_pushed_again(queue: AnyQueue) -> None:
    some = tickets(2)
    await queue.push(some)
    taken = await queue.take([PROCESSING], 2, ME)
    await queue.started(taken[:1], ME)
    await queue.push(some)
    assert (await queue.lengths())[PROCESSING] == 0


async def test_more_than_one_script_call_of_pushes(queue: AnyQueue) -> None:
    some = tickets(1203)
    await queue.push(some)
    assert ids(await queue.take([PROCESSING], 2000, ME)) == ids(some)


async def test_put_back_keeps_the_order(queue: AnyQueue) -> None:
    some = tickets(6)
    await queue.push(some)
    taken = await queue.take([PROCESSING], 4, ME)
    await queue.put_back(taken, ME)
    assert ids(await queue.take([PROCESSING], 10, ME)) == ids(some)


async def test_put_back_twice_is_once(queue: AnyQueue) -> None:
    await queue.push(tickets(1))
    taken = await queue.take([PROCESSING], 1, ME)
    await queue.put_back(taken, ME)
    await queue.put_back(taken, ME)
    assert (await queue.lengths())[PROCESSING] == 1


async def test_present_follows_the_ticket(queue: AnyQueue) -> None:
    first, second, never = *tickets(2), Ticket("never", 1, PROCESSING)
    await queue.push([first, second])
    assert await queue.present([first, second, never]) == [True, True, False]
    taken = await queue.take([PROCESSING], 1, ME)
    assert await queue.present([first, second]) == [True, True]
    await queue.started(taken, ME)
    await queue.finished(taken, ME)
    assert await queue.present([first, second]) == [False, True]


async def test_another_sequence_is_another_job(queue: AnyQueue) -> None:
    old, new = tickets(1), tickets(1, seq=2)
    await queue.push(old)
    assert await queue.present(new) == [False]
    await queue.push(new)
    assert await queue.present(new) == [True]
    taken = await queue.take([PROCESSING], 5, ME)
    assert ids(taken)[-1] == new[0].job_id


async def test_discard_drops_the_job(queue: AnyQueue) -> None:
    some = tickets(1)
    await queue.push(some)
    taken = await queue.take([PROCESSING], 1, ME)
    await queue.discard(taken, ME)
    assert await queue.present(some) == [False]
    assert (await queue.lengths())[PROCESSING] == 0


async def test_discard_leaves_what_another_worker_runs(queue: AnyQueue) -> None:
    some = tickets(1)
    await queue.push(some)
    taken = await queue.take([PROCESSING], 1, ME)
    await queue.started(taken, ME)
    await queue.discard(taken, "worker.2")
    await queue.push(some)
    assert (await queue.lengths())[PROCESSING] == 0, "its job was dropped under its worker"


async def test_the_dead_letters_lane_is_never_served(queue: AnyQueue) -> None:
    await queue.park(tickets(2))
    assert await queue.take([DEAD], 5, ME) == []
    began = time.monotonic()
    await queue.wait([DEAD], 0.15)
    assert time.monotonic() - began >= 0.14


async def test_parked_documents_are_counted_once(queue: AnyQueue) -> None:
    await queue.park(tickets(3))
    await queue.park(tickets(3))
    assert (await queue.lengths())[DEAD] == 3
    await queue.park(tickets(1, seq=4))
    assert (await queue.lengths())[DEAD] == 3
    await queue.unpark(["0192-doc-0000", "0192-doc-0001", "unknown"])
    assert (await queue.lengths())[DEAD] == 1


async def test_repark_makes_it_exact(queue: AnyQueue) -> None:
    await queue.park(tickets(3))
    exact = [tickets(3)[1], Ticket("other", 9, PROCESSING, 1)]
    await queue.repark(exact)
    assert (await queue.lengths())[DEAD] == 2
    await queue.unpark(["0192-doc-0001", "other", "0192-doc-0000"])
    assert (await queue.lengths())[DEAD] == 0
    await queue.repark([])
    assert (await queue.lengths())[DEAD] == 0


async def test_parked_letters_are_whole(queue: AnyQueue) -> None:
    some = tickets(3)
    await queue.park(some)
    assert await queue.parked() == Parked(3, 3, 3)
    assert await queue.requeued() == []
    assert await queue.unsound(some) == []
    assert await queue.unsound([Ticket("other", 1)]) == [Ticket("other", 1)]
    assert await queue.unsound([]) == []
    await queue.acknowledge(some[:1])
    assert await queue.parked() == Parked(2, 2, 2)
    await queue.acknowledge([])


async def test_acknowledging_an_earlier_death_leaves_the_later_one(queue: AnyQueue) -> None:
    await queue.park(tickets(1, seq=4))
    await queue.acknowledge(tickets(1))
    assert await queue.unsound(tickets(1, seq=4)) == []


async def test_finishing_a_parked_job_leaves_the_dead_letter(queue: AnyQueue) -> None:
    some = tickets(1)
    await queue.push(some)
    taken = await queue.take([PROCESSING], 1, ME)
    await queue.started(taken, ME)
    await queue.park(taken)
    await queue.finished(taken, ME, ok=False)
    assert (await queue.lengths())[DEAD] == 1


async def test_lengths_name_every_lane(queue: AnyQueue) -> None:
    await queue.push([Ticket("a", 1, "rag_pdf"), Ticket("b", 1, LOW)])
    lengths = await queue.lengths()
    assert set(lengths) == {*DEFAULT_LANES, DEAD, "rag_pdf"}
    assert lengths["rag_pdf"] == lengths[LOW] == 1


async def test_wait_returns_when_something_is_pushed(queue: AnyQueue) -> None:
    bell = asyncio.ensure_future(queue.wait([HIGH, PROCESSING], 10.0))
    done, _ = await asyncio.wait([bell], timeout=0.12)
    assert not done
    began = time.monotonic()
    await queue.push(tickets(1))
    await asyncio.wait_for(bell, 5.0)
    assert time.monotonic() - began < 0.5


async def test_wait_does_not_take(queue: AnyQueue) -> None:
    await queue.push(tickets(2))
    await queue.wait([PROCESSING], 1.0)
    assert len(await queue.take([PROCESSING], 5, ME)) == 2


async def test_wait_ends_with_its_time(queue: AnyQueue) -> None:
    began = time.monotonic()
    await queue.wait([PROCESSING], 0.12)
    assert 0.1 <= time.monotonic() - began < 1.0


async def test_house_and_epoch(queue: AnyQueue) -> None:
    assert await queue.read_house() == {}
    assert await queue.epoch() == 0
    await queue.write_house({"ledger_id": "x", "old": "1"})
    await queue.write_house({"ledger_id": "y"})
    await queue.set_epoch(4)
    assert await queue.read_house() == {"ledger_id": "y"}
    assert await queue.epoch() == -4, "the audit under it has not come to its end"
    assert not await queue.confirm_epoch(3)
    assert await queue.confirm_epoch(4)
    assert await queue.epoch() == 4


async def test_nothing_is_nothing(queue: AnyQueue) -> None:
    await queue.push([])
    await queue.started([], ME)
    await queue.finished([], ME)
    await queue.put_back([], ME)
    await queue.discard([], ME)
    await queue.unpark([])
    assert await queue.present([]) == []
    assert await queue.take([PROCESSING], 0, ME) == []
    await queue.ping()


async def test_what_a_dead_worker_took_is_absent_at_once(queue: AnyQueue) -> None:
    some = tickets(4)
    await queue.push(some)
    assert await queue.present(some) == [True] * 4
    started, taken, mine = (
        await queue.take([PROCESSING], 1, "dead.1"),
        await queue.take([PROCESSING], 1, "dead.1"),
        await queue.take([PROCESSING], 1, ME),
    )
    await queue.started(started, "dead.1")
    assert [(t.job_id, t.lane) for t in await queue.strand(["dead.1", "dead.2"])] == [
        (taken[0].job_id, PROCESSING)
    ]
    assert await queue.present([*taken, *mine, some[3]]) == [False, True, True]
    again = [Ticket(taken[0].document_id, 2, PROCESSING, 1)]
    await queue.push(again)
    assert await queue.strand(["dead.1"]) == [], "the next sequence cleans up"
    assert ids(await queue.take([PROCESSING], 9, ME)) == [some[3].job_id, again[0].job_id]


async def test_nobody_died(queue: AnyQueue) -> None:
    await queue.push(tickets(1))
    await queue.take([PROCESSING], 1, ME)
    assert await queue.strand([]) == []
    assert await queue.present(tickets(1)) == [True]
