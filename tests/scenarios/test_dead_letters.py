"""Dead letters and RQ's own tools: requeue sends back, empty is healed, nothing else revives."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis

from unjam.core.dead_letters import DeadFilter
from unjam.core.document import State, Ticket
from unjam.core.events import EventKind
from unjam.core.outcome import Dead
from unjam.core.ports import Parked, WorkerRef
from unjam.queue import keys
from unjam.queue.lanes import DEAD, PROCESSING
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended

ME = WorkerRef("tester", "host", 1, "0.1.0")


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url, decode_responses=True)


async def rq(stack: Stack, *args: str) -> str:
    """Run ``rq …`` as the runbook has it; its output."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "UNJAM_", "OPENAI_"))}
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "rq"),
        *(*args, "--url", stack.redis_url),
        env={**kept, "COLUMNS": "200"},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def dead(stack: Stack, count: int) -> list[str]:
    """That many documents, accepted and parked; no doorbell of theirs is left."""
    ledger, queue = stack.services.ledger, stack.services.queue
    ids = [await stack.add(f"Letter number {n}.", f"{n}.txt") for n in range(count)]
    await stack.reconcile()
    taken = await queue.take([PROCESSING], 100, ME.id)
    assert {t.document_id for t in taken} == set(ids)
    for answer in await ledger.claim(taken, ME, 1000):
        assert answer.claim is not None
        settled = await ledger.settle(answer.claim, Dead("corrupt", "as a test has it"))
        assert settled.ticket is not None
        await queue.park([settled.ticket])
    await queue.finished(taken, ME.id, ok=False)
    await stack.reconcile()
    assert await queue.parked() == Parked(count, count, count)
    return ids


async def states(stack: Stack, ids: Sequence[str]) -> list[State]:
    found = [await stack.services.ledger.get(i) for i in ids]
    return [d.state for d in found if d is not None]


async def test_requeue_all_sends_exactly_the_dead_back_to_work(
    stack: Stack, server: redis.Redis
) -> None:
    ids = await dead(stack, 3)
    assert "Nothing to do" in await rq(stack, "requeue", "--queue", DEAD)
    await stack.reconcile()
    assert await states(stack, ids) == [State.DEAD] * 3
    assert "Requeueing 3 jobs" in await rq(stack, "requeue", "--all", "--queue", DEAD)
    await stack.reconcile()
    assert await states(stack, ids) == [State.QUEUED] * 3
    assert await stack.services.queue.parked() == Parked(0, 0, 0)
    for document_id in ids:
        document = await stack.services.ledger.get(document_id)
        assert document is not None
        assert document.generation == 2
        kinds = [e.kind for e in await stack.services.ledger.events(document_id)]
        assert kinds.count(EventKind.RETRIED) == 1
    stack.worker()
    await until_ended(stack.services.ledger, ids)
    assert await states(stack, ids) == [State.SEARCHABLE] * 3
    await until(
        "the requeued jobs of old are gone",
        lambda: asyncio.to_thread(lambda: server.llen(keys.lane(PROCESSING))),
        lambda n: n == 0,
    )
    left = {key for key in server.scan_iter("rq:job:*") if any(i in key for i in ids)}
    assert left == set()
    equation = await stack.services.ledger.equation()
    assert (equation.accepted, equation.searchable, equation.missing) == (3, 3, 0)


async def test_requeue_by_id_sends_only_that_one(stack: Stack, server: redis.Redis) -> None:
    ids = await dead(stack, 3)
    job_id = server.lindex(keys.lane(DEAD), 1)
    assert isinstance(job_id, str)
    await rq(stack, "requeue", "--queue", DEAD, job_id)
    await stack.reconcile()
    chosen = Ticket.parse(job_id)
    assert chosen is not None
    assert [i for i, s in zip(ids, await states(stack, ids), strict=True) if s != State.DEAD] == [
        chosen.document_id
    ]
    assert await stack.services.queue.parked() == Parked(2, 2, 2)


async def test_a_stray_doorbell_never_revives_the_dead(stack: Stack, server: redis.Redis) -> None:
    ids = await dead(stack, 2)
    for job_id in server.lrange(keys.lane(DEAD), 0, -1):  # type: ignore[union-attr]
        server.rpush(keys.lane(PROCESSING), job_id)
    worker = stack.worker()
    await rq(stack, "worker", PROCESSING, "--burst")
    await until(
        "the doorbells are answered",
        lambda: asyncio.to_thread(lambda: server.llen(keys.lane(PROCESSING))),
        lambda n: n == 0,
    )
    for _ in range(3):
        await stack.reconcile()
    assert await worker.stop() == 0
    assert await states(stack, ids) == [State.DEAD] * 2
    assert await stack.services.queue.parked() == Parked(2, 2, 2)


