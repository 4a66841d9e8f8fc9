"""A process that freezes inside a write transaction holds nobody up for long, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
import pytest

from tests.fixtures.ledger import WORKER, accepted, claimed, submission
from tests.fixtures.outage import Scene
from unjam.core.document import State
from unjam.core.errors import DependencyDown
from unjam.core.outcome import Done
from unjam.core.ports import WorkerRef
from unjam.stores.gate import Gate
from unjam.stores.gate_guard import Freed
from unjam.stores.ledger import SqlLedger, claims, commit, opening
from unjam.stores.ledger.intake import accept
from unjam.stores.ledger.tx import Tx
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until
from unjam.worker.embedded import free_port

pytestmark = pytest.mark.timeout(120)
_spawn = multiprocessing.get_context("spawn")
SOON_S = 6.0
"""Others must go on by then, from the freeze on."""
FROZEN = WorkerRef("frozen-1", "elsewhere", 2, "0.1.0")


def _freeze(url: str, pipe: Connection, n: int, stops: int, verb: str) -> None:
    """Accept number *n*, or claim and settle it, and stop *stops* times before the commit."""

    async def run() -> None:
        ledger = await SqlLedger.open(url)
        claim = None
        been: list[bool] = []
        if verb == "settle":
            claim = await claimed(ledger, await accepted(ledger, n), FROZEN)

        def work(tx: Tx) -> object:
            if claim is None:
                made: object = accept(tx, [submission(n)])
            else:
                made = claims.settle(tx, claim, Done(3))
            if not been:  # the group may be run again on another connection
                been.append(True)
                pipe.send("inside")
                for _ in range(stops):
                    os.kill(os.getpid(), signal.SIGSTOP)
            return made

        ids = [] if claim is None else [claim.document_id]
        try:
            await ledger._committer.submit(work, ids)
            pipe.send("committed")
        except DependencyDown:
            pipe.send("undone")
        if claim is not None:
            pipe.send((await ledger.settle(claim, Done(3))).moved)

    asyncio.run(run())


@contextlib.contextmanager
def frozen(
    url: str, n: int, *, stops: int = 1, verb: str = "accept"
) -> Iterator[tuple[BaseProcess, Connection]]:
    ours, theirs = _spawn.Pipe(duplex=False)
    process = _spawn.Process(target=_freeze, args=(url, theirs, n, stops, verb), daemon=True)
    process.start()
    theirs.close()
    try:
        assert ours.poll(30) and ours.recv() == "inside"
        yield process, ours
    finally:
        process.kill()
        process.join(10)


def state_of(pid: int | None) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


async def stopped(process: BaseProcess) -> None:
    async def look() -> str:
        return state_of(process.pid)

    await until("it is stopped", look, lambda s: s == "T", every_s=0.005)


async def everybody_writes(ledger: SqlLedger, first: int) -> float:
    """An upload, a claim and a heartbeat of others; seconds until all of them were through."""
    began = time.monotonic()

    async def work(n: int) -> None:
        await claimed(ledger, await accepted(ledger, n))

    beat = asyncio.to_thread(ledger.renew, WORKER, {}, [])
    await asyncio.gather(beat, *(work(first + k) for k in range(5)))
    return time.monotonic() - began


@pytest.fixture
async def others(ledger_url: str) -> AsyncIterator[tuple[SqlLedger, list[Freed]]]:
    freed: list[Freed] = []
    ledger = await SqlLedger.open(ledger_url, freed=freed.append)
    yield ledger, freed
    await ledger.close()


async def test_others_go_on_when_a_writer_freezes(
    ledger_url: str, others: tuple[SqlLedger, list[Freed]]
) -> None:
    ledger, freed = others
    with frozen(ledger_url, 900) as (process, pipe):
        await stopped(process)
        took_s = await everybody_writes(ledger, 1)
        print(f"others were through after {took_s:.1f} s: {freed}")
        assert took_s < SOON_S
        if ledger_url.startswith("sqlite"):  # woken: nobody wrote meanwhile, so it may commit
            assert [(f.pid, f.how) for f in freed] == [(process.pid, "woken")]
            ended = "committed"
        else:  # the server has ended its transaction
            assert process.pid is not None
            os.kill(process.pid, signal.SIGCONT)
            ended = "undone"
        assert await asyncio.to_thread(pipe.poll, 30) and pipe.recv() == ended
    equation = await ledger.equation()
    assert (equation.accepted, equation.missing) == (5 + (ended == "committed"), 0)
    assert (await ledger.get("d00000900") is not None) == (ended == "committed")


async def test_it_changes_nothing_once_its_document_has_another_owner(
    ledger_url: str, others: tuple[SqlLedger, list[Freed]]
) -> None:
    """It wakes in the middle of the transaction that makes its document searchable."""
    ledger, _ = others
    with frozen(ledger_url, 900, verb="settle") as (process, pipe):
        await stopped(process)
        assert await everybody_writes(ledger, 1) < SOON_S
        taken = await ledger.expire([FROZEN.id])
        assert process.pid is not None
        if ledger_url.startswith("sqlite"):  # it had settled before anybody could write
            assert taken == []
            held = await ledger.get("d00000900")
            assert await asyncio.to_thread(pipe.poll, 30) and pipe.recv() == "committed"
        else:
            (ticket,) = taken
            await claimed(ledger, ticket)
            held = await ledger.get("d00000900")
            os.kill(process.pid, signal.SIGCONT)
            # Its session was ended. On another one it finds that the document is not its own.
            assert await asyncio.to_thread(pipe.poll, 30) and pipe.recv() == "committed"
        assert await asyncio.to_thread(pipe.poll, 30) and pipe.recv() is False
    now = await ledger.get("d00000900")
    assert now == held and now is not None
    completed = sum(
        v for (name, _), v in (await ledger.counters()).items() if name == "jobs_completed"
    )
    assert completed == (now.state is State.SEARCHABLE)


@pytest.mark.alone
async def test_one_that_stops_again_is_killed_and_rolled_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    freed: list[Freed] = []
    ledger = await SqlLedger.open(url, freed=freed.append)
    with frozen(url, 900, stops=1_000) as (process, _):
        await stopped(process)
        took_s = await everybody_writes(ledger, 1)
        process.join(10)
        assert process.exitcode == -signal.SIGKILL
    print(f"others were through after {took_s:.1f} s: {freed}")
    assert took_s < SOON_S
    assert [f.how for f in freed] == ["woken", "killed"]
    assert await ledger.get("d00000900") is None
    assert (await ledger.equation()).accepted == 5

    async def noted() -> set[str]:
        return {a["action"] for a in await ledger.audit() if a["by"] == "gate"}

    await until("it is written down", noted, lambda a: a == {"wake_writer", "kill_writer"})
    counters = await ledger.counters()
    assert counters["recovery:kill_writer:done", ""] == 1
    await ledger.close()


async def test_a_process_under_a_debugger_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "PATIENCE_S", 3.0)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    freed: list[Freed] = []
    ledger = await SqlLedger.open(url, freed=freed.append)
    libc = ctypes.CDLL(None, use_errno=True)
    attach, detach = 16, 17
    with frozen(url, 900, stops=1) as (process, pipe):
        await stopped(process)
        # Before the guard has a reason to look: only who waits calls it.
        if libc.ptrace(attach, process.pid, None, None) != 0:
            pytest.skip("this machine lets nobody trace")
        await asyncio.to_thread(os.waitpid, process.pid or 0, 0x40000000)  # __WALL
        with pytest.raises(DependencyDown, match="under a debugger"):
            await ledger.accept([submission(1)])
        assert freed == [] and state_of(process.pid) == "t"
        assert libc.ptrace(detach, process.pid, None, None) == 0
        assert process.pid is not None
        os.kill(process.pid, signal.SIGCONT)
        assert await asyncio.to_thread(pipe.poll, 30) and pipe.recv() == "committed"
    assert await everybody_writes(ledger, 10) < SOON_S
    assert await ledger.get("d00000001") is None, "who gave up has done nothing"
    await ledger.close()


def _sit(folder: Path, pipe: Connection) -> None:
    with Gate(folder).hold():
        pipe.send("inside")
        pipe.recv()


@contextlib.contextmanager
def sitter(folder: Path) -> Iterator[Connection]:
    """A process that sits in the gate and is not stopped; anything sent to it lets it go."""
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=_sit, args=(folder, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        assert ours.poll(30) and ours.recv() == "inside"
        yield ours
    finally:
        process.kill()
        process.join(10)


async def test_opening_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "PATIENCE_S", 1.5)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with sitter(tmp_path):
        began = time.monotonic()
        with pytest.raises(DependencyDown, match=r"no turn to write .* is in the gate"):
            await SqlLedger.open(url)
        assert time.monotonic() - began < 5.0
    await (await SqlLedger.open(url)).close()


@pytest.fixture
async def scene(stack: Stack) -> AsyncIterator[Scene]:
    port = free_port(0)
    api = stack.start("api", "--port", str(port), "--dashboard-port", "0")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        made = Scene(stack, http, [api])

        async def up() -> bool:
            try:
                return (await http.get("/healthz")).status_code == 200
            except httpx.TransportError:
                return False

        await until("the API answers", up, every_s=0.1, deadline_s=60)
        yield made


@pytest.mark.thorough
async def test_uploads_pass_a_frozen_process_and_are_refused_beside_a_slow_one(
    scene: Scene, fake_openai: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    data = scene.stack.data_dir
    with frozen(f"sqlite:///{data / 'ledger.db'}", 900) as (process, pipe):
        await stopped(process)
        began = time.monotonic()
        answer = await scene.post()
        took_s = time.monotonic() - began
        assert answer.status_code == 202, answer.text
        assert took_s < SOON_S
        assert await asyncio.to_thread(pipe.poll, 30) and pipe.recv() == "committed"
    # Whoever waited says so: the API, or this process, which has the ledger open, too.
    said = scene.processes[0].output() + caplog.text
    assert "A frozen process held the ledger's gate" in said
    with sitter(data) as seat:
        began = time.monotonic()
        answer = await scene.post()
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "ledger_unwritable"
        assert "is in the gate" in answer.json()["detail"]
        assert time.monotonic() - began < commit.PATIENCE_S + 3.0
        seat.send("leave")

        async def taken() -> int:
            return (await scene.post()).status_code

        await until("uploads are taken again", taken, lambda s: s == 202, every_s=0.2)
