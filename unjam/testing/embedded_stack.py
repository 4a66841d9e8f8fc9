"""EmbeddedStack: a whole throw-away system with servers of its own, kept alive as by ``unjam up``.

Valkey, Chroma, workers and watchdogs are real processes under a real Supervisor; the embedding
endpoint is the fake one. Every fault is a verb here, so that storms, drills and benchmarks share
them. Documents enter through the intake of this process, as they do in the API's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import redis.asyncio as aredis

from unjam.app.services import Services
from unjam.stores.ledger import SqlLedger
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.slow_line import SlowLine
from unjam.testing.stack import Stack
from unjam.worker.children import Command
from unjam.worker.embedded import ServerPlan, plan_chroma, plan_valkey
from unjam.worker.exits import follow_exits
from unjam.worker.identity import process_start
from unjam.worker.remedies import Remedies
from unjam.worker.supervisor import ChildSpec, Happening, Supervisor, Tier

QUICK = {
    "RAG_EMBEDDING_MODEL": "fake-256",
    "RAG_EMBEDDING_RATE_LIMIT": "1000000",
    "RAG_MAX_CHUNK_SIZE": "64",
    "RAG_CHUNK_OVERLAP": "8",
}
"""Small chunks, and no limit that a short run would wait for."""


@dataclass
class EmbeddedStack:
    """``async with EmbeddedStack(folder) as stack``; in the main thread. Nothing of it outlives
    the block.

    *slow*: servers (valkey, chroma) that everybody reaches through a line of ``lines``, which are
    then no servers of ours. *inside*: what goes before the watchdogs' command line, as ``unshare``.
    """

    data_dir: Path
    workers: int = 2
    watchdogs: int = 1
    database_url: str = ""
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    listen: Callable[[Happening], None] = lambda _: None
    slow: Sequence[str] = ()
    inside: Sequence[str] = ()
    lines: dict[str, SlowLine] = field(default_factory=dict[str, SlowLine])
    _open_lines: AsyncExitStack = field(default_factory=AsyncExitStack)
    _ear: asyncio.Task[None] | None = None
    _noting: asyncio.Task[None] | None = None
    _parts: tuple[Supervisor, FakeOpenAI, Stack, dict[str, ServerPlan]] | None = None

    async def __aenter__(self) -> EmbeddedStack:
        endpoint = FakeOpenAI().start()
        supervisor = Supervisor(self.data_dir, self.data_dir / "logs", self.listen)
        try:
            await supervisor.__aenter__()
            plans = {
                plan.name: plan
                for plan in await asyncio.gather(
                    plan_valkey(self.data_dir, 0), plan_chroma(self.data_dir, 0)
                )
            }
            await supervisor.start([ChildSpec.of_server(plan) for plan in plans.values()])
            stack = Stack(
                self.data_dir,
                await self._url(plans["valkey"]),
                await self._url(plans["chroma"]),
                endpoint.url,
                self.database_url,
                {**QUICK, **self.extra},
            )
            await stack.__aenter__()
            self._parts = (supervisor, endpoint, stack, plans)
            self._noting = asyncio.create_task(follow_exits(supervisor, stack.services.ledger))
            await supervisor.start(self._specs(stack))
            env = stack.environment()
            supervisor.keep_spare(Command.python("unjam.app.spare", title="unjam spare", env=env))
            book = stack.services.ledger
            assert isinstance(book, SqlLedger)
            remedies = Remedies(supervisor, book, lambda n: self._worker(stack, n))
            self._ear = asyncio.create_task(remedies.follow())
        except BaseException:
            await supervisor.__aexit__(None, None, None)
            await self._open_lines.aclose()
            endpoint.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.thaw()
        if self._ear is not None:
            self._ear.cancel()
            await asyncio.gather(self._ear, return_exceptions=True)
        self.endpoint.control(fault="")
        if self._noting is not None:
            self._noting.cancel()
        await self.supervisor.__aexit__(kind, error, trace)
        await self.stack.__aexit__(kind, error, trace)
        await self._open_lines.aclose()
        self.endpoint.close()

    async def _url(self, plan: ServerPlan) -> str:
        """Where the server is for everybody."""
        if plan.name not in self.slow:
            return plan.url
        line = await self._open_lines.enter_async_context(SlowLine(plan.port))
        self.lines[plan.name] = line
        return plan.url.replace(f":{plan.port}", f":{line.port}")

    def _specs(self, stack: Stack) -> list[ChildSpec]:
        dogs = [
            self._child(stack, f"watchdog-{n}", "unjam watchdog", Tier.WATCHDOG, "watchdog")
            for n in range(1, self.watchdogs + 1)
        ]
        return dogs + [self._worker(stack, n) for n in range(1, self.workers + 1)]

    def _worker(self, stack: Stack, n: int) -> ChildSpec:
        title = f"rq worker rag_processing (unjam {n})"
        return self._child(stack, f"worker-{n}", title, Tier.WORKER, "worker")

    def _child(self, stack: Stack, name: str, title: str, tier: Tier, verb: str) -> ChildSpec:
        command = Command.python("unjam.cli.main", [verb], title=title, env=stack.environment())
        if tier is Tier.WATCHDOG and self.inside:
            program, *before = self.inside
            found = shutil.which(program) or program
            argv = [*before, *command.line()]
            command = Command.foreign(found, argv, env=command.environment())
        spare = tier is Tier.WORKER
        return ChildSpec(name, command, tier, f"{name}.log", from_spare=spare)

    @property
    def supervisor(self) -> Supervisor:
        assert self._parts is not None, "use `async with`"
        return self._parts[0]

    @property
    def endpoint(self) -> FakeOpenAI:
        assert self._parts is not None, "use `async with`"
        return self._parts[1]

    @property
    def stack(self) -> Stack:
        assert self._parts is not None, "use `async with`"
        return self._parts[2]

    @property
    def plans(self) -> Mapping[str, ServerPlan]:
        assert self._parts is not None, "use `async with`"
        return self._parts[3]

    @property
    def services(self) -> Services:
        return self.stack.services

    @property
    def chroma_url(self) -> str:
        return self.plans["chroma"].url

    # -- faults -----------------------------------------------------------------------------
    def names(self, kind: str) -> list[str]:
        """The children whose name begins with *kind*: worker, watchdog, valkey, chroma."""
        return [name for name in sorted(self.supervisor.pids()) if name.startswith(kind)]

    def hit(self, name: str, number: int) -> bool:
        """Send a signal to the child *name*; False when it is not there at this moment."""
        return _signal(self.supervisor.pids()[name], number)

    async def freeze(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT to the same process *seconds* later."""
        pid = self.supervisor.pids()[name]
        start = process_start(pid)
        if start is None or not _signal(pid, signal.SIGSTOP):
            return
        try:
            await asyncio.sleep(seconds)
        finally:
            if process_start(pid) == start:
                _signal(pid, signal.SIGCONT)

    def thaw(self) -> None:
        """SIGCONT to every child."""
        for name in self.supervisor.pids():
            self.hit(name, signal.SIGCONT)

    def lose_redis(self) -> None:
        """kill -9 of Valkey, whose data is gone when it is back."""
        shutil.rmtree(self.data_dir / "valkey" / "appendonlydir", ignore_errors=True)
        self.hit("valkey", signal.SIGKILL)

    async def flush_redis(self) -> None:
        """FLUSHALL by an administrator. Raises redis.RedisError while Valkey is away."""
        admin = aredis.Redis.from_url(self.plans["valkey"].admin_url, socket_timeout=5.0)
        try:
            await admin.flushall()
        finally:
            await admin.aclose()

    # -- facts ------------------------------------------------------------------------------
    async def processes_ready(self) -> bool:
        """Whether as many workers and watchdogs as wanted report to the ledger, all alive."""
        pids = set(self.supervisor.pids().values())
        seen = {ref.pid for ref, age_s in await self.services.ledger.processes() if age_s < 5.0}
        return len(pids & seen) >= self.workers + self.watchdogs

    def log(self, name: str) -> str:
        """What the child *name* has printed."""
        return (self.data_dir / "logs" / f"{name}.log").read_text(errors="replace")


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


class Timeline:
    """What happened when, in seconds since the timeline began."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.entries: list[tuple[float, str]] = []

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began

    def add(self, what: str) -> None:
        self.entries.append((self.now_s, what))

    def __str__(self) -> str:
        return "\n".join(f"{at:7.2f} s  {what}" for at, what in self.entries)
