"""RQ's books put right: ghosts and stale locks go, the living stay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from rq import Queue, Worker

from unjam.core.document import Ticket
from unjam.queue import keys
from unjam.queue.rq_queue import RqQueue


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[RqQueue]:
    made = RqQueue(redis_url)
    yield made
    await made.close()


@pytest.fixture
def raw(redis_url: str) -> redis.Redis:  # type: ignore[type-arg]
    return redis.Redis.from_url(redis_url)


async def test_ghosts_leave_the_books_and_the_living_stay(queue: RqQueue, raw: Any) -> None:
    await queue.register_worker("alive", ["rag_processing"], 1)
    await queue.push([Ticket("d", 1)])
    for name in (keys.WORKERS, keys.lane_workers("rag_processing")):
        raw.sadd(name, keys.worker("ghost"))
    stock = Worker([Queue("rag_processing", connection=raw)], connection=raw)
    stock.register_birth()
    assert await queue.heal_books() == (1, 0)
    assert {w.name for w in Worker.all(connection=raw)} == {"alive", stock.name}
    facts = await queue.lane_facts()
    assert facts["rag_processing"].workers == 2
    assert await queue.heal_books() == (0, 0)


async def test_a_redis_that_lost_its_data_shows_our_worker_again(queue: RqQueue, raw: Any) -> None:
    await queue.register_worker("ours", ["rag_processing"], 1)
    for key in raw.keys("*"):
        raw.delete(key)
    assert Worker.all(connection=raw) == []
    await queue.beat_worker("ours")
    assert [w.name for w in Worker.all(connection=raw)] == ["ours"]
    assert await queue.heal_books() == (0, 0)


async def test_locks_that_nobody_will_release_go(queue: RqQueue, raw: Any) -> None:
    await queue.register_worker("alive", ["rag_processing"], 1)
    await queue.push([Ticket("d", 1), Ticket("e", 1, "rag_low"), Ticket("f", 1, "rag_high")])
    raw.set(keys.cleaning("rag_processing"), 1, ex=899)  # held right now
    raw.set(keys.cleaning("rag_low"), 1, ex=300)  # its holder died ten minutes ago
    raw.set(keys.scheduler("rag_processing"), "alive", ex=61)
    raw.set(keys.scheduler("rag_high"), "dead", ex=61)
    assert await queue.heal_books() == (0, 2)
    left = {key.decode() for key in raw.keys("rq:clean*") + raw.keys("rq:scheduler*")}
    assert left == {keys.cleaning("rag_processing"), keys.scheduler("rag_processing")}


async def test_what_stands_is_counted_also_in_somebodys_hand(queue: RqQueue) -> None:
    await queue.register_worker("w", ["rag_processing"], 1)
    tickets = [Ticket(f"d{n}", 1) for n in range(5)]
    await queue.push(tickets)
    assert await queue.standing() == 5
    taken = await queue.take(["rag_processing"], 2, "w")
    assert await queue.standing() == 5
    await queue.started(taken, "w")
    assert await queue.standing() == 3
