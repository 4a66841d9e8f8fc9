"""RQ's books about the lanes, on a real Valkey, with stock RQ beside."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import redis
from rq import Queue as Stock
from rq import Worker

from unjam.core.document import Ticket
from unjam.queue.facts import SAMPLES
from unjam.queue.rq_queue import RqQueue


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[RqQueue]:
    opened = RqQueue(redis_url)
    yield opened
    await opened.close()


def tickets(n: int, lane: str = "rag_processing") -> list[Ticket]:
    return [Ticket(f"d{i:06d}", 1, lane, 10) for i in range(n)]


async def test_counts_of_every_registry(queue: RqQueue, redis_url: str) -> None:
    await queue.push([*tickets(5), Ticket("x1", 1, "rag_pdf")])
    await queue.park([Ticket("x2", 1)])
    taken = await queue.take(["rag_processing"], 2, "w1")
    await queue.started(taken, "w1")
    facts = await queue.lane_facts(["rag_hwp"])
    assert {"rag_high", "rag_low", "rag_large_docs", "rag_pdf", "rag_hwp"} < set(facts)
    lane = facts["rag_processing"]
    assert (lane.count, lane.started, lane.failed, lane.scheduled) == (3, 2, 0, 0)
    assert (facts["rag_dlq"].count, facts["rag_dlq"].failed) == (1, 1)
    assert facts["rag_pdf"].count == 1 and facts["rag_hwp"].count == 0
    with redis.Redis.from_url(redis_url) as plain:
        assert Stock("rag_processing", connection=plain).count == 3


async def test_workers_are_those_that_serve_the_lane_and_live(
    queue: RqQueue, redis_url: str
) -> None:
    await queue.register_worker("ours", ["rag_high", "rag_processing"], 1)
    await queue.register_worker("silent", ["rag_processing"], 2)
    link = queue._link.redis
    await link.hset("rq:worker:silent", "last_heartbeat", "2020-01-01T00:00:00.000000Z")
    with redis.Redis.from_url(redis_url) as plain:
        stock = Worker([Stock("rag_processing", connection=plain)], connection=plain)
        stock.register_birth()
        # An idle stock worker beats once in minutes.
        plain.hset(stock.key, "last_heartbeat", "2020-01-01T00:00:00.000000Z")
        facts = await queue.lane_facts()
        assert {n: f.workers for n, f in facts.items() if f.workers} == {
            "rag_high": 1,
            "rag_processing": 2,
        }
        stock.register_death()
    await queue.unregister_worker("ours")
    assert not any(f.workers for f in (await queue.lane_facts()).values())


async def test_suspended_lanes_are_paused(queue: RqQueue) -> None:
    assert not (await queue.lane_facts())["rag_processing"].paused
    await queue._link.redis.set("rq:suspended", 1)
    assert (await queue.lane_facts())["rag_processing"].paused


async def test_samples_stand_where_they_say_at_any_length(queue: RqQueue) -> None:
    for n in (0, 1, 31, 33, 5000):
        await queue._link.redis.delete("rq:queue:rag_processing")
        if n:
            ids = [t.job_id for t in tickets(n)]
            await queue._link.redis.rpush("rq:queue:rag_processing", *ids)
        line = (await queue.lane_facts())["rag_processing"].line
        assert len(line) == min(n, SAMPLES)
        for i, document_id in enumerate(line):
            assert int(document_id[1:]) == i * n // len(line)


async def test_flat_at_two_hundred_thousand(queue: RqQueue) -> None:
    some = [t.job_id for t in tickets(200_000)]
    for start in range(0, len(some), 50_000):
        await queue._link.redis.rpush("rq:queue:rag_processing", *some[start : start + 50_000])
    await queue.lane_facts()
    began = time.perf_counter()
    facts = await queue.lane_facts()
    assert time.perf_counter() - began < 0.1
    assert facts["rag_processing"].count == 200_000
