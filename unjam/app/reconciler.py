"""The reconciler over a process's services: for the watchdog, and for a worker that begins."""

from __future__ import annotations

from unjam.app.services import Services
from unjam.watchdog.reconcile import Reconciler
from unjam.worker.identity import is_alive


def reconciler_of(services: Services) -> Reconciler:
    return Reconciler(
        ledger=services.ledger,
        queue=services.queue,
        vectors=services.vectors,
        blobs=services.blobs,
        embedder=services.embedder,
        current_pin=services.current_pin,
        is_alive=is_alive,
    )