async def test_empty_is_healed(stack: Stack, server: redis.Redis) -> None:
    ids = await dead(stack, 4)
    before = server.lrange(keys.lane(DEAD), 0, -1)
    assert "4 jobs removed" in await rq(stack, "empty", DEAD)
    assert server.llen(keys.lane(DEAD)) == 0
    await stack.reconcile()
    assert set(server.lrange(keys.lane(DEAD), 0, -1)) == set(before)  # type: ignore[arg-type]
    assert await states(stack, ids) == [State.DEAD] * 4
    assert await stack.services.queue.parked() == Parked(4, 4, 4)
    assert "Requeueing 4 jobs" in await rq(stack, "requeue", "--all", "--queue", DEAD)
    await stack.reconcile()
    assert await states(stack, ids) == [State.QUEUED] * 4


async def test_a_worker_pointed_at_the_dead_does_nothing(stack: Stack, server: redis.Redis) -> None:
    ids = await dead(stack, 2)
    await rq(stack, "worker", DEAD, "--burst")
    assert server.llen(keys.lane(DEAD)) == 0, "it takes them out of the list, and that is all"
    await stack.reconcile()
    assert await states(stack, ids) == [State.DEAD] * 2
    assert await stack.services.queue.parked() == Parked(2, 2, 2)
    for job_id in server.zrange(keys.failed(DEAD), 0, -1):  # type: ignore[union-attr]
        assert server.ttl(keys.job(job_id)) == -1, "nor does it expire"
        assert server.hget(keys.job(job_id), "origin") == PROCESSING
        assert server.hget(keys.job(job_id), "failure_ttl") == "-1"


async def test_a_redis_that_lost_everything_revives_nobody(
    stack: Stack, server: redis.Redis
) -> None:
    ids = await dead(stack, 2)
    for key in server.scan_iter("*"):
        server.delete(key)
    await stack.reconcile()
    assert await states(stack, ids) == [State.DEAD] * 2
    assert await stack.services.queue.parked() == Parked(2, 2, 2)


async def test_healing_spares_what_was_requeued_meanwhile(
    stack: Stack, server: redis.Redis
) -> None:
    """The reconciler looked, somebody requeued, then it heals: the wish must survive."""
    ids = await dead(stack, 3)
    jobs: list[str] = server.lrange(keys.lane(DEAD), 0, -1)  # type: ignore[assignment]
    server.zrem(keys.failed(DEAD), jobs[0])  # as ``rq requeue`` does
    server.lrem(keys.lane(DEAD), 0, jobs[2])  # and something else is amiss
    queue = stack.services.queue
    tickets = [t for t in map(Ticket.parse, jobs) if t is not None]
    await queue.repark(tickets)
    await queue.park(tickets)
    assert [t.job_id for t in await queue.requeued()] == [jobs[0]]
    await stack.reconcile()
    first = tickets[0].document_id
    after = dict(zip(ids, await states(stack, ids), strict=True))
    assert after.pop(first) == State.QUEUED
    assert set(after.values()) == {State.DEAD}
    assert await queue.parked() == Parked(2, 2, 2)


async def test_retried_letters_leave_the_list_though_nobody_told_redis(stack: Stack) -> None:
    ids = await dead(stack, 3)
    await stack.services.ledger.retry(ids[0])
    await stack.services.ledger.drop_many(DeadFilter(ids=[ids[1]]))
    await stack.reconcile()
    assert await stack.services.queue.parked() == Parked(1, 1, 1)


async def test_as_many_but_others_is_noticed_too(stack: Stack, server: redis.Redis) -> None:
    """One was retried and another died while Redis was away: the numbers agree, the ids do not."""
    ids = await dead(stack, 2)
    jobs: list[str] = server.lrange(keys.lane(DEAD), 0, -1)  # type: ignore[assignment]
    queue = stack.services.queue
    ours = Ticket.parse(jobs[0])
    assert ours is not None
    await queue.unpark([ours.document_id])
    await queue.park([Ticket("somebody-else", 3)])
    assert await queue.parked() == Parked(2, 2, 2)
    for _ in range(2):
        await stack.reconcile()
    assert set(server.lrange(keys.lane(DEAD), 0, -1)) == set(jobs)  # type: ignore[arg-type]
    assert await states(stack, ids) == [State.DEAD] * 2


async def test_a_file_that_crashes_its_parser_is_parked_with_evidence(
    stack: Stack, server: redis.Redis
) -> None:
    stack.worker()
    document_id = await stack.add(b"%PDF-1.7 cut off", "broken.pdf")
    await until_ended(stack.services.ledger, [document_id])
    letter = await stack.services.ledger.dead_letter(document_id)
    assert letter.document.state is State.DEAD
    assert letter.evidence["max_rss_bytes"] > 1_000_000
    assert letter.evidence["memory_cap_bytes"] > letter.evidence["max_rss_bytes"]
    assert letter.evidence["cpu_s"] >= 0
    assert letter.evidence["step"] == "parsing"
    await until(
        "it stands in rag_dlq",
        lambda: asyncio.to_thread(lambda: server.llen(keys.lane(DEAD))),
        lambda n: n == 1,
    )
