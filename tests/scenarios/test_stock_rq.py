"""RQ's own tools on our lanes: workers of both classes, info, suspend, resume, empty, requeue."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from unjam.core.document import Ticket
from unjam.queue import keys
from unjam.queue.lanes import DEAD, PROCESSING
from unjam.queue.rq_queue import RqQueue

PROBE = """
import json
from pathlib import Path
from unjam.queue.jobs import current_ticket

def process(payload):
    ticket, url = current_ticket()
    fields = json.loads(payload)
    database = int(url.rpartition("/")[2])
    line = [ticket.job_id, ticket.lane, ticket.size_bytes, fields["doc_id"], database]
    with (Path(__file__).parent / "seen").open("a") as file:
        print(json.dumps(line), file=file)
    if fields["doc_id"] == "bad":
        raise ValueError("no")
    return "searchable"
"""


@pytest.fixture
async def queue(redis_url: str, tmp_path: Path) -> AsyncIterator[RqQueue]:
    (tmp_path / "job_probe.py").write_text(PROBE)
    made = RqQueue(redis_url, function="job_probe.process")
    yield made
    await made.close()


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url, decode_responses=True)


async def rq(tmp_path: Path, *args: str) -> str:
    """Run ``rq …`` as an operator would; its output."""
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "LANG": "C.UTF-8", "COLUMNS": "200"}
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "rq"),
        *args,
        env=env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.parametrize("worker", [(), ("--worker-class", "rq.SimpleWorker")], ids=str)
async def test_stock_workers_run_our_jobs(
    queue: RqQueue, redis_url: str, tmp_path: Path, server: redis.Redis, worker: tuple[str, ...]
) -> None:
    await queue.push([Ticket("a", 3, PROCESSING, 17), Ticket("b", 1, PROCESSING, 5)])
    await rq(tmp_path, "worker", PROCESSING, "--burst", "--url", redis_url, *worker)
    assert (tmp_path / "seen").read_text().splitlines() == [
        '["a-3", "rag_processing", 17, "a", 5]',
        '["b-1", "rag_processing", 5, "b", 5]',
    ]
    assert server.llen(keys.lane(PROCESSING)) == 0
    assert server.llen(keys.intermediate(PROCESSING)) == 0
    assert server.zcard(keys.failed(PROCESSING)) == 0


async def test_a_job_that_raises_does_not_stop_the_next(
    queue: RqQueue, redis_url: str, tmp_path: Path, server: redis.Redis
) -> None:
    await queue.push([Ticket("bad", 1, PROCESSING, 1), Ticket("good", 1, PROCESSING, 1)])
    await rq(tmp_path, "worker", PROCESSING, "--burst", "--url", redis_url)
    assert len((tmp_path / "seen").read_text().splitlines()) == 2
    assert server.zrange(keys.failed(PROCESSING), 0, -1) == ["bad-1"]
    await queue.push([Ticket("bad", 2, PROCESSING, 1)])
    assert server.zcard(keys.failed(PROCESSING)) == 0, "the next sequence cleans up"


async def test_a_stock_worker_on_the_dead_letters_does_nothing_to_them(
    queue: RqQueue, redis_url: str, tmp_path: Path
) -> None:
    """It takes the ids; whether anything happens to the document is the job function's matter."""
    await queue.park([Ticket("dead", 1, PROCESSING, 1)])
    await rq(tmp_path, "worker", DEAD, "--burst", "--url", redis_url)
    await queue.repark([Ticket("dead", 1, PROCESSING, 1)])
    assert (await queue.lengths())[DEAD] == 1


async def test_rq_info_shows_our_worker(queue: RqQueue, redis_url: str, tmp_path: Path) -> None:
    await queue.register_worker("host-1.2.3", ["rag_high", PROCESSING], 4242)
    await queue.push([Ticket(f"d{i}", 1, PROCESSING, 1) for i in range(5)])
    idle = await rq(tmp_path, "info", "--raw", "--url", redis_url)
    assert "queue rag_processing 5, 0 executing, 0 finished, 0 failed" in idle
    assert "4242) idle rag_high, rag_processing. jobs: 0 finished, 0 failed" in idle
    await queue.started(await queue.take([PROCESSING], 2, "host-1.2.3"), "host-1.2.3")
    busy = await rq(tmp_path, "info", "--raw", "--url", redis_url)
    assert "queue rag_processing 3, 2 executing, 0 finished, 0 failed" in busy
    assert "worker host-1.2.3 (" in busy
    assert "4242) busy rag_high, rag_processing." in busy
    by_queue = await rq(tmp_path, "info", "-R", "--url", redis_url)
    assert "host-1.2.3 (busy)" in by_queue


async def test_rq_info_does_not_fail_the_jobs_of_a_dead_worker(
    queue: RqQueue, redis_url: str, tmp_path: Path, server: redis.Redis
) -> None:
    """Our started jobs expire out of the books; RQ must not call them failed on the way."""
    await queue.push([Ticket("d", 1, PROCESSING, 1)])
    await queue.started(await queue.take([PROCESSING], 1, "dead-one"), "dead-one")
    server.delete(keys.job("d-1"))  # its 100 s are over, and so are the entry's 120 s
    server.zadd(keys.wip(PROCESSING), {"d-1:dead-one": 1})
    output = await rq(tmp_path, "info", "--raw", "--url", redis_url)
    assert "queue rag_processing 0, 0 executing, 0 finished, 0 failed" in output
    assert server.zcard(keys.wip(PROCESSING)) == 0


async def test_suspend_resume_empty(queue: RqQueue, redis_url: str, tmp_path: Path) -> None:
    tickets = [Ticket("d", 1, PROCESSING, 1)]
    await queue.push(tickets)
    await rq(tmp_path, "suspend", "--url", redis_url)
    assert await queue.take([PROCESSING], 1, "w") == []
    await rq(tmp_path, "resume", "--url", redis_url)
    assert len(await queue.take([PROCESSING], 1, "w")) == 1
    await queue.put_back(tickets, "w")
    await rq(tmp_path, "empty", "--url", redis_url, PROCESSING)
    assert await queue.present(tickets) == [False]
    assert (await queue.lengths())[PROCESSING] == 0


async def test_requeue_of_dead_letters(
    queue: RqQueue, redis_url: str, tmp_path: Path, server: redis.Redis
) -> None:
    await queue.park([Ticket("x", 3, "rag_low", 8), Ticket("y", 1, PROCESSING, 9)])
    assert "Nothing to do" in await rq(tmp_path, "requeue", "--url", redis_url, "--queue", DEAD)
    output = await rq(tmp_path, "requeue", "--url", redis_url, "--queue", DEAD, "--all")
    assert "Requeueing 2 jobs" in output
    assert set(server.lrange(keys.lane(PROCESSING), 0, -1)) == {"x-3", "y-1"}
    assert server.llen(keys.lane(DEAD)) == 2, "still listed: that is how a requeue is told"
    assert server.zcard(keys.failed(DEAD)) == 0
    taken = await queue.take([PROCESSING], 5, "w")
    assert {t.job_id for t in taken} == {"x-3", "y-1"}
