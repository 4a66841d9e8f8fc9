"""``unjam up`` as an operator runs it: a process, free ports, signals, kills."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.fixtures.up import (
    Up,
    all_searchable,
    equation,
    gone,
    lives,
    noted,
    notes,
    title_of,
    upload,
)
from unjam.pipeline.priority import BEHIND
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.wait import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, fake_openai_process: FakeOpenAI
) -> Iterator[Up]:
    """One system for all tests that leave it standing; its internal ports are taken."""
    up = Up(tmp_path_factory.mktemp("up"), fake_openai_process.url)
    with ExitStack() as held:
        for port in (6379, 8000):
            blocker = held.enter_context(socket.socket())
            blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                blocker.bind(("127.0.0.1", port))
                blocker.listen()
            except OSError:  # somebody else's server on this machine; it may go at any moment
                continue
            up.blocked.append(port)
        up.start()
        try:
            yield up
        finally:
            up.kill()


@pytest.fixture
def fresh(tmp_path: Path, fake_openai: FakeOpenAI) -> Iterator[Up]:
    up = Up(tmp_path, fake_openai.url)
    yield up
    up.kill()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as made:
        yield made


async def test_ready_and_says_where_everything_is(running: Up, client: httpx.AsyncClient) -> None:
    await running.ready(client)

    async def said() -> str:
        return running.output()

    text = await until("it says so", said, lambda s: "ready for documents after" in s)
    for port, name in ((6379, "valkey"), (8000, "chroma")):
        moved = re.search(rf"port {port} is taken: {name} is on (\d+)", text)
        assert moved or port not in running.blocked
        assert f"127.0.0.1:{moved[1] if moved else port}" in text
    assert f"{running.base}/api/rag" in text
    assert "text is sent to http://127.0.0.1" in text
    assert str(running.data_dir) in text
    assert "sk-up" not in text


async def test_titles_in_ps(running: Up, client: httpx.AsyncClient) -> None:
    await running.ready(client)
    titles = sorted(running.titles().values())
    assert title_of(running.pid) == "unjam up"
    workers = [f"rq worker rag_processing (unjam worker {n})" for n in (1, 2)]
    assert [t for t in titles if "rq worker" in t] == workers, "what the runbook's pkill meets"
    assert [t for t in titles if t.startswith("unjam")][:1] == ["unjam api"]
    assert titles.count("unjam api") == titles.count("unjam watchdog") == 1
    assert sum(t.startswith("chroma run --path") for t in titles) == 1
    assert sum("valkey-server" in t or "redis-server" in t for t in titles) == 1
    known = ("unjam ", "rq worker", "chroma run", "valkey-server", "redis-server")

    async def others() -> list[str]:
        now = running.titles().values()
        return [t for t in now if not t.lstrip("/").startswith(known) and "-server" not in t]

    # A parsing parent that has just begun is still Python's own command line.
    await until("nothing else runs", others, lambda found: found == [])


async def test_only_the_owner_reads_house_and_token(running: Up, client: httpx.AsyncClient) -> None:
    await running.ready(client)
    answer = await client.get(f"{running.base}/api/rag/admin/settings")
    assert answer.status_code in (401, 403, 404)
    for name in ("house.json", "admin-token"):
        mode = stat.S_IMODE((running.data_dir / name).stat().st_mode)
        assert mode == 0o600, f"{name}: {mode:o}"
    assert "sk-up" not in (running.data_dir / "house.json").read_text()


async def test_work_goes_behind_answers(running: Up, client: httpx.AsyncClient) -> None:
    await running.ready(client)

    async def priorities(title: str) -> set[int]:
        return {os.getpriority(os.PRIO_PROCESS, pid) for pid in running.pids_titled(title)}

    (answers,) = await priorities("unjam api")
    assert await priorities("chroma run") <= {answers}
    for title in ("rq worker", "unjam parse"):
        await until("it is behind", lambda t=title: priorities(t), {max(BEHIND, answers)}.__eq__)


async def test_a_killed_worker_is_replaced_and_its_documents_finish(
    running: Up, client: httpx.AsyncClient, fake_openai: FakeOpenAI
) -> None:
    await running.ready(client)
    before = (await equation(running, client))["accepted"]
    fake_openai.control(latency_ms=1500)
    await upload(running, client, *notes(12, "a killed worker"))

    async def at_work() -> int:
        return (await equation(running, client))["running"]

    await until("documents are in flight", at_work, lambda n: n >= 12)
    (victim,) = running.pids_titled("rq worker rag_processing (unjam worker 1)")
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    fake_openai.control(latency_ms=0)  # what it held goes on one by one (suspects)
    await all_searchable(running, client, before + 12)
    took_s = time.monotonic() - killed
    assert took_s < 20, f"{took_s:.1f} s"
    (successor,) = running.pids_titled("rq worker rag_processing (unjam worker 1)")
    assert successor != victim
    assert f"worker-1 ({victim}) died: signal 9; restarting" in running.output()
    body = {"query": "pump 7 killed worker", "k": 3}
    answer = await client.post(f"{running.base}/api/rag/search", json=body)
    assert len(answer.json()["hits"]) == 3


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        pytest.param((), "another `unjam up` runs on", id="the same folder"),
        pytest.param(("--port", "API"), "choose another port with --port", id="the API's port"),
        pytest.param(
            ("--dashboard-port", "API"), "with --dashboard-port", id="the dashboard's port"
        ),
    ],
)
async def test_what_cannot_start_says_why_in_a_line(
    running: Up, client: httpx.AsyncClient, tmp_path: Path, more: tuple[str, ...], wanted: str
) -> None:
    await running.ready(client)
    other = Up(tmp_path, "http://127.0.0.1:9/v1")
    if not more:
        other.data_dir = running.data_dir
    told = [str(running.port) if word == "API" else word for word in more]
    done = await asyncio.to_thread(other.another, *told)
    assert done.returncode == 2
    assert wanted in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2, "one line and a hint"
    if more:
        assert f"port {running.port} on 127.0.0.1" in done.stderr
    await running.ready(client)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
async def test_a_signal_stops_everything_in_order(
    fresh: Up, client: httpx.AsyncClient, fake_openai: FakeOpenAI, number: signal.Signals
) -> None:
    fresh.start()
    await fresh.ready(client)
    fake_openai.control(latency_ms=500)
    await upload(fresh, client, *notes(6, "a signal"))
    everything = noted(list(fresh.titles()))
    began = time.monotonic()
    os.kill(fresh.pid, number)
    assert await fresh.ended(30) == 0, fresh.output()
    assert time.monotonic() - began < 30
    assert lives(everything) == []
    assert "stopped in order; every accepted document is safe" in fresh.output()
    assert "Traceback" not in fresh.output()
    assert "was killed" not in fresh.output()
    log = "".join(p.read_text(errors="replace") for p in (fresh.data_dir / "logs").iterdir())
    assert "Worker stopped cleanly" in log


async def test_killed_at_the_top_nothing_outlives_it_and_the_next_run_goes_on(
    fresh: Up, client: httpx.AsyncClient, fake_openai: FakeOpenAI
) -> None:
    fresh.start()
    await fresh.ready(client)
    fake_openai.control(latency_ms=60_000)
    ids = await upload(fresh, client, *notes(8, "a kill at the top"))

    async def at_work() -> int:
        return (await equation(fresh, client))["running"]

    await until("documents are in flight", at_work, lambda n: n == 8)
    everything = noted(list(fresh.titles()))
    assert len(everything) >= 7
    os.kill(fresh.pid, signal.SIGKILL)
    await gone(everything, within_s=10.0)
    await fresh.ended(5)

    fresh.start()
    await fresh.ready(client)
    everything = noted(list(fresh.titles()))
    # Once more, and the next run comes at once: it ends what is left and takes over the ports.
    os.kill(fresh.pid, signal.SIGKILL)
    await fresh.ended(5)
    fake_openai.control(latency_ms=0)
    fresh.start()
    await gone(everything, within_s=10.0)  # first: until then the old API may still answer
    await fresh.ready(client)
    await all_searchable(fresh, client, len(ids))
    assert "Traceback" not in fresh.output()
