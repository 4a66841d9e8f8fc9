"""``unjam worker``: one worker process, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

from unjam.app.alive import beating
from unjam.app.house import found
from unjam.app.opening import StoppedEarly, open_patiently
from unjam.app.reconciler import reconciler_of
from unjam.app.services import Services
from unjam.core.errors import DependencyDown
from unjam.core.ports import WorkerRef
from unjam.observe import words
from unjam.observe.logs import configure_logging
from unjam.pipeline.priority import step_behind
from unjam.pipeline.process_title import set_title, title
from unjam.pipeline.sandbox import SandboxParser
from unjam.queue.lanes import DEFAULT_LANES, parse_type_queues
from unjam.settings import MIB, Settings
from unjam.worker.identity import process_identity
from unjam.worker.pressure import Pressure
from unjam.worker.worker import Worker, WorkerOptions

BEAT_S = 5.0

TITLE = "rq worker rag_processing (unjam)"
"""So that ``ps aux | grep "rq worker"`` and ``pkill -f "rq worker"`` meet ours, too."""


def main(
    settings: Settings | None = None, lanes: Sequence[str] = (), share_percent: int = 100
) -> int:
    """Blocks until the worker has drained; 0. *share_percent*: see ``work``."""
    settings = found(settings or Settings())  # type: ignore[call-arg]
    if not title().startswith("rq worker"):  # started by hand: nobody gave it a title yet
        set_title(TITLE)
    import uvloop

    return uvloop.run(work(settings, lanes, share_percent=share_percent))


async def work(
    settings: Settings,
    lanes: Sequence[str] = (),
    parser: SandboxParser | None = None,
    share_percent: int = 100,
) -> int:
    """Be a worker until SIGTERM; 0. *parser* was started ahead, and is closed at the end.

    *share_percent*: begin nothing while more of RAG_MAX_CONCURRENT_JOBS is in use, by whomever.
    """
    step_behind()
    configure_logging(settings, process="worker")
    async with beating(settings.beat_file):
        try:
            services = await open_patiently(settings, role="worker")
        except StoppedEarly:
            if parser is not None:
                await parser.close()
            return 0
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stopping.set)
        return await work_with(services, lanes, parser, share_percent, stopping)


async def work_with(
    services: Services,
    lanes: Sequence[str],
    parser: SandboxParser | None,
    share_percent: int,
    stopping: asyncio.Event,
) -> int:
    """As ``work``, until *stopping*, which then closes *services*; not a word about signals."""
    settings = services.settings
    tools, parser = services.tools(parser)
    me = process_identity("worker")
    options = WorkerOptions(lanes=tuple(lanes) or _all_lanes(settings))
    # The cap is the operator's: by default only host and cgroup decide.
    pressure = Pressure((settings.worker_memory_mb or 0) * MIB)
    services.knobs.allow = pressure.allow
    worker = Worker(
        ledger=services.ledger,
        queue=services.queue,
        tools=tools,
        me=me,
        options=options,
        max_concurrent=lambda: _slots(services.knobs()["RAG_MAX_CONCURRENT_JOBS"], share_percent),
        breakers=services.breakers,
        pressure=pressure,
    )
    ear = asyncio.create_task(_stop_when(stopping, worker))
    # In RQ's books before the first take: the others' fair shares count us.
    listed = await _enlist(services, me, options.lanes)
    # We may be here in a dead one's place: its documents need not wait for the watchdog's round.
    await reconciler_of(services).step_in()
    beat = asyncio.create_task(_beat(services, me, options.lanes, listed))
    # Model and parsers take a second or two to load: the first document need not wait for them.
    warming = asyncio.create_task(services.warm(parser))
    try:
        words.worker_ready(me.id, options.lanes)
        await worker.run()
    finally:
        for task in (beat, warming, ear):
            task.cancel()
        await asyncio.gather(beat, warming, ear, return_exceptions=True)
        await parser.close()
        await services.close()
    words.worker_stopped(me.id)
    return 0


async def _stop_when(stopping: asyncio.Event, worker: Worker) -> None:
    await stopping.wait()
    worker.stop()


def _slots(cap: int, share_percent: int) -> int:
    return max(1, cap * share_percent // 100)


def _all_lanes(settings: Settings) -> tuple[str, ...]:
    typed = parse_type_queues(settings.type_queues).values()
    return tuple(dict.fromkeys((*DEFAULT_LANES, *typed)))


async def _enlist(services: Services, me: WorkerRef, lanes: Sequence[str]) -> bool:
    try:
        await services.queue.register_worker(me.id, lanes, me.pid)
    except DependencyDown as error:
        words.dependency_lost(error.code, error.detail)
        return False
    return True


async def _beat(services: Services, me: WorkerRef, lanes: Sequence[str], listed: bool) -> None:
    """Stand in RQ's books (``rq info``), also after Redis lost its data."""
    queue = services.queue
    try:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                if listed:
                    await queue.beat_worker(me.id)
                else:
                    listed = await _enlist(services, me, lanes)
            except DependencyDown as error:
                words.dependency_lost(error.code, error.detail)
    finally:
        try:
            await queue.unregister_worker(me.id)
        except DependencyDown as error:
            words.dependency_lost(error.code, error.detail)
