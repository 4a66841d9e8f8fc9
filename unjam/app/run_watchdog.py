"""``unjam watchdog``: reconciles, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal

from unjam.app.house import House, found
from unjam.app.services import Services, open_services
from unjam.observe.logs import configure_logging
from unjam.settings import Settings
from unjam.watchdog.loop import watch
from unjam.watchdog.reconcile import Reconciler
from unjam.worker.identity import is_alive, process_identity


def main(settings: Settings | None = None) -> int:
    """Blocks until SIGTERM; 0."""
    settings = found(settings or Settings())  # type: ignore[call-arg]
    configure_logging(settings, process="watchdog")
    import uvloop

    return uvloop.run(_main(settings))


async def _main(settings: Settings) -> int:
    services = await open_services(settings, role="watchdog")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    try:
        await watch(
            ledger=services.ledger,
            reconciler=reconciler_of(services),
            me=process_identity("watchdog"),
            stopping=stopping,
            leader_chores=[lambda: _announce(services)],
        )
    finally:
        await services.close()
    return 0


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


async def _announce(services: Services) -> None:
    """``rag:house`` stands in Redis, also after it lost its data."""
    wanted = House.read(services.settings.data_dir) or services.house()
    if await services.queue.read_house() != wanted.to_mapping():
        await services.queue.write_house(wanted.to_mapping())
