"""What RQ calls: ``unjam.rq_job.process_document``, in our workers' lanes or in a stock worker.

A stock ``rq worker rag_processing --url …`` knows only Redis: everything else is found through
``rag:house``. It works with both worker classes and needs no further flags.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from unjam.app.house import House, settle_in
from unjam.app.services import Services, open_services
from unjam.core.document import Claim, ClaimKind, Ticket
from unjam.core.errors import DependencyDown, LeaseLost, LedgerVersionError, SetupError, UnjamError
from unjam.core.lease import RENEW_S
from unjam.core.outcome import Snooze
from unjam.core.ports import WorkerRef
from unjam.observe import words
from unjam.observe.logs import configure_logging
from unjam.pipeline.run import Attempt, Tools
from unjam.pipeline.sandbox import SandboxParser
from unjam.queue.jobs import current_ticket
from unjam.queue.rq_queue import RqQueue
from unjam.settings import Settings
from unjam.worker.identity import process_identity
from unjam.worker.leases import LeaseKeeper
from unjam.worker.task import Ended, QueueBooks, process

DISPOSABLE = "RQ_WORKER_ID"
"""RQ sets it in a forked work horse, which ends after its one job without its exit handlers."""

UNFIT_PAUSE_S = 20.0
"""A worker that cannot find the house holds its job this long. The reconciler rings again for the
document 10 to 12 s after it was taken (``queue.audit.FRESH_S``), when this worker must not be back
in line, or it would have it again; so a fit one has it, and this one burns one job a pause."""

BREATH_S = 5.0
"""What stopped this document stops the next one, too (as in ``worker.worker``)."""

KEEP_S = 3.0
"""How often a job that waits for a slot says that it is in hand."""


def process_document(payload: str) -> str:
    """Process the document of the current RQ job; returns how it ended, for ``rq info``.

    A worker whose settings fit another house, or none, leaves the document queued in the ledger
    and says what to set; nothing is raised, so RQ's books show no failure that is none.

    Args:
        payload: JSON with ``doc_id`` and ``file_size``; the job's id says which enqueue it is.
    """
    del payload  # the job id says it all; the payload is for people with grep
    current = current_ticket()
    if current is None:
        return "stale"
    ticket, url = current
    room = _room()
    try:
        return room.runner.run(_process(ticket, url))
    finally:
        if DISPOSABLE in os.environ:
            _leave(room)


@dataclass(slots=True)
class _Room:
    """Kept between jobs of one process (SimpleWorker); a forked work horse makes its own."""

    pid: int
    runner: asyncio.Runner
    services: Services | None = None
    tools: Tools | None = None
    parser: SandboxParser | None = None


_kept: _Room | None = None


def _room() -> _Room:
    global _kept
    if _kept is None or _kept.pid != os.getpid():
        _kept = _Room(os.getpid(), asyncio.Runner())
        atexit.register(_leave, _kept)
    return _kept


def _leave(room: _Room) -> None:
    if room.pid == os.getpid():
        room.runner.run(_close(room))


async def _close(room: _Room) -> None:
    parser, services = room.parser, room.services
    room.parser = room.services = room.tools = None
    if parser is not None:
        await parser.close()
    if services is not None:
        await services.close()


async def _process(ticket: Ticket, url: str) -> str:
    try:
        services, tools = await _furnish(url)
        ended = await _work(ticket, services, tools)
    except UnjamError as error:
        words.unfit_worker(ticket.document_id, ticket.enqueue_seq, error.detail, error.hint)
        await asyncio.sleep(UNFIT_PAUSE_S)
        return f"left queued: {error.detail}"
    if ended is None:
        return "stale"
    books = QueueBooks(services.queue, "", tools.checkpoint)  # RQ keeps its own books itself
    await books.after(ticket, ended)
    if isinstance(ended.outcome, Snooze):
        await services.breakers.report(
            ended.outcome.reason,
            ended.outcome.detail,
            retry_after_s=ended.outcome.after_s,
            shared=ended.outcome.shared,
        )
        await asyncio.sleep(min(ended.outcome.after_s, BREATH_S))
    return str(ended.settled.state) if ended.settled else "lease_lost"


async def _work(ticket: Ticket, services: Services, tools: Tools) -> Ended | None:
    """How the attempt ended; None when the job is stale."""
    me = process_identity("stock")
    task = asyncio.current_task()

    def lost(_: str) -> None:
        if task is not None:
            task.cancel()

    keeper = LeaseKeeper(services.ledger, me, lost, services.breakers.ledger_trouble)
    keeper.start()  # in the ledger's list of processes before the claim: a death here is seen, too
    try:
        claim = await _claim(services, ticket, me)
        if claim is None:
            return None
        attempt = Attempt(claim, alone=claim.suspect)
        keeper.hold(attempt)
        if attempt.alone:
            await services.ledger.report(attempt.progress())
        return await process(attempt, tools, services.ledger)
    except LeaseLost:
        return Ended(None, None)
    finally:
        await keeper.stop()
        with contextlib.suppress(UnjamError):
            await services.ledger.retire(me.id)


async def _claim(services: Services, ticket: Ticket, me: WorkerRef) -> Claim | None:
    """The claim; None when the job is stale. At the system-wide cap the job waits for a slot, and
    while a dependency is down, for that.

    Raises:
        DependencyDown: ledger_newer; this program may not claim any more.
    """
    said_at = -KEEP_S
    try:
        while True:
            if time.monotonic() - said_at >= KEEP_S:
                said_at = time.monotonic()
                with contextlib.suppress(DependencyDown):
                    await services.queue.keep(ticket, me.id)
            try:
                await services.knobs.refresh()  # its loop stood still between two jobs
                await services.breakers.refresh()
                if (pause_s := services.breakers.pause_s()) > 0:
                    await asyncio.sleep(pause_s)
                    continue
                cap = services.knobs()["RAG_MAX_CONCURRENT_JOBS"]
                answer = (await services.ledger.claim([ticket], me, cap))[0]
            except DependencyDown as error:
                if error.code == LedgerVersionError.code:  # others may have it, we never will
                    raise
                words.dependency_lost(error.code, error.detail)
            else:
                if answer.kind is not ClaimKind.NO_SLOT:
                    return answer.claim
            await asyncio.sleep(RENEW_S / 4)
    finally:
        with contextlib.suppress(DependencyDown):
            await services.queue.let_go(ticket)


async def _furnish(url: str) -> tuple[Services, Tools]:
    """Everything the job needs, found through Redis.

    Raises:
        SetupError: the house in Redis is another one than this machine's settings point to, or
            cannot be found. DependencyDown: Redis or the ledger is away.
    """
    room = _room()
    if room.services is None or room.tools is None:
        queue = RqQueue(url)
        try:
            raw = await queue.read_house()
        finally:
            await queue.close()
        settings = Settings()  # type: ignore[call-arg]
        configure_logging(settings, process="worker")
        logging.getLogger("rq").propagate = False  # RQ prints its own lines itself
        settings = settings.model_copy(update={"redis_url": url})
        if raw:
            settings = settle_in(settings, House.from_mapping(raw))
        room.services = await _services(settings, raw)
        room.tools, room.parser = room.services.tools()
    return room.services, room.tools


async def _services(settings: Settings, house: Mapping[str, str]) -> Services:
    wrong = SetupError(
        "the queue belongs to another ledger than this worker's settings point to",
        hint="Unset RAG_DATA_DIR and RAG_DATABASE_URL for this worker, or point them at the "
        f"queue's own: RAG_DATA_DIR={house.get('data_dir')}",
    )
    absent = settings.database_url is None and not (settings.data_dir / "ledger.db").exists()
    if house and absent:  # not to be created here
        raise wrong
    services = await open_services(settings, role="stock")
    if house and house.get("ledger_id") != services.ledger.id:
        words.wrong_house(str(house.get("ledger_id")), services.ledger.id)
        await services.close()
        raise wrong
    return services
