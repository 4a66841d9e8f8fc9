"""What RQ calls: ``unjam.rq_job.process_document``, in our workers' lanes or in a stock worker.

A stock ``rq worker rag_processing --url …`` knows only Redis: everything else is found through
``rag:house``. It works with both worker classes and needs no further flags.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from unjam.app.house import House, settle_in
from unjam.app.services import Services, open_services
from unjam.core.document import Claim, ClaimKind, Ticket
from unjam.core.errors import SetupError
from unjam.core.lease import RENEW_S
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


def process_document(payload: str) -> str:
    """Process the document of the current RQ job; returns how it ended, for ``rq info``.

    Args:
        payload: JSON with ``doc_id`` and ``file_size``; the job's id says which enqueue it is.

    Raises:
        SetupError: the house in Redis is another one than this machine's settings point to. The
            document stays queued in the ledger.
    """
    del payload  # the job id says it all; the payload is for people with grep
    current = current_ticket()
    if current is None:
        return "stale"
    ticket, connection = current
    return _room().runner.run(_process(ticket, redis_url(connection)))


def redis_url(connection: Mapping[str, Any]) -> str:
    """The URL of a Redis connection that somebody else opened."""
    user, password = connection.get("username") or "", connection.get("password") or ""
    login = f"{quote(user)}:{quote(password)}@" if password else ""
    if connection.get("path"):
        return f"unix://{login}{connection['path']}?db={connection.get('db') or 0}"
    scheme = "rediss" if any(k.startswith("ssl_") for k in connection) else "redis"
    place = f"{connection.get('host', '127.0.0.1')}:{connection.get('port', 6379)}"
    return f"{scheme}://{login}{place}/{connection.get('db') or 0}"


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
    if room.pid == os.getpid() and room.services is not None:
        room.runner.run(_close(room))


async def _close(room: _Room) -> None:
    if room.parser is not None:
        await room.parser.close()
    if room.services is not None:
        await room.services.close()


async def _process(ticket: Ticket, url: str) -> str:
    services, tools = await _furnish(url)
    me = process_identity("stock")
    claim = await _claim(services, ticket, me)
    if claim is None:
        return "stale"
    attempt = Attempt(claim, alone=claim.suspect)
    task = asyncio.current_task()

    def lost(_: str) -> None:
        if task is not None:
            task.cancel()

    keeper = LeaseKeeper(services.ledger, me, lost)
    keeper.hold(attempt)
    keeper.start()
    try:
        if attempt.alone:
            await services.ledger.report(attempt.progress())
        ended: Ended = await process(attempt, tools, services.ledger)
    finally:
        await keeper.stop()
        await services.ledger.retire(me.id)
    if ended.settled is not None and (ended.settled.ticket or ended.settled.state == "dead"):
        books = QueueBooks(services.queue, me.id, tools.checkpoint)
        await books.after(ticket, ended)
    return str(ended.settled.state) if ended.settled else "lease_lost"


async def _claim(services: Services, ticket: Ticket, me: WorkerRef) -> Claim | None:
    """The claim; None when the job is stale. At the system-wide cap the job waits for a slot."""
    while True:
        cap = services.knobs()["RAG_MAX_CONCURRENT_JOBS"]
        answer = (await services.ledger.claim([ticket], me, cap))[0]
        if answer.kind is not ClaimKind.NO_SLOT:
            return answer.claim
        await asyncio.sleep(RENEW_S / 4)


async def _furnish(url: str) -> tuple[Services, Tools]:
    room = _room()
    if room.services is None:
        queue = RqQueue(url)
        raw = await queue.read_house()
        await queue.close()
        settings = Settings()  # type: ignore[call-arg]
        if raw:
            settings = settle_in(settings, House.from_mapping(raw))
        settings = settings.model_copy(update={"redis_url": url})
        configure_logging(settings, process="worker")
        room.services = await open_services(settings, role="stock")
        if raw and raw.get("ledger_id") != room.services.ledger.id:
            words.wrong_house(str(raw.get("ledger_id")), room.services.ledger.id)
            raise SetupError(
                "the queue belongs to another ledger than this worker's settings point to",
                hint="Unset RAG_DATA_DIR and RAG_DATABASE_URL, or point them at "
                f"{raw.get('data_dir')}.",
            )
        room.tools, room.parser = room.services.tools()
    assert room.tools is not None
    return room.services, room.tools
