"""Children: processes that die with us, have a log and a title, and are signalled without mistake.

Each is the leader of its own session, so that a Ctrl-C at the terminal reaches only the top, which
then stops them in order. They are spawned from the main thread (see ``boot``).
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import unjam
from unjam.worker.identity import process_start

KILL_WAIT_S = 5.0
"""How long the kernel may take to end a process after SIGKILL."""

_SHIM = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[2]), 0, 0, 0)
if os.getppid() != int(sys.argv[1]): os._exit(0)
os.execv(sys.argv[3], sys.argv[4:])
"""
"""Ties a foreign program to us before it begins; 10 ms. (``preexec_fn`` would run Python between
fork and exec of a process that may have threads; the death signal survives exec.)"""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. A *module* runs in this Python under *title*; else *program* is executed."""

    argv: tuple[str, ...]
    module: str = ""
    program: str = ""
    title: str = ""
    env: tuple[tuple[str, str], ...] = ()
    death_signal: int = signal.SIGTERM

    @staticmethod
    def python(
        module: str,
        argv: Sequence[str] = (),
        *,
        title: str,
        env: Mapping[str, str] | None = None,
        death_signal: int = signal.SIGTERM,
    ) -> Command:
        """``python -m module argv…``, shown as *title*. Ends at most 8 s after its parent."""
        extra = tuple((env or {}).items())
        return Command(tuple(argv), module, "", title, extra, death_signal)

    @staticmethod
    def foreign(
        program: str | Path,
        argv: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        death_signal: int = signal.SIGKILL,
    ) -> Command:
        """A program under its own name. *death_signal* must end it at once."""
        extra = tuple((env or {}).items())
        return Command(tuple(argv), "", str(program), Path(program).name, extra, death_signal)

    def line(self) -> list[str]:
        """The arguments to execute, from this process."""
        parent, death = str(os.getpid()), str(int(self.death_signal))
        if self.module:
            boot = [sys.executable, "-P", "-m", "unjam.worker.boot"]
            return [*boot, self.title, parent, death, self.module, *self.argv]
        shim = [sys.executable, "-I", "-S", "-c", _SHIM, parent, death]
        return [*shim, self.program, self.title, *self.argv]

    def environment(self) -> dict[str, str]:
        home = str(Path(unjam.__file__).parents[1])
        path = os.environ.get("PYTHONPATH", "")
        if self.module and "site-packages" not in home:  # a clone: `-P` hides the working folder
            path = os.pathsep.join([home, path]) if path else home
        own = {"PYTHONPATH": path} if path else {}
        return {**os.environ, **own, **dict(self.env)}


class Child:
    """A process that we started. ``exited`` resolves once; ``code`` is negative for a signal."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.pid = process.pid
        self.start = process_start(process.pid)
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._reaped = False

    @property
    def code(self) -> int | None:
        """Exit status, None while it runs."""
        return self._process.returncode

    def alive(self) -> bool:
        """Whether it still runs; reaps it when it does not."""
        if self._reaped:
            return False
        done = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if done is None:
            return True
        self._reap()
        return False

    def _reap(self) -> None:
        """Collect it, after what is left of its process group: its number is still ours."""
        if self._reaped:
            return
        self._reaped = True
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self._process.wait()
        os.close(self._pidfd)

    def signal(self, number: int) -> bool:
        """Send it to exactly this process; False when it ended already."""
        if not self.alive():
            return False
        signal.pidfd_send_signal(self._pidfd, number)
        return True

    def tell(self, line: str) -> bool:
        """Write *line* to its standard input and close that; False when it cannot hear it."""
        pipe = self._process.stdin
        if pipe is None or not self.alive():
            return False
        try:
            pipe.write(line.encode() + b"\n")
            pipe.close()
        except OSError:
            return False
        return True

    async def exited(self) -> int:
        """Wait for its end; its status."""
        loop = asyncio.get_running_loop()
        while self.alive():
            # A duplicate each: several may wait, and a loop watches a descriptor only once.
            watch = os.dup(self._pidfd)
            done: asyncio.Future[None] = loop.create_future()
            loop.add_reader(watch, _resolve, done)
            try:
                await done
            finally:
                loop.remove_reader(watch)
                os.close(watch)
        return self._process.returncode

    async def stop(self, grace_s: float = 10.0) -> int:
        """SIGTERM, then after *grace_s* SIGKILL; its status."""
        self.signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.exited(), grace_s)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return await asyncio.wait_for(self.exited(), KILL_WAIT_S)


def _resolve(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def spawn(name: str, command: Command, log: Path | None = None, *, listens: bool = False) -> Child:
    """Start *command*; its output is appended to *log*. *listens*: to ``Child.tell``.

    Raises:
        RuntimeError: not called from the main thread, whose end is the children's.
        OSError: it cannot be executed, or *log* not be written.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children are spawned from the main thread")
    target = subprocess.DEVNULL
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            command.line(),
            env=command.environment(),
            stdin=subprocess.PIPE if listens else subprocess.DEVNULL,
            stdout=target,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        if log is not None:
            os.close(target)
    return Child(name, process)


async def end_process(pid: int, start: int, grace_s: float = 5.0) -> None:
    """End a process that is not our child, if it still is the one that began at *start*."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The descriptor holds on to one process: its start time is checked after opening it.
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_WAIT_S)):
            if process_start(pid) != start:
                return
            signal.pidfd_send_signal(pidfd, number)
            await _ended(pidfd, wait_s)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


async def _ended(pidfd: int, timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _resolve, done)
    try:
        await asyncio.wait([done], timeout=timeout_s)
    finally:
        loop.remove_reader(pidfd)
