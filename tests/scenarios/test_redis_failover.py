"""The primary of Redis is killed under load and the replica, which lacks its last writes, takes
over: uploads keep answering, and what was lost on the way is put right from the ledger."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.chroma import ChromaServer
from tests.fixtures.outage import Scene, scene_of
from tests.fixtures.sentinel import SERVICE, Watched
from tests.fixtures.stack import FAST, model_of
from unjam._redis import client_of, url_of
from unjam.core.document import State
from unjam.queue.rq_queue import RqQueue
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended

RQ = str(Path(sys.executable).with_name("rq"))

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(240)]


@pytest.fixture
async def scene(
    tmp_path: Path, watched: Watched, chroma_server: ChromaServer, fake_openai: FakeOpenAI
) -> AsyncIterator[Scene]:
    extra = {
        "RAG_EMBEDDING_MODEL": model_of(tmp_path),
        "RAG_MAX_CHUNK_SIZE": "32",
        "RAG_RESERVE_MB": "1",
        "RAG_MIN_FREE_DISK_MB": "1",
        **FAST,
    }
    data = tmp_path / "data"
    async with (
        Stack(data, watched.url, chroma_server.url, fake_openai.url, extra=extra) as stack,
        scene_of(stack) as made,
    ):
        yield made


async def test_a_primary_dies_with_writes_that_nobody_else_has(
    scene: Scene, watched: Watched
) -> None:
    scene.run(workers=2)
    await scene.one_clean()
    answers: Counter[int] = Counter()
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            answer = await scene.post()
            answers[answer.status_code] += 1
            if answer.status_code == 202:
                scene.uploaded.append(answer.json()["id"])
            else:
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["Retry-After"]) <= 10
            await asyncio.sleep(0.05)

    task = asyncio.create_task(load())
    old, new = watched.servers
    before = len(scene.uploaded)

    async def came() -> int:
        return len(scene.uploaded) - before

    await until("load", came, lambda n: n >= 10)
    watched.signal(new, signal.SIGSTOP)  # replication stands still; the primary goes on
    await until("uploads that the replica does not know", came, lambda n: n >= 30)
    lost = await watched.unsent_bytes()
    watched.kill(old)
    killed = time.monotonic()
    watched.signal(new, signal.SIGCONT)
    assert lost > 10_000

    await until("the replica is promoted", watched.primary, lambda p: p == new, deadline_s=60)
    promoted_s = time.monotonic() - killed
    queue = scene.stack.services.queue

    async def reached() -> bool:
        try:
            await queue.ping()
            return True
        except Exception:
            return False

    await until("this process has found the new primary", reached, deadline_s=15)
    more = len(scene.uploaded) - before
    await until("load on the new primary", came, lambda n: n >= more + 10)
    stop.set()
    await task
    await scene.all_well(time.monotonic(), first_s=15.0, all_s=90)
    print(f"lost {lost} bytes of replication; promoted after {promoted_s:.1f} s; {dict(answers)}")
    assert answers[202] == len(scene.uploaded) - 1


async def test_a_client_follows_the_primary_and_back(watched: Watched) -> None:
    """Also the connection that a stock worker hands over."""
    queue = RqQueue(watched.url)
    client = client_of(watched.url)
    await client.set("here", "1")
    assert url_of(client.connection_pool) == watched.url
    first, second = watched.servers

    for dead, other in ((first, second), (second, first)):
        replicas = await watched.ask(dead, "ROLE")
        assert replicas[0] == "master"
        watched.signal(dead, signal.SIGSTOP)  # it hangs, and its connections stay open
        await until(
            "the other one leads", watched.primary, lambda p, o=other: p == o, deadline_s=60
        )

        async def reached() -> bool:
            try:
                await queue.ping()
                return bool(await client.get("here"))
            except Exception:
                return False

        await until("both clients work again", reached, deadline_s=20, every_s=0.1)
        watched.signal(dead, signal.SIGCONT)

        async def follows(port: int = dead) -> bool:
            role = await watched.ask(port, "ROLE")
            return role[0] == "slave" and role[3] == "connected"

        await until("the old primary follows", follows, deadline_s=60, every_s=0.2)
    await queue.close()
    await client.aclose()


async def test_a_stock_worker_behind_sentinels(
    scene: Scene, watched: Watched, tmp_path: Path
) -> None:
    """``rq worker -c`` with RQ's own SENTINEL setting; the job function finds the house there."""
    hosts = [("127.0.0.1", port) for port in watched.sentinels]
    sentinel = {"INSTANCES": hosts, "MASTER_NAME": SERVICE, "DB": 5, "SOCKET_TIMEOUT": 5}
    (tmp_path / "rq_settings.py").write_text(f"SENTINEL = {sentinel!r}\n")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "OPENAI_", "RQ_"))}
    own = {k: v for k, v in scene.stack.environment().items() if k != "RAG_REDIS_URL"}
    path = os.pathsep.join(filter(None, (str(tmp_path), kept.get("PYTHONPATH"))))
    log = tmp_path / "rq.log"
    with log.open("wb") as out:
        worker = await asyncio.create_subprocess_exec(
            *(RQ, "worker", "-c", "rq_settings", "rag_processing"),
            cwd=tmp_path,
            env={**kept, **own, "PYTHONPATH": path},
            stdout=out,
            stderr=out,
        )
    try:
        ids = await scene.upload(2)
        found = await until_ended(scene.stack.services.ledger, ids, deadline_s=60)
        assert {d.state for d in found.values()} == {State.SEARCHABLE}, log.read_text()
    finally:
        worker.terminate()
        await asyncio.wait_for(worker.wait(), 30)
