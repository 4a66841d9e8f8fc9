"""Supervisor: starts the house's processes, restarts what dies, stops them in order.

What to run is given (``ChildSpec``); this file knows no API, worker or watchdog. One supervisor a
data folder: a lock file says so. What a killed run left behind is ended before anything starts.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Literal

from unjam.core.errors import SetupError
from unjam.observe import words
from unjam.worker.children import Child, Command, end_process, spawn
from unjam.worker.embedded import READY_POLL_S, ServerPlan
from unjam.worker.identity import host_id, process_start
from unjam.worker.spares import Spares

FIRST_RESTART_S = 0.05
LONGEST_RESTART_S = 30.0
ENDED_RESTART_S = 1.0
"""The longest when somebody else ended it (kill -9, or asked to stop): waiting mends nothing."""

STEADY_S = 10.0
"""A child that lived this long is no crash-loop: its next restart is quick again."""

HURRY_S = 1.0
"""What is left to the children after a second signal."""

LEFTOVER_GRACE_S = 2.0

ENDINGS_KEPT = 100

LOCK_NAME = "unjam.lock"


class Tier(IntEnum):
    """Order of stopping; one tier is stopped together, and ended before the next begins."""

    API = 0
    WORKER = 1
    WATCHDOG = 2
    VECTORS = 3
    QUEUE = 4


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One process to keep alive. *log_name* is a file in the log folder, opened for appending."""

    name: str
    command: Command
    tier: Tier
    log_name: str
    ready: Callable[[], Awaitable[bool]] | None = None
    stop_grace_s: float = 30.0
    spawned: Callable[[Child], None] | None = None
    from_spare: bool = False  # a spare may take its place, see ``worker.spares``

    @staticmethod
    def of_server(plan: ServerPlan) -> ChildSpec:
        """An embedded server; stopped after everything that uses it."""
        tier = Tier.QUEUE if plan.name == "valkey" else Tier.VECTORS
        return ChildSpec(
            plan.name, plan.command, tier, f"{plan.name}.log", plan.ready, 10.0, plan.record
        )


@dataclass(frozen=True, slots=True)
class Happening:
    """Something the supervisor saw or did. *code* is negative for a signal."""

    what: Literal["started", "ready", "died", "restarting", "stopping", "stopped", "killed"]
    name: str
    pid: int = 0
    code: int | None = None
    delay_s: float = 0.0

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.code is None:
            return ""
        return f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"


@dataclass(slots=True)
class _Kept:
    spec: ChildSpec
    child: Child
    keeper: asyncio.Task[None] | None = None
    began: float = field(default_factory=time.monotonic)
    crashes: int = 0
    restarts: int = 0
    dismissed: bool = False  # it shall end, and not come back


