"""What stock RQ loses, and the same thing with the ledger behind it, side by side on real Valkey.

Each test first shows plain RQ (its own worker, queue and job) failing, so that it would tell when
RQ learns better; then the same situation on a document, which must be claimable, or done, at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
from rq import Queue, Worker
from rq.job import Job
from rq.registry import FailedJobRegistry, StartedJobRegistry

from unjam.core.document import ClaimKind, State, Ticket
from unjam.core.outcome import Dead, Done
from unjam.core.ports import WorkerRef
from unjam.queue import keys
from unjam.queue.lanes import DEFAULT_LANES, HIGH, PROCESSING
from unjam.queue.rq_queue import RqQueue
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Process, Stack
from unjam.testing.wait import until, until_ended
from unjam.worker.embedded import free_port, plan_valkey

pytestmark = pytest.mark.slow

ME = WorkerRef("tester", "host", 1, "0.1.0")
OURS = ("RAG_", "OPENAI_", "SLACK_", "UNJAM_", "ADMIN_")

JOBS = """
import time
from pathlib import Path

def done(payload):
    with (Path(__file__).parent / "done").open("a") as file:
        print(payload, file=file)

def slow(payload):
    time.sleep(2.0)
    done(payload)

def endless(payload):
    done("began")
    time.sleep(600)

def bad(payload):
    raise ValueError("no")
"""

KILLED_AT = """
import os, signal, sys
import {module} as module

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

{patch}
{run}
"""

STOCK_WORKER = "from rq.cli import main; sys.argv = ['rq', *sys.argv[1:]]; main()"


class PlainValkey:
    """A server as many have it: no persistence, no rules of ours."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self.port = free_port(0)
        self.url = f"redis://127.0.0.1:{self.port}/5"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [self._program, "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                self.client().ping()
                return
            except redis.RedisError:
                time.sleep(0.01)
        raise TimeoutError("valkey is not up")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True)

    def raw(self) -> redis.Redis:
        """As RQ wants it."""
        return redis.Redis.from_url(self.url)

    def crowd_out(self, room_bytes: int) -> None:
        """maxmemory a little above what is used, ``allkeys-lru``, and a neighbour who writes."""
        client = self.client()
        used: int = client.info("memory")["used_memory"]  # type: ignore[index,assignment]
        client.config_set("maxmemory", used + room_bytes)
        client.config_set("maxmemory-policy", "allkeys-lru")
        before: int = client.info("stats")["evicted_keys"]  # type: ignore[index,assignment]
        for n in range(4096):
            client.set(f"neighbour:{n}", "x" * 1024)
        assert client.info("stats")["evicted_keys"] > before  # type: ignore[index,operator]

    def give_room(self) -> None:
        self.client().config_set("maxmemory", 0)
        self.client().config_set("maxmemory-policy", "noeviction")


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[PlainValkey]:
    plan = await plan_valkey(tmp_path / "plan", 0)
    server = PlainValkey(plan.command.program, tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def house(
    plain: PlainValkey, tmp_path: Path, chroma_url: str, fake_openai: FakeOpenAI
) -> AsyncIterator[Stack]:
    """Our layer on that same server."""
    extra = {"RAG_EMBEDDING_MODEL": f"fake-{tmp_path.name}"[:100]}
    async with Stack(
        tmp_path / "data", plain.url, chroma_url, fake_openai.url, extra=extra
    ) as stack:
        yield stack


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path) -> Iterator[Path]:
    """The stock jobs' module; what was done stands in ``done`` beside it."""
    (tmp_path / "naive_jobs.py").write_text(JOBS)
    yield tmp_path


def done(folder: Path) -> list[str]:
    file = folder / "done"
    return file.read_text().splitlines() if file.exists() else []


