"""``rq worker rag_processing --url …``, nothing else: it finds the house and does no harm."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from unjam.app.house import knobs_set
from unjam.core.chunk import chunk_ids
from unjam.core.document import Document, State, Ticket
from unjam.core.outcome import Release
from unjam.core.ports import WorkerRef
from unjam.queue import keys
from unjam.queue.lanes import DEAD, PROCESSING
from unjam.stores.ledger import SqlLedger
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Process, Stack
from unjam.testing.wait import until, until_ended

RQ = str(Path(sys.executable).parent / "rq")
SIMPLE = ("--worker-class", "rq.SimpleWorker")
OURS = ("RAG_", "OPENAI_", "SLACK_", "UNJAM_", "ADMIN_")
TEXT = "\n\n".join(
    f"Section {n}. The pump of line {n} is serviced every {n + 3} weeks. 펌프 {n}의 정비 기록."
    for n in range(30)
)
ELSEWHERE = WorkerRef("elsewhere.1.1", "elsewhere", 1, "1", "worker")


def rq(stack: Stack, *args: str, env: Mapping[str, str] | None = None) -> Process:
    """``rq ARGS… --url …`` as a process, knowing nothing of the house but what *env* says."""
    silent = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    log = stack.data_dir / f"rq-{len(stack.processes)}.log"
    with log.open("wb") as out:
        popen = subprocess.Popen(
            [RQ, args[0], "--url", stack.redis_url, *args[1:]],
            env={**silent, "COLUMNS": "200", **(env or {})},
            cwd="/",
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    process = Process(popen, log)
    stack.processes.append(process)
    return process


def key_of(stack: Stack) -> dict[str, str]:
    """What the house cannot tell: secrets, and where they may be sent."""
    return {"OPENAI_BASE_URL": stack.openai_url, "OPENAI_API_KEY": "sk-stock"}


async def burst(stack: Stack, *args: str, env: Mapping[str, str] | None = None) -> str:
    """A worker that ends when its lanes are empty; its output."""
    process = rq(stack, "worker", *(args or (PROCESSING,)), "--burst", env=env)
    assert await process.ended(90) == 0, process.output()
    return process.output()


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as made:
        yield made


@pytest.fixture
async def local_stack(tmp_path: Path, redis_url: str, chroma_url: str) -> AsyncIterator[Stack]:
    """With the local model: nothing is secret, so the house tells everything."""
    async with Stack(tmp_path / "data", redis_url, chroma_url) as made:
        yield made


async def get(stack: Stack, document_id: str) -> Document:
    document = await stack.services.ledger.get(document_id)
    assert document is not None
    return document


async def exact(stack: Stack, document: Document) -> bool:
    wanted = set(chunk_ids(document.id, document.visible_generation, document.chunks))
    return len(wanted) > 0 and await stack.chunk_ids(document.id) == wanted


CLEAN: dict[str, object] = {"failed": [], "started": [], "taken": [], "in hand": {}}


def books(server: redis.Redis) -> dict[str, object]:
    """What RQ's books call failed or at work, and what is in somebody's hand."""
    return {
        "failed": server.zrange(keys.failed(PROCESSING), 0, -1),
        "started": server.zrange(keys.wip(PROCESSING), 0, -1),
        "taken": server.lrange(keys.intermediate(PROCESSING), 0, -1),
        "in hand": server.hgetall(keys.TAKEN),
    }


@pytest.mark.slow
@pytest.mark.parametrize("worker_class", [(), SIMPLE], ids=["forking", "simple"])
async def test_documents_become_searchable(
    local_stack: Stack, server: redis.Redis, worker_class: tuple[str, ...]
) -> None:
    stack = local_stack
    ids = [await stack.add(f"Note {n}. {TEXT}", f"{n}.txt") for n in range(2)]
    output = await burst(stack, PROCESSING, *worker_class)
    for document_id in ids:
        document = await get(stack, document_id)
        assert document.state is State.SEARCHABLE, output
        assert await exact(stack, document)
        assert output.count(f"Successfully processed {document_id}-1") == 1
        assert output.count(f"RAG worker started processing job {document_id}-1") == 1
    assert "ERROR" not in output
    assert "WARNING" not in output
    assert books(server) == CLEAN, output
    assert "unjam parse" not in await children_left(stack)
    hits = await stack.services.retriever.search("When is pump 7 serviced?", 3, None)
    assert hits[0].document_id in ids


async def children_left(stack: Stack) -> str:
    """Command lines of processes that belong to sessions of our stock workers."""
    sessions = {str(p.pid) for p in stack.processes}
    lines: list[str] = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                session = (folder / "stat").read_text().rpartition(")")[2].split()[3]
                if session in sessions:
                    lines.append((folder / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("worker_class", [(), SIMPLE], ids=["forking", "simple"])
async def test_a_rejected_document_is_a_dead_letter_and_no_failed_job(
    stack: Stack, server: redis.Redis, worker_class: tuple[str, ...]
) -> None:
    empty = await stack.add(b" \n ", "empty.txt")
    good = await stack.add(TEXT)
    output = await burst(stack, PROCESSING, *worker_class, env=key_of(stack))
    dead = await get(stack, empty)
    assert (dead.state, dead.reason) == (State.DEAD, "empty")
    assert (await get(stack, good)).state is State.SEARCHABLE, "the next one goes on"
    assert f"Job {empty}-1 is parked" in output
    assert books(server) == CLEAN, output
    # RQ wrote its own job's end after the dead letter was parked, and did not touch it.
    parked = Ticket(empty, dead.enqueue_seq).job_id
    assert server.lrange(keys.lane(DEAD), 0, -1) == [parked]
    assert server.zrange(keys.failed(DEAD), 0, -1) == [parked]
    assert server.hget(keys.job(parked), "status") == "failed"
    assert server.ttl(keys.job(parked)) == -1
    await stack.reconcile()
    assert server.lrange(keys.lane(DEAD), 0, -1) == [parked]


@pytest.mark.slow
async def test_a_worker_on_the_dead_letters_revives_none(stack: Stack, server: redis.Redis) -> None:
    empty = await stack.add(b"", "empty.txt")
    await burst(stack, PROCESSING, env=key_of(stack))
    before = await get(stack, empty)
    events = await stack.services.ledger.events(empty)
    await burst(stack, DEAD, env=key_of(stack))
    assert await get(stack, empty) == before
    assert await stack.services.ledger.events(empty) == events
    assert books(server) == CLEAN
    await stack.reconcile()
    parked = Ticket(empty, before.enqueue_seq).job_id
    assert server.lrange(keys.lane(DEAD), 0, -1) == [parked]
    assert server.zrange(keys.failed(DEAD), 0, -1) == [parked]
    assert server.hget(keys.job(parked), "status") == "failed"
    assert server.ttl(keys.job(parked)) == -1


@pytest.mark.slow
async def test_a_stale_job_is_a_no_op(stack: Stack, server: redis.Redis) -> None:
    document_id = await stack.add(TEXT)
    await burst(stack, PROCESSING, env=key_of(stack))
    before = await get(stack, document_id)
    assert before.state is State.SEARCHABLE
    events = await stack.services.ledger.events(document_id)
    server.delete(keys.job(f"{document_id}-1"))
    await stack.services.queue.push([Ticket(document_id, 1, PROCESSING, before.size_bytes)])
    output = await burst(stack, PROCESSING, env=key_of(stack))
    assert "process_document" in output, "the job ran"
    assert await get(stack, document_id) == before
    assert await stack.services.ledger.events(document_id) == events
    assert books(server) == CLEAN, output


@pytest.mark.slow
async def test_at_the_cap_a_job_waits_for_its_slot(stack: Stack, server: redis.Redis) -> None:
    stack.extra = {**stack.extra, "RAG_MAX_CONCURRENT_JOBS": "1"}
    house = replace(stack.services.house(), knobs=knobs_set(stack.settings))
    await stack.services.queue.write_house(house.to_mapping())
    ledger = stack.services.ledger
    other = await stack.add("Something else.", "other.txt")
    (answer,) = await ledger.claim([Ticket(other, 1, PROCESSING)], ELSEWHERE, 1)
    assert answer.claim is not None
    document_id = await stack.add(TEXT)
    worker = rq(stack, "worker", PROCESSING, env=key_of(stack))

    async def in_hand() -> bool:
        await asyncio.to_thread(ledger.renew, ELSEWHERE, {other: answer.claim.token}, ())
        return bool(server.hexists(keys.TAKEN, f"{document_id}-1"))

    await until("the job waits", in_hand, deadline_s=30)
    for _ in range(3):
        await stack.reconcile()
    waiting = await get(stack, document_id)
    assert (waiting.state, waiting.enqueue_seq) == (State.QUEUED, 1), "rung again while in hand"
    await ledger.settle(answer.claim, Release())
    document = (await until_ended(ledger, [document_id]))[document_id]
    assert document.state is State.SEARCHABLE
    assert document.enqueue_seq == 1
    assert await worker.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("worker_class", [(), SIMPLE], ids=["forking", "simple"])
async def test_killed_in_the_middle_it_is_taken_up_again(
    reconciled: Stack, fake_openai: FakeOpenAI, worker_class: tuple[str, ...]
) -> None:
    stack, ledger = reconciled, reconciled.services.ledger
    document_id = await stack.add(TEXT)
    fake_openai.control(latency_ms=60_000)
    worker = rq(stack, "worker", PROCESSING, *worker_class, env=key_of(stack))

    async def state() -> State:
        return (await get(stack, document_id)).state

    await until("it embeds", state, lambda s: s is State.EMBEDDING, deadline_s=60)
    (horse,) = [ref.pid for ref, _ in await ledger.processes() if ref.kind == "stock"]
    assert (horse == worker.pid) == bool(worker_class)
    os.kill(worker.pid, signal.SIGKILL)
    if horse != worker.pid:
        os.kill(horse, signal.SIGKILL)
    await worker.ended()
    fake_openai.control(latency_ms=0)
    stack.worker()
    document = (await until_ended(ledger, [document_id]))[document_id]
    assert document.state is State.SEARCHABLE
    assert document.deaths == 0
    assert await exact(stack, document)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["another house", "nothing"])
async def test_another_house_leaves_the_document_queued(
    stack: Stack, server: redis.Redis, tmp_path: Path, folder: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    if folder == "another house":
        elsewhere.mkdir()
        await (await SqlLedger.open(f"sqlite:///{elsewhere / 'ledger.db'}")).close()
    document_id = await stack.add(TEXT)
    worker = rq(
        stack, "worker", PROCESSING, *SIMPLE, env={**key_of(stack), "RAG_DATA_DIR": str(elsewhere)}
    )

    async def log() -> str:
        return worker.output()

    said = await until("it says so", log, lambda s: "is left queued" in s, deadline_s=60)
    assert f"RAG_DATA_DIR={stack.data_dir}" in said
    assert "Traceback" not in said
    assert elsewhere.exists() == (folder == "another house"), "a ledger was made by mistake"
    assert (await get(stack, document_id)).state is State.QUEUED
    # A fit worker has it as soon as the reconciler rings again; this one cannot claim it.
    os.kill(worker.pid, signal.SIGSTOP)
    record = server.hgetall(keys.TAKEN)
    assert record == {}
    stack.worker()

    async def searchable() -> State:
        for job_id, noted in server.hgetall(keys.TAKEN).items():  # as if 15 s had passed
            server.hset(keys.TAKEN, job_id, "0 " + noted.partition(" ")[2])
        await stack.reconcile()
        return (await get(stack, document_id)).state

    await until("a fit worker did it", searchable, lambda s: s is State.SEARCHABLE, deadline_s=60)
    assert server.zcard(keys.failed(PROCESSING)) == 0


@pytest.mark.slow
async def test_without_a_key_it_waits_and_says_which_worker_lacks_it(stack: Stack) -> None:
    """Secrets are not in the house: this worker cannot embed, but another one can."""
    document_id = await stack.add(TEXT)
    await burst(stack, PROCESSING)
    document = await get(stack, document_id)
    assert (document.state, document.reason) == (State.WAITING, "embedding_unauthorised")
    assert "This worker has no key" in document.detail
    assert "set OPENAI_API_KEY" in document.detail
    assert stack.openai_url in document.detail
    assert document.errors == 0
    assert document.next_step_at is not None
    await stack.services.queue.push([await stack.services.ledger.retry(document_id)])
    stack.worker()
    done = (await until_ended(stack.services.ledger, [document_id]))[document_id]
    assert done.state is State.SEARCHABLE


@pytest.mark.slow
async def test_rq_info_suspend_and_resume(stack: Stack) -> None:
    ledger = stack.services.ledger
    worker = stack.worker()

    async def info() -> str:
        process = rq(stack, "info", "--raw")
        assert await process.ended() == 0
        return process.output()

    listed = await until("rq info lists it", info, lambda s: f" {worker.pid})" in s, every_s=0.3)
    assert "idle rag_high, rag_processing, rag_low, rag_large_docs" in listed
    assert await rq(stack, "suspend").ended() == 0
    ids = [await stack.add(f"Note {n}", f"{n}.txt") for n in range(3)]
    assert "queue rag_processing 3, 0 executing" in await info()
    assert await stack.services.queue.take([PROCESSING], 9, "other") == []
    assert {(await get(stack, i)).state for i in ids} == {State.QUEUED}
    assert await rq(stack, "resume").ended() == 0
    await until_ended(ledger, ids)
    done = await until("it is counted", info, lambda s: "3 finished, 0 failed" in s, every_s=0.3)
    assert "queue rag_processing 0, 0 executing, 0 finished, 0 failed" in done
    assert await worker.stop() == 0
    assert "worker" not in (await info()).partition("\n")[2]