class Supervisor:
    """``async with`` takes the data folder's lock and the signals SIGTERM, SIGINT and SIGHUP;
    leaving it stops whatever still runs. Belongs in the main thread.

    Raises:
        SetupError: another supervisor holds the data folder.
    """

    def __init__(
        self,
        data_dir: Path,
        log_dir: Path,
        listen: Callable[[Happening], None] = lambda _: None,
    ) -> None:
        self._data_dir = data_dir
        self._log_dir = log_dir
        self._listen = listen
        self._kept: dict[str, _Kept] = {}
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._lock = -1
        self._spares: Spares | None = None
        self.endings: asyncio.Queue[tuple[str, int]] = asyncio.Queue(ENDINGS_KEPT)
        self._signals: list[int] = []

    async def __aenter__(self) -> Supervisor:
        self._lock = hold(self._data_dir)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # nohup asks to stay when the terminal goes.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self.request_stop)
                self._signals.append(number)
        await self._end_leftovers()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.stop()
        finally:
            for number in self._signals:
                asyncio.get_running_loop().remove_signal_handler(number)
            os.close(self._lock)

    # -- starting ---------------------------------------------------------------------------
    async def start(self, specs: Sequence[ChildSpec], timeout_s: float = 60.0) -> None:
        """Start all of them together; returns when those with a probe answer, or on a signal.

        Raises:
            SetupError: one with a probe ended while it came up, or does not answer in time.
        """
        for spec in specs:
            kept = _Kept(spec, self._spawn(spec))
            self._kept[spec.name] = kept
        await asyncio.gather(*(self._until_ready(self._kept[s.name], timeout_s) for s in specs))
        for spec in specs:
            kept = self._kept[spec.name]
            kept.keeper = asyncio.create_task(self._keep(kept), name=f"keep {spec.name}")

    def keep_spare(self, command: Command) -> None:
        """Keep one process ready to become any child that is ``from_spare``."""
        self._spares = Spares(command, self._log_dir / "spare.log")
        self._spares.start(self._write_children)

    def _spawn(self, spec: ChildSpec) -> Child:
        log = self._log_dir / spec.log_name
        child: Child | None = None
        if spec.from_spare and self._spares is not None:
            child = self._spares.take(spec.name, spec.command, log)
        child = child or spawn(spec.name, spec.command, log)
        if spec.spawned is not None:
            spec.spawned(child)
        self._tell(Happening("started", spec.name, child.pid))
        return child

    async def _until_ready(self, kept: _Kept, timeout_s: float) -> None:
        spec, child = kept.spec, kept.child
        if spec.ready is not None:
            deadline = time.monotonic() + timeout_s
            while not self._stopping.is_set() and not await spec.ready():
                log = self._log_dir / spec.log_name
                if not child.alive():
                    raise SetupError(
                        f"{spec.name} ended with {Happening('died', '', code=child.code).how} "
                        "while it came up",
                        hint=f"Its log says why: {log}",
                    )
                if time.monotonic() > deadline:
                    raise SetupError(
                        f"{spec.name} did not answer within {timeout_s:.0f} s",
                        hint=f"Its log may say why: {log}",
                    )
                await asyncio.sleep(READY_POLL_S)
            self._tell(Happening("ready", spec.name, child.pid))
        self._write_children()

    # -- keeping alive ----------------------------------------------------------------------
    async def _keep(self, kept: _Kept) -> None:
        """Restart it whenever it ends, until everything stops."""
        while True:
            code = await kept.child.exited()
            if self._stopping.is_set():
                return
            lived_s = time.monotonic() - kept.began
            kept.crashes = 0 if lived_s >= STEADY_S else kept.crashes + 1
            ended = Happening("died", kept.spec.name, kept.child.pid, code)
            self._tell(ended)
            self._note_ending(kept.child, code)
            if kept.spec.tier is Tier.WORKER and code != 0:
                words.worker_terminated(kept.spec.name, kept.child.pid, ended.how)
            if kept.dismissed or not await self._restart(kept, code):
                return

    async def _restart(self, kept: _Kept, code: int) -> bool:
        """Start it again after a while; False when everything stops instead."""
        while True:
            delay = restart_delay_s(kept.crashes, code)
            self._tell(Happening("restarting", kept.spec.name, delay_s=delay))
            try:
                await asyncio.wait_for(self._stopping.wait(), delay)
                return False
            except TimeoutError:
                if self._stopping.is_set():
                    return False
            kept.began = time.monotonic()
            kept.restarts += 1
            try:
                kept.child = self._spawn(kept.spec)
            except OSError:  # no memory, no descriptors, disk full: that passes
                kept.crashes += 1
                continue
            self._write_children()
            return True

    def _note_ending(self, child: Child, code: int) -> None:
        """For whoever tells the ledger; without one the oldest are forgotten."""
        if self.endings.full():
            self.endings.get_nowait()
        self.endings.put_nowait((f"{host_id()}.{child.pid}.{child.start}", code))

    async def run(self) -> None:
        """Keep everything alive until a signal or ``request_stop``; then stop in order."""
        await self._stopping.wait()
        await self.stop()

    def request_stop(self) -> None:
        """Begin to stop. A second time (a second signal): the children get one more second."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    # -- stopping ---------------------------------------------------------------------------
    async def stop(self) -> None:
        """Stop tier by tier. Returns when nothing runs any more."""
        self._stopping.set()
        if self._spares is not None:
            await self._spares.stop()
        for tier in Tier:
            some = [kept for kept in self._kept.values() if kept.spec.tier is tier]
            await asyncio.gather(*(self._stop_one(kept) for kept in some))
        for kept in self._kept.values():
            if kept.keeper is not None:
                await kept.keeper
        self._kept.clear()
        (self._data_dir / "children.json").unlink(missing_ok=True)

    async def _stop_one(self, kept: _Kept) -> None:
        child = kept.child
        if not child.alive():
            return
        self._tell(Happening("stopping", kept.spec.name, child.pid))
        child.signal(signal.SIGTERM)
        if await self._within(child, kept.spec.stop_grace_s):
            self._tell(Happening("stopped", kept.spec.name, child.pid, child.code))
            return
        child.signal(signal.SIGKILL)
        await child.exited()
        self._tell(Happening("killed", kept.spec.name, child.pid, child.code))

    async def _within(self, child: Child, grace_s: float) -> bool:
        """Whether it ends within *grace_s*, or HURRY_S after a second signal."""
        ended = asyncio.ensure_future(child.exited())
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({ended, hurry}, timeout=grace_s, return_when="FIRST_COMPLETED")
            if not ended.done() and hurry.done():
                await asyncio.wait({ended}, timeout=min(HURRY_S, grace_s))
            return ended.done()
        finally:
            for task in (ended, hurry):
                task.cancel()
            await asyncio.gather(ended, hurry, return_exceptions=True)

    # -- one child --------------------------------------------------------------------------
    async def restart(self, name: str, grace_s: float) -> bool:
        """End *name* (SIGTERM, then after *grace_s* SIGKILL), so that its keeper starts it anew.
        False when there is none that runs."""
        kept = self._kept.get(name)
        if kept is None or self._stopping.is_set() or not kept.child.alive():
            return False
        await kept.child.stop(grace_s)
        return True

    async def dismiss(self, name: str, grace_s: float) -> bool:
        """End *name* for good. False when there is none."""
        kept = self._kept.get(name)
        if kept is None or self._stopping.is_set():
            return False
        kept.dismissed = True
        await kept.child.stop(grace_s)
        if kept.keeper is not None:
            await kept.keeper
        self._kept.pop(name, None)
        self._write_children()
        return True

    # -- facts ------------------------------------------------------------------------------
    def lives(self) -> dict[str, tuple[int, int | None]]:
        """Name → process id and start time (clock ticks since boot) of what runs now."""
        return {name: (kept.child.pid, kept.child.start) for name, kept in self._kept.items()}

    def tiers(self) -> dict[str, Tier]:
        return {name: kept.spec.tier for name, kept in self._kept.items()}

    def pids(self) -> dict[str, int]:
        """Name → process id of what is kept alive now."""
        return {name: kept.child.pid for name, kept in self._kept.items()}

    def restarts(self) -> dict[str, int]:
        """Name → how often it was restarted."""
        return {name: kept.restarts for name, kept in self._kept.items()}

    def _tell(self, happening: Happening) -> None:
        self._listen(happening)

    def _write_children(self) -> None:
        """Note who runs, for whoever comes after a kill of this process."""
        children = [k.child for k in self._kept.values()]
        if self._spares is not None and self._spares.child is not None:
            children.append(self._spares.child)
        entries = [[child.pid, child.start] for child in children]
        fresh = self._data_dir / "children.new"
        fresh.write_text(json.dumps({"host": host_id(), "children": entries}))
        fresh.replace(self._data_dir / "children.json")

    async def _end_leftovers(self) -> None:
        """End what a killed run left behind: it dies by itself, but its ports are wanted now."""
        try:
            noted = json.loads((self._data_dir / "children.json").read_text())
            pairs = [(int(pid), int(start)) for pid, start in noted["children"]]
            here = noted["host"] == host_id()
        except (OSError, ValueError, KeyError, TypeError):
            return
        living = [(pid, start) for pid, start in pairs if here and process_start(pid) == start]
        await asyncio.gather(*(end_process(p, s, LEFTOVER_GRACE_S) for p, s in living))


def restart_delay_s(crashes: int, code: int = 1) -> float:
    """Seconds before a restart: 50 ms for the first, doubling in a crash-loop up to 30 s, or
    up to 1 s when its *code* says that it was killed or asked to stop."""
    ended = code in (0, -signal.SIGTERM, -signal.SIGKILL)
    longest = ENDED_RESTART_S if ended else LONGEST_RESTART_S
    return min(longest, FIRST_RESTART_S * 2 ** min(max(crashes - 1, 0), 16))


def hold(data_dir: Path) -> int:
    """Take the data folder's lock for as long as the descriptor that comes back is open.

    Raises:
        SetupError: ``unjam up``, or a restore, holds it.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return _lock(data_dir / LOCK_NAME, data_dir)


def _lock(path: Path, data_dir: Path) -> int:
    """Hold *path* for this process's life; its descriptor."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(handle, 32).decode(errors="replace").strip()
        os.close(handle)
        raise SetupError(
            f"another `unjam up` runs on {data_dir} (process {holder or 'unknown'})",
            hint="Use that one, stop it first, or give this one another --data-dir.",
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle
