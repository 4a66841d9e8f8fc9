"""Recovery over a process's services: for the watchdog, the API and the command line."""

from __future__ import annotations

from unjam.app.reconciler import reconciler_of
from unjam.app.services import Services
from unjam.core.ports import WorkerRef
from unjam.observe.incidents import recovery_log
from unjam.settings import Settings
from unjam.stores.ledger import SqlLedger
from unjam.watchdog.acting import Hands, Servers
from unjam.watchdog.recovery import Recovery
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
        chroma_url=settings.chroma_url or "",
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
