"""Redis has reached maxmemory (noeviction): uploads are taken, and what it holds drains."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as aredis

from tests.fixtures.outage import OwnValkey, Scene
from unjam.core.document import State, Ticket
from unjam.core.errors import DependencyDown
from unjam.queue.rq_queue import RqQueue
from unjam.testing.wait import until, until_ended

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(180)]


async def fill(valkey: OwnValkey) -> None:
    """From now on it has no byte to spare."""
    admin = aredis.Redis.from_url(valkey.plan.admin_url, decode_responses=True)
    used = int((await admin.info("memory"))["used_memory"])
    await admin.config_set("maxmemory", used - 4096)
    with pytest.raises(aredis.ResponseError, match="maxmemory"):
        await admin.set("one", "more")
    await admin.aclose()


async def room(valkey: OwnValkey) -> None:
    admin = aredis.Redis.from_url(valkey.plan.admin_url)
    await admin.config_set("maxmemory", 0)
    await admin.aclose()


def tickets(count: int, seq: int = 1) -> list[Ticket]:
    return [Ticket(f"d{n:08d}", seq, "rag_processing", 100) for n in range(count)]


@pytest.fixture
async def queue(own_valkey: OwnValkey) -> AsyncIterator[RqQueue]:
    made = RqQueue(own_valkey.plan.url)
    yield made
    await made.close()


async def test_what_frees_memory_works_and_what_takes_it_is_refused(
    own_valkey: OwnValkey, queue: RqQueue
) -> None:
    await queue.push(tickets(10))
    await queue.register_worker("w", ["rag_processing"], 1)
    await fill(own_valkey)
    with pytest.raises(DependencyDown) as caught:
        await queue.push(tickets(1, seq=2))
    assert caught.value.code == "queue_full"
    assert "maxmemory" in caught.value.detail
    taken = await queue.take(["rag_processing"], 4, "w")
    assert len(taken) == 4
    await queue.put_back(taken[3:], "w")
    await queue.started(taken[:2], "w")
    await queue.finished(taken[:1], "w")
    await queue.finished(taken[1:2], "w", ok=False)
    await queue.discard(taken[2:3], "w")
    assert (await queue.lengths())["rag_processing"] == 7
    left = await queue.take(["rag_processing"], 100, "w")
    while left:
        assert await queue.strand(["somebody"]) == []
        await queue.started(left, "w")
        await queue.finished(left, "w")
        left = await queue.take(["rag_processing"], 100, "w")
    assert (await queue.lengths())["rag_processing"] == 0
    assert await queue.strand(["w"]) == []


async def test_a_full_redis_drains_into_search(scene: Scene, own_valkey: OwnValkey) -> None:
    ledger = scene.stack.services.ledger
    scene.run(workers=1)
    await scene.one_clean()
    (worker, watchdog) = scene.processes
    assert await worker.stop() == 0
    scene.processes = [watchdog]
    before = await scene.upload(30)

    async def queued() -> int:
        return (await ledger.state_counts())[State.QUEUED]

    await until("30 in their lane", queued, lambda n: n == 30)
    await fill(own_valkey)
    late = await scene.upload(10)
    for shown in await scene.wait_for(late, "queue_full"):
        assert shown["state"] == "received"
    scene.run(workers=2, watchdog=False)
    ended = await until_ended(ledger, before)  # what it holds drains
    assert {d.state for d in ended.values()} == {State.SEARCHABLE}
    began = time.monotonic()
    await room(own_valkey)
    await scene.all_well(began)
