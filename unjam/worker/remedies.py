"""The supervisor's ear: carries out on this host what the watchdog asks for in the ledger.

A request names the life of a process (host, pid, start time); a successor is never hit, and
nothing that is not our child is touched, but for units and containers that the operator named.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from unjam.core.errors import DependencyDown
from unjam.core.incident import RemedyRequest
from unjam.core.ports import IncidentBook, Ledger
from unjam.observe import words
from unjam.worker.identity import is_stopped, process_identity
from unjam.worker.supervisor import ChildSpec, Supervisor, Tier

POLL_S = 0.5
BEAT_S = 2.0
WORKERS_AT_MOST = 3
"""Started where none was wanted: as many as the runbook starts by hand."""

GRACE_S = 12.0
"""A worker that hangs does not drain; a healthy one hands back within this."""

UNIT_S = 60.0


class Book(Ledger, IncidentBook, Protocol):
    """Ledger and book of incidents in one, as ``SqlLedger`` is."""


@dataclass(slots=True)
class Remedies:
    """``follow`` until cancelled. *more* makes the spec of worker number n."""

    supervisor: Supervisor
    book: Book
    more: Callable[[int], ChildSpec]
    allowed: Sequence[str] = ()
    _taken: set[int] = field(default_factory=set[int])
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def follow(self) -> None:
        me = process_identity("supervisor")
        beaten = float("-inf")
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    if loop.time() - beaten >= BEAT_S:
                        await asyncio.to_thread(self.book.renew, me, {}, ())
                        beaten = loop.time()
                        if self.book.newer:  # its workers have drained, or will
                            words.ledger_newer(self.book.newer)
                    for request in await self.book.remedies_asked(me.host):
                        self._begin(request)
                except DependencyDown as error:  # the children run on; requests wait
                    words.dependency_lost(error.code, error.detail)
                except Exception as error:  # the next look must come
                    words.watchdog_fault(error)
                await asyncio.sleep(POLL_S)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            with contextlib.suppress(DependencyDown):
                await self.book.retire(me.id)

    def _begin(self, request: RemedyRequest) -> None:
        if request.id not in self._taken:
            self._taken.add(request.id)
            task = asyncio.create_task(self._serve(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: RemedyRequest) -> None:
        try:
            outcome = await self.carry_out(request)
        except Exception as error:
            outcome = f"failed: {type(error).__name__}: {error}"
        while True:
            try:
                await self.book.answer_remedy(request.id, outcome)
                return
            except DependencyDown:
                await asyncio.sleep(POLL_S)

    async def carry_out(self, request: RemedyRequest) -> str:
        """``done``, ``gone`` or ``refused: why``."""
        match request.action:
            case "restart" if request.target.startswith("unit:"):
                return await self._restart_unit(request.target.removeprefix("unit:"))
            case "restart" | "stop_worker":
                name = self._child_of(request.process_id)
                if name is None:
                    return "gone"
                if request.action == "stop_worker":
                    return "done" if await self.supervisor.dismiss(name, GRACE_S) else "gone"
                return (
                    "done" if await self.supervisor.restart(name, self._grace_s(name)) else "gone"
                )
            case "start_worker":
                return await self._start_workers()

    def _grace_s(self, name: str) -> float:
        """Nothing for a process that is stopped: it cannot hear that it should end."""
        pid, _ = self.supervisor.lives().get(name, (0, None))
        return 0.0 if is_stopped(pid) else GRACE_S

    def _child_of(self, process_id: str) -> str | None:
        """The child whose present life *process_id* (``WorkerRef.id``) names."""
        host = process_identity().host
        for name, (pid, start) in self.supervisor.lives().items():
            if process_id == f"{host}.{pid}.{start}":
                return name
        return None

    async def _start_workers(self) -> str:
        have = [n for n, tier in self.supervisor.tiers().items() if tier is Tier.WORKER]
        if have:
            return "refused: it keeps workers already, and restarts each that ends"
        specs = [self.more(n) for n in range(1, WORKERS_AT_MOST + 1)]
        await self.supervisor.start(specs)
        return "done"

    async def _restart_unit(self, unit: str) -> str:
        """A unit of systemd, or with ``docker:NAME`` a container; only those that were named."""
        if unit not in self.allowed:
            return f"refused: {unit} was not named with --allow-restart"
        kind, _, name = unit.rpartition(":")
        program = shutil.which("docker" if kind == "docker" else "systemctl")
        if program is None or not name or name.startswith("-"):
            return f"refused: {unit} cannot be restarted from here"
        process = await asyncio.create_subprocess_exec(
            program,
            "restart",
            name,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(UNIT_S):
                _, told = await process.communicate()
        except TimeoutError:
            process.kill()
            return f"failed: {unit} did not restart within {UNIT_S:.0f} s"
        if process.returncode:
            return f"failed: {told.decode(errors='replace').strip()[:200]}"
        return "done"
