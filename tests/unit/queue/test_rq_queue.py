"""RqQueue beyond the port: RQ's books, a Redis that fails, and what the dead leave behind."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
import redis

from unjam.core.document import Ticket
from unjam.core.errors import DependencyDown
from unjam.queue import audit, keys
from unjam.queue.books import WORKER_TTL_S
from unjam.queue.lanes import DEAD, PROCESSING
from unjam.queue.rq_queue import RqQueue
from unjam.worker.embedded import Server

ME = "host.1.2"


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[RqQueue]:
    made = RqQueue(redis_url)
    yield made
    await made.close()


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url, decode_responses=True)


def some(count: int, seq: int = 1) -> list[Ticket]:
    return [Ticket(f"doc{i}", seq, PROCESSING, i) for i in range(count)]


def age(server: redis.Redis, job_id: str) -> None:
    """As if the ticket had been taken long ago."""
    at, _, rest = server.hget(keys.TAKEN, job_id).partition(" ")
    server.hset(keys.TAKEN, job_id, f"{float(at) - audit.STRANDED_S - 1} {rest}")


async def test_a_job_costs_little_memory(queue: RqQueue, valkey_server: Server) -> None:
    with redis.Redis.from_url(valkey_server.admin_url) as admin:
        before = admin.info("memory")["used_memory"]
        ticket = Ticket("019c2f2e-7a5e-7b1c-8f5d-0123456789ab", 1, PROCESSING, 123)
        tickets = [
            Ticket(f"{ticket.document_id[:-5]}{i:05}", 1, PROCESSING, i) for i in range(5000)
        ]
        await queue.push(tickets)
        each = (admin.info("memory")["used_memory"] - before) / 5000
    assert each < 900, "RQ's own take 1,354 bytes"


async def test_started_and_finished_in_rqs_books(queue: RqQueue, server: redis.Redis) -> None:
    await queue.register_worker(ME, [PROCESSING], 42)
    await queue.push(some(3))
    taken = await queue.take([PROCESSING], 2, ME)
    await queue.started(taken, ME)
    assert server.lrange(keys.intermediate(PROCESSING), 0, -1) == []
    assert set(server.zrange(keys.wip(PROCESSING), 0, -1)) == {f"{t.job_id}:{ME}" for t in taken}
    assert server.hget(keys.job("doc0-1"), "status") == "started"
    assert server.hget(keys.job("doc0-1"), "worker_name") == ME
    assert server.hget(keys.worker(ME), "state") == "busy"
    assert 0 < server.ttl(keys.job("doc0-1")) <= 100, "a dead worker's job must leave the books"
    await queue.finished(taken[:1], ME)
    assert server.hget(keys.worker(ME), "state") == "busy"
    await queue.finished(taken[1:], ME, ok=False)
    assert server.zcard(keys.wip(PROCESSING)) == 0
    assert not server.exists(keys.job("doc0-1"), keys.job("doc1-1"))
    assert server.hmget(keys.worker(ME), "state", "successful_job_count", "failed_job_count") == [
        "idle",
        "1",
        "1",
    ]
    assert server.hlen(keys.TAKEN) == 0


async def test_a_document_moved_to_another_lane_leaves_the_books_it_is_in(
    queue: RqQueue, server: redis.Redis
) -> None:
    await queue.register_worker(ME, [PROCESSING], 42)
    await queue.push(some(1))
    taken = await queue.take([PROCESSING], 1, ME)
    await queue.started(taken, ME)
    await queue.finished([Ticket("doc0", 1, "rag_large_docs")], ME)
    assert server.zcard(keys.wip(PROCESSING)) == 0


async def test_worker_entries_expire_and_are_repaired(
    queue: RqQueue, server: redis.Redis, valkey_server: Server
) -> None:
    await queue.register_worker(ME, ["rag_high", PROCESSING], 42)
    assert 0 < server.ttl(keys.worker(ME)) <= WORKER_TTL_S
    with redis.Redis.from_url(valkey_server.admin_url) as admin:
        admin.flushall()
    await queue.beat_worker(ME)
    assert server.smembers(keys.WORKERS) == {keys.worker(ME)}
    assert server.smembers(keys.lane_workers("rag_high")) == {keys.worker(ME)}
    assert server.hget(keys.worker(ME), "queues") == "rag_high,rag_processing"
    await queue.unregister_worker(ME)
    assert not server.exists(keys.worker(ME), keys.WORKERS, keys.lane_workers(PROCESSING))


async def test_counting_for_an_unlisted_worker_makes_no_ghost(
    queue: RqQueue, server: redis.Redis
) -> None:
    await queue.push(some(1))
    taken = await queue.take([PROCESSING], 1, ME)
    await queue.started(taken, ME)
    await queue.finished(taken, ME)
    assert not server.exists(keys.worker(ME))


async def test_what_a_dead_worker_took_counts_as_absent(
    queue: RqQueue, server: redis.Redis
) -> None:
    """Killed between take and started: the audit sees it, the next sequence cleans up."""
    await queue.push(some(1))
    taken = await queue.take([PROCESSING], 1, ME)
    assert await queue.present(taken) == [True]
    age(server, taken[0].job_id)
    assert await queue.present(taken) == [False]
    await queue.push(some(1, seq=2))
    assert server.lrange(keys.intermediate(PROCESSING), 0, -1) == []
    assert not server.exists(keys.job("doc0-1"))
    assert [t.enqueue_seq for t in await queue.take([PROCESSING], 5, ME)] == [2]


async def test_what_a_stock_worker_popped_and_lost_counts_as_absent(
    queue: RqQueue, server: redis.Redis
) -> None:
    """Two queues per stock worker: BLPOP, then a kill. The hash stays, the id is nowhere."""
    await queue.push(some(2))
    assert await queue.present(some(2)) == [True, True]
    server.lpop(keys.lane(PROCESSING))
    fresh = RqQueue(str(queue._link.url))
    assert await fresh.present(some(2)) == [False, True]
    await fresh.close()


async def test_what_a_stock_worker_moved_and_left(queue: RqQueue, server: redis.Redis) -> None:
    await queue.push(some(1))
    server.lmove(keys.lane(PROCESSING), keys.intermediate(PROCESSING), "LEFT", "RIGHT")
    assert await queue.present(some(1)) == [True]
    assert server.hexists(keys.TAKEN, "doc0-1"), "the first look begins the time"
    age(server, "doc0-1")
    assert await queue.present(some(1)) == [False]


async def test_lost_data_is_seen_behind_a_fresh_picture(
    queue: RqQueue, valkey_server: Server
) -> None:
    await queue.push(some(5))
    assert all(await queue.present(some(5)))
    with redis.Redis.from_url(valkey_server.admin_url) as admin:
        admin.flushall()
    assert not any(await queue.present(some(5)))


async def test_a_long_lane_is_read_in_pages(
    queue: RqQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PAGE", 7)
    tickets = some(50)
    await queue.push(tickets)
    assert all(await queue.present(tickets))
    assert await queue.present([*tickets[:1], Ticket("x", 1, PROCESSING)]) == [True, False]


async def test_rung_twice_is_taken_once(queue: RqQueue, server: redis.Redis) -> None:
    await queue.push(some(2))
    server.rpush(keys.lane(PROCESSING), "doc0-1", "doc1-1")
    assert len(await queue.take([PROCESSING], 10, ME)) == 2
    assert server.llen(keys.intermediate(PROCESSING)) == 2
    assert server.llen(keys.lane(PROCESSING)) == 0


async def test_a_foreign_job_is_set_aside(queue: RqQueue, server: redis.Redis) -> None:
    server.rpush(keys.lane(PROCESSING), "someone-elses")
    await queue.push(some(1))
    assert [t.document_id for t in await queue.take([PROCESSING], 10, ME)] == ["doc0"]
    assert server.zrange(keys.failed(PROCESSING), 0, -1) == ["someone-elses"]
    assert server.lrange(keys.intermediate(PROCESSING), 0, -1) == ["doc0-1"]


async def test_rq_suspend_pauses_us(queue: RqQueue, server: redis.Redis) -> None:
    await queue.push(some(1))
    server.set(keys.SUSPENDED, 1)
    assert await queue.take([PROCESSING], 1, ME) == []
    began = time.monotonic()
    await queue.wait([PROCESSING], 0.12)
    assert time.monotonic() - began >= 0.1, "a busy loop while suspended"
    server.delete(keys.SUSPENDED)
    assert len(await queue.take([PROCESSING], 1, ME)) == 1


async def test_a_push_by_a_stock_tool_wakes_us(queue: RqQueue, server: redis.Redis) -> None:
    bell = asyncio.ensure_future(queue.wait([PROCESSING], 10))
    await asyncio.wait([bell], timeout=0.1)
    began = time.monotonic()
    server.rpush(keys.lane(PROCESSING), "doc0-1")
    await asyncio.wait_for(bell, 5)
    assert time.monotonic() - began < 0.3


async def test_parked_as_the_runbook_looks_for_it(queue: RqQueue, server: redis.Redis) -> None:
    await queue.park([Ticket("doc", 4, "rag_low", 77)])
    assert server.lrange(keys.lane(DEAD), 0, -1) == ["doc-4"]
    assert server.zscore(keys.failed(DEAD), "doc-4") == -1
    job = server.hgetall(keys.job("doc-4"))
    assert (job["origin"], job["failure_ttl"], job["status"]) == (PROCESSING, "-1", "failed")
    assert '"file_size":77' in job["data"]
    assert server.ttl(keys.job("doc-4")) == -1
    await queue.unpark(["doc"])
    assert not server.exists(keys.lane(DEAD), keys.failed(DEAD), keys.PARKED, keys.job("doc-4"))


async def test_parked_again_under_another_sequence(queue: RqQueue, server: redis.Redis) -> None:
    await queue.park([Ticket("doc", 4, "", 1)])
    await queue.park([Ticket("doc", 6, "", 1)])
    assert server.lrange(keys.lane(DEAD), 0, -1) == ["doc-6"]
    assert server.zrange(keys.failed(DEAD), 0, -1) == ["doc-6"]
    assert not server.exists(keys.job("doc-4"))


async def test_pushing_the_next_sequence_spares_a_parked_job(
    queue: RqQueue, server: redis.Redis
) -> None:
    await queue.park([Ticket("doc0", 1, PROCESSING, 1)])
    await queue.push(some(1, seq=2))
    assert server.exists(keys.job("doc0-1"))


async def test_nobody_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        queue = RqQueue(f"redis://127.0.0.1:{closed.getsockname()[1]}/5")
        for call in (
            queue.ping(),
            queue.push(some(1)),
            queue.take([PROCESSING], 1, ME),
            queue.lengths(),
            queue.present(some(1)),
            queue.wait([PROCESSING], 1),
            queue.park(some(1)),
            queue.epoch(),
            queue.register_worker(ME, [PROCESSING], 1),
        ):
            with pytest.raises(DependencyDown) as error:
                await call
            assert error.value.code == "queue_down"
            assert "is away" in error.value.detail
        await queue.close()


async def test_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unjam.queue.link.ANSWER_TIMEOUT_S", 0.2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        queue = RqQueue(f"redis://127.0.0.1:{deaf.getsockname()[1]}/5")
        with pytest.raises(DependencyDown, match="in time") as error:
            await queue.ping()
        assert error.value.code == "queue_down"
        await queue.close()


async def test_one_that_refuses_writes(queue: RqQueue, valkey_server: Server) -> None:
    with redis.Redis.from_url(valkey_server.admin_url) as admin:
        admin.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(DependencyDown, match="refuses") as error:
                await queue.push(some(2000))
            assert error.value.code == "queue_full"
        finally:
            admin.config_set("maxmemory", "0")
        await queue.push(some(3))


async def test_a_restarted_server_is_met_at_once(queue: RqQueue, valkey_server: Server) -> None:
    """Its old connections are dead, its scripts are gone: the next push works all the same."""
    await queue.push(some(1))
    with redis.Redis.from_url(valkey_server.admin_url) as admin:
        admin.script_flush()
        admin.client_kill_filter(_type="normal", skipme=True)
    await queue.push([Ticket("other", 1, PROCESSING)])
    assert (await queue.lengths())[PROCESSING] == 2


async def crew(queue: RqQueue, *names: str) -> None:
    for name in names:
        await queue.register_worker(name, [PROCESSING], 42)


async def test_a_short_backlog_is_shared(queue: RqQueue) -> None:
    await crew(queue, "a", "b")
    await queue.push(some(28))
    first = await queue.take([PROCESSING], 32, "a")
    assert len(first) == 14
    await queue.started(first, "a")
    # The one with its share asks again, the other one comes a moment later: it gets its part.
    greedy = asyncio.ensure_future(queue.take([PROCESSING], 18, "a"))
    await asyncio.wait([greedy], timeout=0.03)
    assert len(await queue.take([PROCESSING], 32, "b")) == 14
    assert await greedy == []


async def test_what_nobody_else_wants_is_taken_soon(queue: RqQueue) -> None:
    """The other worker is busy or stuck: its part must not wait for it."""
    await crew(queue, "a", "b")
    await queue.push(some(28))
    began, held = time.monotonic(), 0
    while held < 28:
        taken = await queue.take([PROCESSING], 32, "a")
        await queue.started(taken, "a")
        held += len(taken)
    assert 0.1 < time.monotonic() - began < 2.0


async def test_a_long_backlog_fills_everybody(queue: RqQueue) -> None:
    await crew(queue, "a", "b")
    await queue.push(some(200))
    for name in ("a", "b", "a"):
        taken = await queue.take([PROCESSING], 32, name)
        await queue.started(taken, name)
        assert len(taken) == 32


async def test_a_few_documents_stay_together(queue: RqQueue) -> None:
    """They share embedding requests."""
    await crew(queue, "a", "b", "c")
    await queue.push(some(4))
    assert len(await queue.take([PROCESSING], 32, "a")) == 4


async def test_the_dead_have_no_share(queue: RqQueue, server: redis.Redis) -> None:
    await crew(queue, "a", "ghost", "dead")
    server.delete(keys.worker("ghost"))  # its entry expired; its membership stays
    await queue.strand(["dead"])
    assert not server.sismember(keys.WORKERS, keys.worker("dead"))
    assert not server.sismember(keys.lane_workers(PROCESSING), keys.worker("dead"))
    await queue.push(some(28))
    assert len(await queue.take([PROCESSING], 32, "a")) == 28


async def test_a_suspended_lane_makes_nobody_wait_for_the_others(
    queue: RqQueue, server: redis.Redis
) -> None:
    await crew(queue, "a", "b")
    await queue.push(some(20))
    await queue.started(await queue.take([PROCESSING], 32, "a"), "a")
    server.set(keys.SUSPENDED, 1)
    assert await queue.take([PROCESSING], 32, "a") == []


async def test_a_stock_job_that_still_imports_is_not_rung_again(
    queue: RqQueue, server: redis.Redis
) -> None:
    """It stands in RQ's started registry only; the ledger knows nothing of it yet."""
    await queue.push(some(1))
    server.lpop(keys.lane(PROCESSING))
    server.zadd(keys.wip(PROCESSING), {"doc0-1:execution": time.time() + 90})
    assert await queue.present(some(1)) == [True]
    age(server, "doc0-1")
    assert await queue.present(some(1)) == [False]
