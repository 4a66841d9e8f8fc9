"""The supervisor with tiny children: restarts, order of stopping, kills of the top, the lock."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unjam.core.errors import SetupError
from unjam.worker import supervisor as module
from unjam.worker.children import Command
from unjam.worker.embedded import chroma_answers, free_port, plan_chroma, plan_valkey
from unjam.worker.identity import process_start
from unjam.worker.supervisor import ChildSpec, Happening, Supervisor, Tier, restart_delay_s

CHILD = """
import os, signal, sys, threading, time
name, drain_s = sys.argv[1], float(sys.argv[2])
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
print("up", name, os.getpid(), flush=True)
if "crash" in sys.argv:
    sys.exit(3)
stop.wait()
time.sleep(drain_s)
print("down", name, time.monotonic(), flush=True)
"""


class Told:
    """What the supervisor reported; waitable."""

    def __init__(self) -> None:
        self.all: list[Happening] = []
        self._news = asyncio.Event()

    def __call__(self, happening: Happening) -> None:
        self.all.append(happening)
        self._news.set()

    def of(self, what: str, name: str = "") -> list[Happening]:
        return [h for h in self.all if h.what == what and name in ("", h.name)]

    async def until(self, condition: Callable[[], bool], deadline_s: float = 20.0) -> None:
        async with asyncio.timeout(deadline_s):
            while not condition():
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def child(tmp_path: Path) -> Callable[..., ChildSpec]:
    (tmp_path / "tiny_child.py").write_text(textwrap.dedent(CHILD))

    def make(
        name: str, tier: Tier = Tier.WORKER, *extra: str, drain_s: float = 0.0, grace_s: float = 9.0
    ) -> ChildSpec:
        command = Command.python(
            "tiny_child",
            [name, str(drain_s), *extra],
            title=f"rq worker rag_processing (unjam {name})",
            env={"PYTHONPATH": str(tmp_path)},
        )
        return ChildSpec(name, command, tier, f"{name}.log", stop_grace_s=grace_s)

    return make


async def until(condition: Callable[[], object], deadline_s: float = 10.0) -> None:
    """Wait for *condition*, by looking: other processes give no event."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


async def until_up(log: Path, times: int = 1) -> None:
    await until(lambda: log.exists() and log.read_text().count("up ") >= times)


