"""``unjam watchdog``: reconciles, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal

from unjam.app.house import House, found
from unjam.app.reconciler import reconciler_of
from unjam.app.services import Services, open_services
from unjam.core.errors import SetupError
from unjam.observe.courier import Courier, document_messages
from unjam.observe.logs import configure_logging
from unjam.observe.notify import Webhook, webhook_secret
from unjam.observe.stats import zone_of
from unjam.settings import Settings
from unjam.watchdog.chores import CapacityFile, StatsMirror, Upkeep
from unjam.watchdog.loop import Chore, watch
from unjam.worker.identity import process_identity

_log = logging.getLogger("unjam.notify")


def main(settings: Settings | None = None) -> int:
    """Blocks until SIGTERM; 0."""
    settings = found(settings or Settings())  # type: ignore[call-arg]
    configure_logging(settings, process="watchdog")
    import uvloop

    return uvloop.run(_main(settings))


async def _main(settings: Settings) -> int:
    services = await open_services(settings, role="watchdog")
    couriers = couriers_of(services)
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
            leader_chores=[
                lambda: _announce(services),
                lambda: asyncio.to_thread(services.reserve.restore),
                *chores_of(services),
                *couriers,
            ],
        )
    finally:
        for courier in couriers:
            await courier.close()
        await services.close()
    return 0


def chores_of(services: Services) -> list[Chore]:
    """What the leader keeps up besides the documents."""
    settings, ledger = services.settings, services.ledger
    zone = zone_of(settings.timezone)
    return [
        StatsMirror(ledger, services.queue, zone),
        CapacityFile(ledger, settings.log_dir / "rag-capacity.csv", zone),
        Upkeep(ledger),
    ]


def couriers_of(services: Services) -> list[Courier]:
    """Webhooks for documents' events, when RAG_WEBHOOK_URL is set.

    An unfit address or secret is logged, and costs nothing but the webhooks.
    """
    settings = services.settings
    if settings.webhook_url is None:
        return []
    given = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
    try:
        key = webhook_secret(given, settings.data_dir / "webhook-secret")
        sink = Webhook(settings.webhook_url.get_secret_value(), key)
    except SetupError as error:
        _log.error("No webhooks are sent: %s (%s)", error.detail, error.hint)
        return []
    translate = document_messages(services.ledger)
    return [Courier("webhook", services.ledger, sink, translate)]


async def _announce(services: Services) -> None:
    """``rag:house`` stands in Redis, also after it lost its data."""
    wanted = House.read(services.settings.data_dir) or services.house()
    if await services.queue.read_house() != wanted.to_mapping():
        await services.queue.write_house(wanted.to_mapping())
