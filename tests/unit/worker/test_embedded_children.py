"""Children die with their parent, have a title and a log, and are signalled without mistake."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unjam.worker.children import Command, end_process, spawn
from unjam.worker.identity import host_id, is_alive, process_identity, process_start


def until(condition: Callable[[], object], deadline_s: float = 10.0) -> None:
    """Wait for *condition*, by looking: other processes give no event."""
    ends = time.monotonic() + deadline_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < ends, "did not happen in time"
        pause.wait(0.01)


def cmdline(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str], tuple[str, dict[str, str]]]:
    """Write a module; its name and the environment in which it can be imported."""

    def write(body: str) -> tuple[str, dict[str, str]]:
        (tmp_path / "little_child.py").write_text(textwrap.dedent(body))
        return "little_child", {"PYTHONPATH": str(tmp_path)}

    return write


async def test_output_is_appended_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "echo.log"
    for word in ("one", "two"):
        child = spawn("echo", Command.foreign("/bin/echo", [word]), log)
        assert await child.exited() == 0
    assert log.read_text() == "one\ntwo\n"
    assert log.stat().st_mode & 0o777 == 0o600


async def test_title_and_virtual_environment(tmp_path: Path, module) -> None:  # type: ignore[no-untyped-def]
    name, env = module(
        """
        import sys, time, redis
        print(sys.argv, sys.prefix, sys.executable, flush=True)
        time.sleep(60)
        """
    )
    log = tmp_path / "log"
    title = "rq worker rag_processing (unjam 1)"
    child = spawn("w", Command.python(name, ["--a", "b c"], title=title, env=env), log)
    until(lambda: cmdline(child.pid))  # the kernel shows nothing for the moment of the exec
    assert title in cmdline(child.pid), "pkill -f must meet it from the first moment"
    until(lambda: log.read_text().endswith("\n"))
    assert cmdline(child.pid) == title
    assert log.read_text().strip() == (
        f"['{env['PYTHONPATH']}/little_child.py', '--a', 'b c'] {sys.prefix} {sys.executable}"
    )
    assert await child.stop() == -signal.SIGTERM


async def test_stop_kills_what_does_not_listen(tmp_path: Path, module) -> None:  # type: ignore[no-untyped-def]
    name, env = module(
        """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        time.sleep(60)
        """
    )
    log = tmp_path / "log"
    child = spawn("deaf", Command.python(name, title="deaf", env=env), log)
    until(lambda: "ready" in log.read_text())
    assert await child.stop(0.1) == -signal.SIGKILL
    assert not child.alive()
    assert not child.signal(signal.SIGTERM), "its number may be somebody else's now"


async def test_several_may_wait_for_one_end() -> None:
    child = spawn("sleep", Command.foreign("/bin/sleep", ["60"]))
    waiting = [asyncio.ensure_future(child.exited()) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0.05)
    child.signal(signal.SIGKILL)
    assert await asyncio.wait_for(asyncio.gather(*waiting), 5) == [-9, -9, -9]


async def test_grandchildren_go_with_their_group(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "sleep 60 & echo $! ; kill -9 $$"
    child = spawn("sh", Command.foreign("/bin/sh", ["-c", script]), log)
    assert await child.exited() == -signal.SIGKILL
    pid = int(log.read_text())
    until(lambda: process_start(pid) is None)


@pytest.mark.parametrize("kind", ["foreign", "python"])
def test_no_child_outlives_its_parent(tmp_path: Path, kind: str) -> None:
    """A kill -9 of the parent ends both kinds of children."""
    command = {
        "foreign": "Command.foreign('/bin/sleep', ['60'])",
        "python": "Command.python('timeit', ['-n1', '-r1', 'import time; time.sleep(60)'],"
        " title='t')",
    }[kind]
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from unjam.worker.children import Command, spawn\n"
        f"child = spawn('c', {command}, Path({str(tmp_path / 'log')!r}))\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=env) as top:
        assert top.stdout is not None
        pid = int(top.stdout.readline())
        start = process_start(pid)
        until(lambda: "prctl" not in cmdline(pid) and cmdline(pid) not in ("", " "))
        top.kill()
        top.wait()
    until(lambda: process_start(pid) != start, 3.0)


async def test_only_the_main_thread_spawns() -> None:
    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.to_thread(spawn, "x", Command.foreign("/bin/true"))


async def test_end_process_spares_a_reused_number() -> None:
    child = spawn("sleep", Command.foreign("/bin/sleep", ["60"]))
    assert child.start is not None
    await end_process(child.pid, child.start + 1)
    assert child.alive()
    await end_process(child.pid, child.start)
    assert not child.alive()
    await end_process(child.pid, child.start)


async def test_identity_is_of_one_life() -> None:
    me = process_identity("worker")
    assert me.id == f"{host_id()}.{os.getpid()}.{process_start(os.getpid())}"
    assert is_alive(me) is True
    child = spawn("sleep", Command.foreign("/bin/sleep", ["60"]))
    ref = process_identity("stock", child.pid)
    assert is_alive(ref) is True
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: is_alive(ref) is False)  # a zombie is dead, though it has a number
    assert await child.exited() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        process_identity("worker", child.pid)


def test_identity_of_another_host_is_unknown() -> None:
    me = process_identity("worker")
    elsewhere = type(me)(f"far-away.{me.pid}.1", "far-away", me.pid, me.version)
    assert is_alive(elsewhere) is None
    reused = type(me)(f"{me.host}.{me.pid}.1", me.host, me.pid, me.version)
    assert is_alive(reused) is False