async def test_what_dies_is_restarted_at_once(
    tmp_path: Path, child: Callable[..., ChildSpec], caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    async with Supervisor(tmp_path, tmp_path / "logs", told) as top:
        await top.start([child("rag-worker"), child("rag-worker2")])
        log = tmp_path / "logs" / "rag-worker.log"
        await until_up(log)
        before = top.pids()
        began = time.monotonic()
        os.kill(before["rag-worker"], signal.SIGKILL)
        await told.until(lambda: len(told.of("started", "rag-worker")) == 2)
        assert time.monotonic() - began < 0.2
        died = told.of("died")[0]
        assert (died.name, died.pid, died.how) == (
            "rag-worker",
            before["rag-worker"],
            "signal 9",
        )
        assert top.pids()["rag-worker2"] == before["rag-worker2"]
        assert top.restarts() == {"rag-worker": 1, "rag-worker2": 0}
        await until_up(log, 2)  # the evidence of the first life is kept
    assert [h.name for h in told.of("stopped")] and not told.of("killed")


async def test_the_contracts_words_when_a_worker_dies(
    tmp_path: Path, child: Callable[..., ChildSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, int, str]] = []
    monkeypatch.setattr(
        module.words, "worker_terminated", lambda name, pid, how: said.append((name, pid, how))
    )
    told = Told()
    async with Supervisor(tmp_path, tmp_path / "logs", told) as top:
        await top.start([child("w"), child("api", Tier.API)])
        pids = top.pids()
        await until_up(tmp_path / "logs" / "w.log")
        await until_up(tmp_path / "logs" / "api.log")
        os.kill(pids["api"], signal.SIGKILL)
        os.kill(pids["w"], signal.SIGTERM)  # pkill -f "rq worker": it drains, exits 0
        await told.until(lambda: len(told.of("started")) == 4)
        assert said == [], "a requested end is no accident"
        os.kill(top.pids()["w"], signal.SIGKILL)
        await told.until(lambda: len(told.of("started")) == 5)
        assert [(name, how) for name, _, how in said] == [("w", "signal 9")]


async def test_a_crash_loop_slows_down(tmp_path: Path, child: Callable[..., ChildSpec]) -> None:
    told = Told()
    async with Supervisor(tmp_path, tmp_path / "logs", told) as top:
        await top.start([child("w", Tier.WORKER, "crash")])
        await told.until(lambda: len(told.of("restarting")) == 4)
    delays = [h.delay_s for h in told.of("restarting")]
    assert delays == [0.05, 0.1, 0.2, 0.4]
    assert restart_delay_s(0) == restart_delay_s(1) == 0.05
    assert restart_delay_s(100) == 30.0
    # Killed by somebody again and again: it is not the child that is broken.
    assert restart_delay_s(100, -signal.SIGKILL) == restart_delay_s(100, 0) == 1.0
    assert restart_delay_s(100, -signal.SIGSEGV) == 30.0


async def test_stopping_goes_in_order(tmp_path: Path, child: Callable[..., ChildSpec]) -> None:
    told = Told()
    specs = [
        child("valkey", Tier.QUEUE),
        child("chroma", Tier.VECTORS),
        child("api", Tier.API, drain_s=0.2),
        child("w1", drain_s=0.2),
        child("w2", drain_s=0.1),
        child("watchdog", Tier.WATCHDOG),
    ]
    async with Supervisor(tmp_path, tmp_path / "logs", told) as top:
        await top.start(specs)
        for spec in specs:
            await until_up(tmp_path / "logs" / spec.log_name)
        running = asyncio.create_task(top.run())
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 10)
    order = [(h.what, h.name) for h in told.all if h.what in ("stopping", "stopped")]
    assert order[:2] == [("stopping", "api"), ("stopped", "api")]
    assert set(order[2:4]) == {("stopping", "w1"), ("stopping", "w2")}
    assert order[4:] == [
        ("stopped", "w2"),
        ("stopped", "w1"),
        ("stopping", "watchdog"),
        ("stopped", "watchdog"),
        ("stopping", "chroma"),
        ("stopped", "chroma"),
        ("stopping", "valkey"),
        ("stopped", "valkey"),
    ]
    assert all(h.code == 0 for h in told.of("stopped")), "drained, not killed"
    assert not told.of("died") and not told.of("restarting")


async def test_one_that_does_not_stop_is_killed(
    tmp_path: Path, child: Callable[..., ChildSpec]
) -> None:
    told = Told()
    async with Supervisor(tmp_path, tmp_path / "logs", told) as top:
        await top.start([child("w", drain_s=60, grace_s=0.2)])
        await until_up(tmp_path / "logs" / "w.log")
    assert [h.code for h in told.of("killed")] == [-9]


