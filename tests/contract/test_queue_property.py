"""No interleaving of pushes, takes, kills and put-backs loses a ticket or hands one out twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unjam.core.document import Ticket
from unjam.queue import audit, keys
from unjam.queue.lanes import HIGH, LOW, PROCESSING
from unjam.queue.memory import MemoryQueue
from unjam.queue.rq_queue import RqQueue
from unjam.worker.embedded import Server

LANES = [HIGH, PROCESSING, LOW]
AnyQueue = MemoryQueue | RqQueue

steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 11)),
        st.tuples(st.just("take"), st.integers(1, 5)),
        st.tuples(st.just("kill"), st.integers(0, 1)),  # between take and started
        st.tuples(st.just("start"), st.integers(0, 1)),
        st.tuples(st.just("finish"), st.integers(0, 1)),
        st.tuples(st.just("put_back"), st.integers(0, 1)),
        st.tuples(st.just("audit"), st.just(0)),
        st.tuples(st.just("move"), st.integers(0, 11)),
        st.tuples(st.just("cut_move"), st.integers(0, 11)),  # killed between ledger and queue
        st.tuples(st.just("front"), st.integers(0, 11)),
    ),
    max_size=40,
)


class Model:
    """Two workers and a ledger of twelve documents, beside the queue."""

    def __init__(self, queue: AnyQueue, forget: Callable[[], None]) -> None:
        self.queue = queue
        self.forget = forget  # lets the time pass after which a taken ticket counts as stranded
        self.seq: dict[str, int] = {}
        self.lane: dict[str, str] = {}
        self.hand: list[list[Ticket]] = [[], []]
        self.work: list[list[Ticket]] = [[], []]
        self.done: set[str] = set()

    def ticket(self, number: int) -> Ticket:
        name = f"doc{number}"
        lane = self.lane.get(name, LANES[number % 3])
        return Ticket(name, self.seq.get(name, 1), lane, number, f"user{number % 2}")

    async def push(self, number: int) -> None:
        ticket = self.ticket(number)
        if ticket.document_id not in self.done:
            self.seq.setdefault(ticket.document_id, 1)
            await self.queue.push([ticket])

    async def take(self, limit: int) -> None:
        who = limit % 2
        room = len(self.hand[who])
        taken = await self.queue.take(LANES, limit, f"w{who}")
        assert len(taken) <= limit
        live = [t for t in taken if t.enqueue_seq == self.seq[t.document_id]]
        await self.queue.discard([t for t in taken if t not in live], f"w{who}")
        held = {t.job_id for both in (self.hand, self.work) for some in both for t in some}
        assert not held & {t.job_id for t in live}, "handed out twice"
        assert not self.done & {t.document_id for t in live}, "came back after its end"
        self.hand[who] += live
        assert len(self.hand[who]) == room + len(live)

    async def kill(self, who: int) -> None:
        self.hand[who] = []

    async def start(self, who: int) -> None:
        await self.queue.started(self.hand[who], f"w{who}")
        self.work[who] += self.hand[who]
        self.hand[who] = []

    async def finish(self, who: int) -> None:
        await self.queue.finished(self.work[who], f"w{who}")
        self.done |= {t.document_id for t in self.work[who]}
        self.work[who] = []

    async def put_back(self, who: int) -> None:
        await self.queue.put_back(self.hand[who], f"w{who}")
        self.hand[who] = []

    async def audit(self, _: int = 0) -> None:
        """What the reconciler does: absent ones get a new sequence."""
        busy = {t.document_id for both in (self.hand, self.work) for some in both for t in some}
        self.forget()
        queued = [self.ticket(int(n[3:])) for n in self.seq if n not in busy | self.done]
        present = await self.queue.present(queued)
        absent = [t for t, there in zip(queued, present, strict=True) if not there]
        for ticket in absent:
            self.seq[ticket.document_id] += 1
        await self.queue.push([self.ticket(int(t.document_id[3:])) for t in absent])

    def waiting(self, number: int) -> list[Ticket]:
        """Some that the ledger has in line: every third, beginning with *number*."""
        work = {t.document_id for some in self.work for t in some}
        some = [self.ticket(n) for n in range(number, 12, 3)]
        return [t for t in some if t.document_id in self.seq.keys() - work - self.done]

    async def cut_move(self, number: int) -> list[Ticket]:
        """What the ledger does of a move; the tickets still name the old lanes."""
        tickets = self.waiting(number)
        self.lane |= {t.document_id: LANES[(number + 1) % 3] for t in tickets}
        return tickets

    async def move(self, number: int) -> None:
        tickets = await self.cut_move(number)
        moved = await self.queue.move(tickets, LANES[(number + 1) % 3])
        assert {t.job_id for t in moved} <= {t.job_id for t in tickets}

    async def front(self, number: int) -> None:
        tickets = self.waiting(number)[::-1]
        turns = list(range(len(tickets))) if number % 2 else ()
        lane = LANES[number % 3]
        front = await self.queue.to_front(lane, tickets, turns)
        assert [t for t in tickets if t in front] == front, "in another order"

    async def drain(self) -> None:
        """Everything that was ever pushed comes to its end, once."""
        for who in (0, 1):
            await self.start(who)
            await self.finish(who)
        await self.audit()
        while True:
            before = len(self.done)
            await self.take(4)
            await self.start(0)
            await self.finish(0)
            if len(self.done) == before:
                break
        assert self.done == set(self.seq)


async def play(queue: AnyQueue, forget: Callable[[], None], todo: list[tuple[str, int]]) -> None:
    model = Model(queue, forget)
    for name, argument in todo:
        step: Callable[[int], Coroutine[Any, Any, None]] = getattr(model, name)
        await step(argument)
    await model.drain()
    await queue.close()


@given(steps)
@settings(max_examples=150, deadline=None)
def test_memory_queue_loses_nothing(todo: list[tuple[str, int]]) -> None:
    queue = MemoryQueue()

    def forget() -> None:
        for job_id in queue._taken:
            queue._taken[job_id] -= audit.STRANDED_S

    asyncio.run(play(queue, forget, todo))


@given(steps)
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_rq_queue_loses_nothing(valkey_server: Server, todo: list[tuple[str, int]]) -> None:
    with redis.Redis.from_url(valkey_server.admin_url) as admin:
        admin.flushall()

        queue = RqQueue(valkey_server.url)

        def forget() -> None:
            queue._audit._pictures.clear()
            for job_id, record in admin.hgetall(keys.TAKEN).items():
                at, _, rest = record.partition(b" ")
                older = f"{float(at) - audit.STRANDED_S} ".encode()
                admin.hset(keys.TAKEN, job_id, older + rest)

        asyncio.run(play(queue, forget, todo))


async def test_the_model_can_fail() -> None:
    """A queue that forgets what was taken is caught."""
    queue = MemoryQueue()
    model = Model(queue, lambda: None)
    await model.push(0)
    queue._lanes.clear()
    queue.present = lambda tickets: _all_there(len(tickets))  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        await model.drain()


async def _all_there(count: int) -> list[bool]:
    return [True] * count
