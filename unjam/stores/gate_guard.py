"""The gate's guard: a frozen process must not keep everybody out.

A process that is stopped (SIGSTOP, Ctrl-Z) inside the gate holds the one lock that every writer
needs: no heartbeat, no upload, no claim, and no remedy that is asked for through the ledger. So
those who wait look after it themselves, with nothing but the kernel's word: ``/proc/locks`` says
who holds the lock, ``/proc/<pid>/stat`` whether it is stopped. No note of our own can go stale
between the lock and the note, and no other process is needed: stock workers are covered, too.

A stopped holder is woken (SIGCONT): it finishes its transaction, which is as valid as ever, since
nobody could write meanwhile. One that stands still again and again is killed; what it held is
rolled back. Both are safe by the laws of the house, waking costs nobody anything. A process that is
not stopped (slow, in a dying disk, under a debugger, in another container) is left alone: those
who wait run out of patience and say so.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

LOOK_S = 0.5
"""How often a waiter's process looks. A turn takes milliseconds, so most never do."""

FROZEN_S = 1.5
"""Stopped inside the gate for this long: no accident of scheduling. Well below what a lease has
left at worst when the freeze begins (8 s), with the second step after it."""

STUBBORN_S = 2.0
"""Woken this long ago, still inside and stopped: somebody stops it again."""

WAKES = 3
"""So often one process is woken; the next time that it stands in the way, it is killed."""


@dataclass(frozen=True, slots=True)
class Freed:
    """A process that was stopped inside the gate, and what was done about it."""

    pid: int
    title: str
    stood_s: float
    how: Literal["woken", "killed"]


class Waiter(Protocol):
    """A gate, as the guard sees it."""

    waiting_since: float | None

    @property
    def locks(self) -> tuple[int, ...]: ...


@dataclass(slots=True)
class _Stopped:
    """What is known of a holder that stands still."""

    start: int
    since: float
    woken_at: float | None = None


@dataclass(frozen=True, slots=True)
class _Process:
    state: str
    start: int
    traced: bool


class Guard:
    """One for all gates of a ledger. Its thread begins with the first wait, and sleeps without."""

    def __init__(self, freed: Callable[[Freed], None] = lambda _: None) -> None:
        self._freed = freed
        self._gates: list[Waiter] = []
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopped: dict[int, _Stopped] = {}
        self._wakes: dict[tuple[int, int], int] = {}  # by process id and start
        self.sees = ""
        """Who was in the gate at the last look, in words; empty: unknown or nobody."""

    def add(self, gate: Waiter) -> None:
        with self._lock:
            self._gates.append(gate)

    def remove(self, gate: Waiter) -> None:
        with self._lock, suppress(ValueError):
            self._gates.remove(gate)

    def watch(self) -> None:
        """Somebody waits (and says so in ``waiting_since``)."""
        if self._wanted.is_set():
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gate-guard", daemon=True)
                self._thread.start()
        self._wanted.set()

    def close(self) -> None:
        self._closed.set()
        self._wanted.set()

    # -- in the thread ----------------------------------------------------------------------
    def _run(self) -> None:
        while True:
            self._wanted.wait()
            if self._closed.wait(LOOK_S):
                return
            # Cleared before it is asked who waits: whoever comes later sets it again.
            self._wanted.clear()
            with self._lock:
                waiting = [g for g in self._gates if g.waiting_since is not None]
                if waiting:
                    self._wanted.set()
                # Under the lock: a gate that is closed afterwards has left the list before.
                locks = {_identity(lock) for g in waiting if _long(g) for lock in g.locks}
            try:
                self._look(locks)
            except Exception as error:  # whatever it is, this thread must look again
                self.sees = f"nobody can look at the gate: {type(error).__name__}: {error}"

    def _look(self, locks: set[tuple[int, int]]) -> None:
        sees: list[str] = []
        inside: set[int] = set()
        for pid in holders(locks) if locks else ():
            process = _process(pid)
            if process is None or pid == os.getpid():
                continue
            if process.state != "T" or process.traced:
                sees.append(f"process {pid} ({_title(pid)}, {_words(process)}) is in the gate")
                continue
            inside.add(pid)
            sees.append(f"process {pid} ({_title(pid)}) is stopped inside the gate")
            self._treat(pid, process.start, locks)
        for pid in self._stopped.keys() - inside:
            del self._stopped[pid]
        if locks and not sees:
            sees.append("who is in the gate cannot be seen from here")
        self.sees = "; ".join(sees)

    def _treat(self, pid: int, start: int, locks: set[tuple[int, int]]) -> None:
        now = time.monotonic()
        known = self._stopped.get(pid)
        if known is None or known.start != start:
            self._stopped[pid] = _Stopped(start, now)
            return
        if known.woken_at is not None:
            due, how = now - known.woken_at >= STUBBORN_S, "killed"
        else:
            often = self._wakes.get((pid, start), 0) >= WAKES
            due, how = now - known.since >= FROZEN_S, "killed" if often else "woken"
        if not due:
            return
        stood_s, title = now - known.since, _title(pid)
        if _send(pid, start, signal.SIGCONT if how == "woken" else signal.SIGKILL, locks):
            known.woken_at = now
            self._wakes[pid, start] = self._wakes.get((pid, start), 0) + 1
            self._freed(Freed(pid, title, stood_s, how))


def _long(gate: Waiter) -> bool:
    since = gate.waiting_since
    return since is not None and time.monotonic() - since >= LOOK_S


def _identity(lock: int) -> tuple[int, int]:
    stat = os.fstat(lock)
    return stat.st_dev, stat.st_ino


def holders(locks: set[tuple[int, int]]) -> list[int]:
    """Processes that hold one of these files (device, inode) by ``flock``, as seen from this pid
    namespace; those of other containers are not shown."""
    inodes = {inode for _, inode in locks}
    found: list[int] = []
    for line in Path("/proc/locks").read_text().splitlines():
        # "3: FLOCK  ADVISORY  WRITE 4711 fe:00:2375698 0 EOF"; one who waits has "->" second.
        fields = line.split()
        if len(fields) < 6 or fields[1] != "FLOCK":
            continue
        pid, inode = int(fields[4]), int(fields[5].rpartition(":")[2])
        # Inodes repeat on other devices, and some file systems name another device here than stat.
        if pid > 0 and inode in inodes and _has_open(pid, locks):
            found.append(pid)
    return found


def _has_open(pid: int, wanted: set[tuple[int, int]]) -> bool:
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                stat = entry.stat()
                if (stat.st_dev, stat.st_ino) in wanted:
                    return True
    return False


def _process(pid: int) -> _Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return _Process(fields[0], int(fields[19]), "\nTracerPid:\t0\n" not in status)


def _send(pid: int, start: int, number: int, locks: set[tuple[int, int]]) -> bool:
    """Signal exactly this process, if it is still what it was seen to be."""
    try:
        # The descriptor holds on to one process: everything is checked after opening it.
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        process = _process(pid)
        if process is None or process.start != start or process.state != "T" or process.traced:
            return False
        if pid not in holders(locks):
            return False
        signal.pidfd_send_signal(pidfd, number)
    except OSError:  # it ended, or is another user's: patience runs out instead
        return False
    finally:
        os.close(pidfd)
    return True


def _title(pid: int) -> str:
    """What it calls itself; of a command line the first word only: the rest may be anybody's."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
    except OSError:
        return "unknown"
    return line.decode(errors="replace").rpartition("/")[2][:60] or "unknown"


def _words(process: _Process) -> str:
    if process.traced:
        return "under a debugger"
    return {"D": "waiting for the disk", "R": "running"}.get(process.state, "not stopped")