async def test_a_second_signal_hurries(
    tmp_path: Path, child: Callable[..., ChildSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HURRY_S", 0.1)
    told = Told()
    async with Supervisor(tmp_path, tmp_path / "logs", told) as top:
        await top.start([child("w", drain_s=60, grace_s=60)])
        await until_up(tmp_path / "logs" / "w.log")
        running = asyncio.create_task(top.run())
        os.kill(os.getpid(), signal.SIGINT)
        await told.until(lambda: bool(told.of("stopping")))
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(running, 5)
    assert told.of("killed")


async def test_one_supervisor_a_folder(tmp_path: Path) -> None:
    async with Supervisor(tmp_path, tmp_path / "logs"):
        with pytest.raises(SetupError, match=f"process {os.getpid()}") as error:
            async with Supervisor(tmp_path, tmp_path / "logs"):
                pass
        assert "--data-dir" in error.value.hint
    async with Supervisor(tmp_path, tmp_path / "logs"):
        pass


async def test_one_that_cannot_come_up_stops_everything(
    tmp_path: Path, child: Callable[..., ChildSpec]
) -> None:
    async def never() -> bool:
        return False

    broken = ChildSpec("x", Command.foreign("/bin/false"), Tier.QUEUE, "x.log", never)
    top = Supervisor(tmp_path, tmp_path / "logs")
    pids: dict[str, int] = {}
    with pytest.raises(SetupError, match="exit code 1") as error:
        async with top:
            try:
                await top.start([child("w"), broken])
            finally:
                pids = top.pids()
    assert "x.log" in error.value.hint
    assert process_start(pids["w"]) is None


async def test_embedded_servers_are_kept_alive(tmp_path: Path) -> None:
    told = Told()
    async with Supervisor(tmp_path, tmp_path / "logs", told) as top:
        plans = await asyncio.gather(
            plan_valkey(tmp_path, free_port(0)), plan_chroma(tmp_path, free_port(0))
        )
        began = time.monotonic()
        await top.start([ChildSpec.of_server(plan) for plan in plans])
        assert time.monotonic() - began < 5.0
        assert {h.name for h in told.of("ready")} == {"valkey", "chroma"}
        for name, pid in top.pids().items():
            os.kill(pid, signal.SIGKILL)
            await told.until(lambda name=name: len(told.of("started", name)) == 2)
        for plan in plans:
            async with asyncio.timeout(10):
                while not await plan.ready():
                    await asyncio.sleep(0.01)
    assert [h.name for h in told.of("stopped")] == ["chroma", "valkey"]
    assert not await chroma_answers("127.0.0.1", plans[1].port)


TOP = """
import asyncio, json, sys
from pathlib import Path
from unjam.worker.children import Command
from unjam.worker.embedded import plan_chroma, plan_valkey
from unjam.worker.supervisor import ChildSpec, Supervisor, Tier

async def main():
    home = Path(sys.argv[1])
    async with Supervisor(home, home / "logs") as top:
        plans = await asyncio.gather(
            plan_valkey(home, int(sys.argv[2])), plan_chroma(home, int(sys.argv[3])))
        await top.start([ChildSpec.of_server(p) for p in plans])
        slow = Command.python("tiny_child", ["w", "60"], title="rq worker rag_processing (unjam w)",
                              env={"PYTHONPATH": sys.argv[4]})
        await top.start([ChildSpec("w", slow, Tier.WORKER, "w.log")])
        print(json.dumps({"pids": top.pids(), "ports": [p.port for p in plans]}), flush=True)
        await top.run()

asyncio.run(main())
"""


@pytest.mark.slow
async def test_kill_9_of_the_top_and_start_again(
    tmp_path: Path, child: Callable[..., ChildSpec]
) -> None:
    """No child outlives it by 10 s, not even one that drains for a minute; the next start on the
    same folder gets the same ports at once."""
    ports = [str(free_port(0)), str(free_port(0))]

    async def start() -> tuple[asyncio.subprocess.Process, dict[str, dict[str, int]]]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", TOP, str(tmp_path), *ports, str(tmp_path)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        return process, json.loads(line)

    first, facts = await start()
    lives = {pid: process_start(pid) for pid in facts["pids"].values()}
    assert None not in lives.values()
    await until_up(tmp_path / "logs" / "w.log")
    first.kill()
    await first.wait()
    began = time.monotonic()
    second, again = await start()
    assert time.monotonic() - began < 6.0
    assert again["ports"] == [int(p) for p in ports], "the ports of the old servers are free"
    assert all(process_start(pid) != life for pid, life in lives.items())
    lives = {pid: process_start(pid) for pid in again["pids"].values()}
    await until_up(tmp_path / "logs" / "w.log", 2)
    second.kill()
    await second.wait()
    await until(lambda: all(process_start(pid) != life for pid, life in lives.items()), 10.0)
