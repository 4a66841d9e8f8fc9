"""``unjam bulk``: read a source into the lane ``rag_bulk`` and work on it until all has ended.

The workers are ordinary ones, of a lane of their own: leases, fencing, the cache, the governor and
the two confirmations hold as they do for uploads, so any of them, or all, may be killed. What an
engine decides is only where registrars and workers run.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from unjam.app.bulk.follow import Follow, Progress
from unjam.app.bulk.register import Registered
from unjam.app.bulk.texts import Reading, Unfit
from unjam.app.house import found
from unjam.app.services import Services, open_services
from unjam.core.document import State
from unjam.core.errors import DependencyDown, SetupError
from unjam.core.ports import Equation
from unjam.queue.lanes import BULK
from unjam.settings import Settings
from unjam.stores.bulk_source import Kind, Part

Engine = Literal["local", "ray"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)

FAILED_S = 1.0

LISTENS_S = 120.0
"""How long the first worker may take to listen. Nothing enters the lane before: one that nobody
listens to gives its documents to ``rag_processing``."""


@dataclass(frozen=True, slots=True)
class BulkOptions:
    """*share_percent*: back-fill begins nothing while more of RAG_MAX_CONCURRENT_JOBS is in use.
    *address*: of a running Ray; "": one is started here."""

    reading: Reading
    engine: Engine = "local"
    kind: Kind | None = None
    workers: int = 2
    share_percent: int = 75
    address: str = ""


@dataclass(frozen=True, slots=True)
class BulkReport:
    """*new* documents were accepted by this run, *done_before* searchable when it began, *states*
    is how the others ended; *unfit* the first rows or files that cannot become documents."""

    new: int
    done_before: int
    states: dict[str, int]
    open: int
    unfit_count: int
    unfit: tuple[Unfit, ...]
    seconds: float
    per_s: float
    equation: Equation
    stopped: bool = False

    @property
    def whole(self) -> bool:
        """Everything that the source holds is searchable."""
        searchable = self.states.get(State.SEARCHABLE.value, 0)
        return not (self.unfit_count or self.open or sum(self.states.values()) - searchable)


class BulkEngine(Protocol):
    """Where registrars and workers run. ``async with`` it: afterwards none runs any more."""

    async def __aenter__(self) -> BulkEngine: ...

    async def __aexit__(self, *_: object) -> None: ...

    def failed(self) -> str:
        """Why no worker will ever run; "": they do, or come back."""
        ...

    def registered(self, parts: list[Part]) -> AsyncGenerator[Registered]:
        """Reads the parts into the ledger. May repeat what it said already."""
        ...


@dataclass(slots=True)
class Telling:
    """Whom to tell what, while it runs."""

    progress: Callable[[Progress], None] = lambda _: None
    say: Callable[[str], None] = lambda _: None


async def bulk(
    settings: Settings, options: BulkOptions, telling: Telling | None = None
) -> BulkReport:
    """Until all has ended, or a signal asks to stop: the workers then drain, and ordinary ones, or
    the next run, go on.

    Raises:
        UsageError: the source cannot be read. SetupError: no system is known here, a package is
        missing, or no worker comes up. DependencyDown: ledger_unwritable.
    """
    telling = telling or Telling()
    settings = found(settings)
    services = await open_services(settings, role="api")
    began = time.monotonic()
    follow = Follow(services.ledger, telling.progress)
    stopping = asyncio.Event()
    _hear(stopping)
    try:
        parts = await asyncio.to_thread(lambda: list(options.reading.source.parts(options.kind)))
        async with _engine(services, options, telling.say) as engine:
            _hear(stopping)  # Ray takes SIGTERM for itself while it starts, and would abort
            work = asyncio.create_task(_work(services, engine, parts, follow))
            stop = asyncio.create_task(stopping.wait())
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            stopped = not work.done()
            for task in (work, stop):
                task.cancel()
            await asyncio.gather(work, stop, return_exceptions=True)
            if not stopped:
                work.result()
        seconds = time.monotonic() - began
        return BulkReport(
            new=follow.new,
            done_before=follow.done_before,
            states={state.value: n for state, n in follow.states.items()},
            open=follow.open,
            unfit_count=follow.unfit_count,
            unfit=tuple(follow.unfit),
            seconds=seconds,
            per_s=follow.ended / seconds,
            equation=await services.ledger.equation(),
            stopped=stopped,
        )
    finally:
        for signum in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(signum)
        await services.close()


def _hear(stopping: asyncio.Event) -> None:
    for signum in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)


async def _work(services: Services, engine: BulkEngine, parts: list[Part], follow: Follow) -> None:
    """Raises SetupError: the workers are gone for good."""
    await _listens(services, engine)
    following = asyncio.create_task(follow.run())
    reading = asyncio.create_task(_read(engine, parts, follow))
    failing = asyncio.create_task(_fails(engine))
    try:
        for needed in (reading, following):
            await asyncio.wait({needed, failing}, return_when=asyncio.FIRST_COMPLETED)
            await (needed if needed.done() else failing)
    finally:
        for task in (following, reading, failing):
            task.cancel()
        await asyncio.gather(following, reading, failing, return_exceptions=True)


async def _read(engine: BulkEngine, parts: list[Part], follow: Follow) -> None:
    async with contextlib.aclosing(engine.registered(parts)) as registered:
        async for some in registered:
            follow.add(some)
    follow.whole = True


async def _fails(engine: BulkEngine) -> None:
    while True:
        if why := engine.failed():
            raise SetupError(
                f"no worker of the back-fill runs any more: {why}",
                hint="What was accepted goes on with ordinary workers. Run it again for the rest.",
            )
        await asyncio.sleep(FAILED_S)


async def _listens(services: Services, engine: BulkEngine) -> None:
    deadline = time.monotonic() + LISTENS_S
    while True:
        if why := engine.failed():
            raise SetupError(f"no worker of the back-fill runs: {why}")
        with contextlib.suppress(DependencyDown):
            if (await services.queue.lane_facts([BULK]))[BULK].workers:
                return
        if time.monotonic() > deadline:
            raise SetupError(
                f"no worker of the back-fill listens after {LISTENS_S:.0f} s",
                hint=f"The logs say why: {services.settings.log_dir}",
            )
        await asyncio.sleep(0.2)


def _engine(services: Services, options: BulkOptions, say: Callable[[str], None]) -> BulkEngine:
    if options.engine == "local":
        from unjam.app.bulk.local import LocalEngine

        return LocalEngine(services, options, say)
    from unjam.app.bulk.on_ray import RayEngine

    return RayEngine(services, options, say)