def python(folder: Path, code: str, *args: str, env: dict[str, str] | None = None) -> int:
    """Run *code*; its exit status."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    finished = subprocess.run(
        [sys.executable, "-c", code, *args],
        env={**clean, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), **(env or {})},
        cwd=folder,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return finished.returncode


def rq_worker(folder: Path, url: str, *args: str) -> Process:
    """A plain ``rq worker`` in the background."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    log = folder / "rq.log"
    with log.open("ab") as out:
        popen = subprocess.Popen(
            [str(Path(sys.executable).parent / "rq"), "worker", "--url", url, *args],
            env={**clean, "PYTHONPATH": str(folder)},
            cwd=folder,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    return Process(popen, log)


def kill_all_of(process: Process) -> None:
    """The worker and its work horse, which lives in a process group of its own."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                session = (entry / "stat").read_text().rpartition(")")[2].split()[3]
            except OSError:
                continue
            if session == str(process.pid) or entry.name == str(process.pid):
                os.kill(int(entry.name), signal.SIGKILL)
    process.popen.wait()


async def queued(stack: Stack, count: int) -> list[str]:
    """That many documents, each in its lane."""
    ids = [await stack.add(f"Note number {n}.", f"{n}.txt") for n in range(count)]
    await stack.reconcile()
    assert (await stack.services.ledger.equation()).queued == count
    return ids


async def claimable(stack: Stack, wanted: list[str]) -> None:
    """After one round of the reconciler each document is handed out once, and claimed."""
    await stack.reconcile()
    queue, ledger = stack.services.queue, stack.services.ledger
    tickets: list[Ticket] = []
    while some := await queue.take(list(DEFAULT_LANES), 100, ME.id):
        tickets += some
    answers = await ledger.claim(tickets, ME, 1000)
    claims = [a.claim for a in answers if a.kind is ClaimKind.CLAIMED and a.claim is not None]
    assert sorted(c.document_id for c in claims) == sorted(wanted)
    for claim in claims:
        assert (await ledger.settle(claim, Done(1))).moved
    equation = await ledger.equation()
    assert (equation.accepted, equation.searchable, equation.missing) == (
        len(wanted),
        len(wanted),
        0,
    )


# -- jobs that vanish -----------------------------------------------------------------------
async def test_killed_between_pop_and_start_with_two_queues(
    plain: PlainValkey, house: Stack, jobs: Path
) -> None:
    """rq/rq#1716: with two queues it pops first and looks afterwards."""
    dying = KILLED_AT.format(
        module="rq.job", patch="module.Job.fetch = classmethod(die)", run=STOCK_WORKER
    )
    two = ("worker", "high", "low", "--url", plain.url, "--burst")
    naive = Queue("low", connection=plain.raw())
    naive.enqueue("naive_jobs.done", "one", job_id="one")
    assert await off(python, jobs, dying, *two) == -signal.SIGKILL
    assert await off(python, jobs, STOCK_WORKER_ALONE, *two) == 0
    assert done(jobs) == [], "the job is in no queue any more, and nobody knows"
    assert naive.job_ids == []
    assert StartedJobRegistry(queue=naive).get_job_ids(cleanup=False) == []

    ids = [await house.add("One note.")]

    async def in_line() -> int:
        return plain.client().llen(keys.lane(PROCESSING))  # type: ignore[return-value]

    await until("it is in line", in_line)
    ours = ("worker", HIGH, PROCESSING, "--url", plain.url, "--burst")
    assert await off(python, jobs, dying, *ours) == -signal.SIGKILL
    assert plain.client().llen(keys.lane(PROCESSING)) == 0
    await claimable(house, ids)


async def test_a_restart_without_persistence(plain: PlainValkey, house: Stack) -> None:
    naive = Queue("naive", connection=plain.raw())
    for n in range(50):
        naive.enqueue("naive_jobs.done", n)
    ids = await queued(house, 50)
    assert len(naive) == 50
    plain.kill()
    plain.start()
    assert len(Queue("naive", connection=plain.raw())) == 0, "all fifty are gone"
    await claimable(house, ids)


async def test_eviction_under_allkeys_lru(plain: PlainValkey, house: Stack, jobs: Path) -> None:
    naive = Queue("naive", connection=plain.raw())
    naive.enqueue_many([Queue.prepare_data("naive_jobs.done", (n,)) for n in range(200)])
    ids = await queued(house, 50)
    plain.crowd_out(100_000)
    plain.give_room()
    simple = ("worker", "naive", "--url", plain.url, "--burst", "--worker-class", "rq.SimpleWorker")
    assert await off(python, jobs, STOCK_WORKER_ALONE, *simple) == 0, "all is well, it says"
    assert len(done(jobs)) < 200
    assert FailedJobRegistry(queue=naive).count == 0, "nothing failed, it says"
    await claimable(house, ids)


async def test_an_enqueue_while_redis_is_away(plain: PlainValkey, house: Stack) -> None:
    plain.kill()
    with pytest.raises(redis.ConnectionError):
        Queue("naive", connection=plain.raw()).enqueue("naive_jobs.done", 1)
    ids = [await house.add("Note while Redis is away.")]
    plain.start()
    assert Queue("naive", connection=plain.raw()).job_ids == [], "whoever enqueued must know it"
    await claimable(house, ids)


async def test_an_id_used_again_after_its_end_expires_in_the_line(
    plain: PlainValkey, jobs: Path
) -> None:
    connection = plain.raw()
    naive = Queue("naive", connection=connection)
    burst = ("worker", "naive", "--url", plain.url, "--burst")
    naive.enqueue("naive_jobs.done", "once", job_id="it", result_ttl=3)
    assert await off(python, jobs, STOCK_WORKER_ALONE, *burst) == 0
    again = Job.fetch("it", connection=connection)
    naive.enqueue_job(again)
    key = f"rq:job:{again.id}"
    assert 0 < connection.ttl(key) <= 3, "it kept the finished job's expiry"
    await until("it expired", lambda: off(connection.exists, key), lambda n: not n)
    assert await off(python, jobs, STOCK_WORKER_ALONE, *burst) == 0
    assert done(jobs) == ["once"], "dropped without a word"

    queue = RqQueue(plain.url)
    first, second = Ticket("doc", 1, PROCESSING), Ticket("doc", 2, PROCESSING)
    await queue.push([first])
    await queue.started(await queue.take([PROCESSING], 1, "w"), "w")
    await queue.finished([first], "w")
    await queue.push([second])
    assert connection.ttl(keys.job(second.job_id)) == -1
    assert await queue.present([second]) == [True]
    await queue.close()


async def test_requeue_killed_half_way(plain: PlainValkey, house: Stack, jobs: Path) -> None:
    """rq/rq#1955: out of the registry first, into the queue afterwards."""
    naive = Queue("naive", connection=plain.raw())
    naive.enqueue("naive_jobs.bad", 1, job_id="failed")
    burst = ("worker", "naive", "--url", plain.url, "--burst")
    assert await off(python, jobs, STOCK_WORKER_ALONE, *burst) == 0
    assert FailedJobRegistry(queue=naive).get_job_ids() == ["failed"]
    dying = KILLED_AT.format(
        module="rq.queue", patch="module.Queue._enqueue_job = die", run=STOCK_WORKER
    )
    requeue = ("requeue", "--all", "--queue", "naive", "--url", plain.url)
    assert await off(python, jobs, dying, *requeue) == -signal.SIGKILL
    assert FailedJobRegistry(queue=naive).get_job_ids() == []
    assert naive.job_ids == [], "neither failed nor queued: gone"

    ids = await queued(house, 3)
    await park_all(house)
    assert await off(python, jobs, RETRY_AND_DIE, env=house.environment()) == -signal.SIGKILL
    assert plain.client().llen(keys.lane(PROCESSING)) == 0, "killed before any was pushed"
    await claimable(house, ids)


async def park_all(stack: Stack) -> None:
    queue, ledger = stack.services.queue, stack.services.ledger
    taken = await queue.take([PROCESSING], 100, ME.id)
    for answer in await ledger.claim(taken, ME, 1000):
        assert answer.claim is not None
        await ledger.settle(answer.claim, Dead("corrupt", "as a test has it"))
    await queue.finished(taken, ME.id, ok=False)


# -- workers that are gone ------------------------------------------------------------------
async def test_a_killed_workers_job_is_held_for_a_minute_at_least(
    plain: PlainValkey, house: Stack, jobs: Path
) -> None:
    naive = Queue("naive", connection=plain.raw())
    naive.enqueue("naive_jobs.endless", 1, job_id="held")
    tuned = ("naive", "--worker-ttl", "16", "--job-monitoring-interval", "1")
    worker = rq_worker(jobs, plain.url, *tuned)
    await until("it runs", lambda: off(done, jobs), bool)
    kill_all_of(worker)
    started = StartedJobRegistry(queue=naive)
    (score,) = [s for _, s in plain.raw().zrange(started.key, 0, -1, withscores=True)]
    assert score - time.time() > 45.0, "tuned as far as it goes, and still a minute"
    burst = ("worker", "naive", "--url", plain.url, "--burst")
    assert await off(python, jobs, STOCK_WORKER_ALONE, *burst) == 0
    assert done(jobs) == ["began"], "nobody takes it up"

    ids = await queued(house, 2)
    assert await off(python, jobs, CLAIM_AND_DIE, env=house.environment()) == -signal.SIGKILL
    states = [d.state for i in ids if (d := await house.services.ledger.get(i))]
    assert states == [State.PARSING] * 2
    await claimable(house, ids)


async def test_an_idle_worker_is_a_ghost_after_data_loss(plain: PlainValkey, jobs: Path) -> None:
    connection = plain.raw()
    worker = rq_worker(jobs, plain.url, "naive", "--worker-ttl", "16", "--name", "idle")

    async def listed() -> int:
        return await off(Worker.count, connection)

    await until("it is listed", listed, lambda n: n == 1)
    connection.flushall()
    await until("its heart beats", lambda: off(connection.exists, "rq:worker:idle"), bool)
    assert Worker.count(connection) == 0, "alive, at work, and nobody can see it"
    kill_all_of(worker)

    queue = RqQueue(plain.url)
    await queue.register_worker("ours", [PROCESSING], os.getpid())
    assert Worker.count(connection) == 1
    connection.flushall()
    await queue.beat_worker("ours")
    (seen,) = Worker.all(connection)
    assert seen.name == "ours"
    assert seen.queue_names() == [PROCESSING]
    await queue.unregister_worker("ours")
    await queue.close()


async def test_pkill_fails_the_running_job(
    plain: PlainValkey, house: Stack, jobs: Path, fake_openai: FakeOpenAI
) -> None:
    """The work horse shares the worker's command line, so ``pkill -f "rq worker"`` meets both."""
    naive = Queue("naive", connection=plain.raw())
    naive.enqueue("naive_jobs.endless", 1, job_id="hit")
    worker = rq_worker(jobs, plain.url, "naive")
    await until("it runs", lambda: off(done, jobs), bool)
    (horse,) = [int(p) for p in children(worker.pid)]
    for pid in (worker.pid, horse):
        os.kill(pid, signal.SIGTERM)
    await worker.ended()
    assert FailedJobRegistry(queue=naive).get_job_ids() == ["hit"]

    fake_openai.control(latency_ms=1000)
    ids = await queued(house, 3)
    ours = house.worker()

    async def running() -> int:
        return (await house.services.ledger.equation()).running

    await until("all in hand", running, lambda n: n == 3)
    assert await ours.stop() == 0
    ended = await until_ended(house.services.ledger, ids)
    assert {(d.state, d.errors) for d in ended.values()} == {(State.SEARCHABLE, 0)}


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


# -- jobs that are done wrongly -------------------------------------------------------------
async def test_an_id_enqueued_twice_runs_twice(plain: PlainValkey, jobs: Path) -> None:
    naive = Queue("naive", connection=plain.raw())
    for _ in range(2):
        naive.enqueue("naive_jobs.done", "twice", job_id="same")
    burst = ("worker", "naive", "--url", plain.url, "--burst")
    assert await off(python, jobs, STOCK_WORKER_ALONE, *burst) == 0
    assert done(jobs) == ["twice", "twice"]

    queue = RqQueue(plain.url)
    ticket = Ticket("doc", 1, PROCESSING)
    await queue.push([ticket, ticket])
    await queue.push([ticket])
    assert [t.job_id for t in await queue.take([PROCESSING], 9, "w")] == ["doc-1"]
    await queue.close()


async def test_a_long_job_is_killed_at_the_default_time_out(plain: PlainValkey, jobs: Path) -> None:
    """180 s by default, one second here: a large document has no chance, however often tried."""
    naive = Queue("naive", connection=plain.raw(), default_timeout=1)
    naive.enqueue("naive_jobs.slow", "long", job_id="long")
    burst = ("--url", plain.url, "--burst")
    assert await off(python, jobs, STOCK_WORKER_ALONE, "worker", "naive", *burst) == 0
    assert done(jobs) == []
    assert FailedJobRegistry(queue=naive).get_job_ids() == ["long"]

    queue = RqQueue(plain.url, function="naive_jobs.slow")
    await queue.push([Ticket("doc", 1, PROCESSING)])
    assert Job.fetch("doc-1", connection=plain.raw()).timeout == -1
    assert await off(python, jobs, STOCK_WORKER_ALONE, "worker", PROCESSING, *burst) == 0
    assert len(done(jobs)) == 1
    await queue.close()


STOCK_WORKER_ALONE = f"import sys; {STOCK_WORKER}"

_AS_A_PROCESS = """
import asyncio, os, signal
from unjam.app.services import open_services
from unjam.core.dead_letters import DeadFilter
from unjam.settings import Settings
from unjam.worker.identity import process_identity

async def main():
    services = await open_services(Settings(), role="worker")
    {act}
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""

RETRY_AND_DIE = _AS_A_PROCESS.format(act="await services.ledger.retry_many(DeadFilter())")

CLAIM_AND_DIE = _AS_A_PROCESS.format(
    act="""me = process_identity("worker")
    await asyncio.to_thread(services.ledger.renew, me, {}, ())
    taken = await services.queue.take(["rag_processing"], 9, me.id)
    answers = await services.ledger.claim(taken, me, 50)
    await services.queue.started([a.ticket for a in answers], me.id)"""
)


async def off(call, *args, **kwargs):  # type: ignore[no-untyped-def]
    """A blocking call, beside the loop."""
    return await asyncio.to_thread(call, *args, **kwargs)
