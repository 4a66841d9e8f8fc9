"""Recovery over a process's services: for the watchdog, the API and the command line."""

from __future__ import annotations

import time

from unjam.app.house import found
from unjam.app.looking import snapshot_of
from unjam.app.reconciler import reconciler_of
from unjam.app.services import Services, open_ledger, open_services
from unjam.core.errors import NotFound
from unjam.core.ports import WorkerRef
from unjam.observe.incidents import recovery_log
from unjam.observe.stats import zone_of
from unjam.settings import Settings
from unjam.stores.ledger import SqlLedger
from unjam.watchdog.acting import Hands, Servers
from unjam.watchdog.recovery import Recovery, Round
from unjam.watchdog.report import Report, make_report
from unjam.watchdog.snapshot import Looking
from unjam.worker.identity import process_identity


def book_of(services: Services) -> SqlLedger:
    """The ledger as the book of incidents that it also is."""
    assert isinstance(services.ledger, SqlLedger)
    return services.ledger


def servers_of(settings: Settings) -> Servers:
    return Servers(
        home=settings.data_dir,
        redis_url=settings.redis_url or "",
        chroma_url=(settings.chroma_url or "") if settings.vector_store == "Chroma" else "",
        vector_store=settings.vector_store,
        allowed=settings.allowed_restarts,
        redis_repair=settings.redis_repair,
    )


def recovery_of(services: Services, look: Looking, me: WorkerRef | None = None) -> Recovery:
    """One per process; ``close`` it."""
    reconciler, book = reconciler_of(services), book_of(services)
    return Recovery(
        book=book,
        look=look,
        hands=Hands(
            book=book,
            queue=services.queue,
            servers=servers_of(services.settings),
            knobs=services.knobs,
            audit_all=reconciler.audit_all,
            large_bytes=services.settings.large_document_bytes,
        ),
        me=me or process_identity("watchdog"),
        told=recovery_log(services.settings.log_dir),
        reconcile=reconciler.tick,
    )


# -- for the command line, when no API answers ----------------------------------------------
async def recover_here(settings: Settings, *, plan: bool, by: str) -> Round:
    """One round in this process, on the house that is found from here.

    Raises:
        SetupError: there is none. DependencyDown: its ledger cannot be used.
    """
    services = await open_services(found(settings), role="api")
    look = snapshot_of(services)
    recovery = recovery_of(services, look, process_identity("api"))
    try:
        return await recovery.once(plan=plan, by=by)
    finally:
        await recovery.close()
        await look.close()
        await services.close()


async def pause_here(settings: Settings, paused: bool, by: str) -> None:
    """Raises as :func:`recover_here`."""
    ledger = await open_ledger(found(settings))
    try:
        await ledger.pause_remedies(paused, by)
    finally:
        await ledger.close()


async def report_here(settings: Settings, incident_id: int | None, lang: str) -> Report:
    """Of the newest incident when *incident_id* is None. Raises NotFound; as above."""
    ledger = await open_ledger(found(settings))
    try:
        if incident_id is None:
            newest = (await ledger.incidents(limit=1)).items
            if not newest:
                raise NotFound("there was no incident yet")
            incident_id = newest[0].id
        incident = await ledger.incident(incident_id)
        events = await ledger.incident_events(incident_id, limit=5000)
        zone = zone_of(settings.timezone)
        return make_report(incident, events, time.time(), lang=lang, zone=zone)
    finally:
        await ledger.close()
