"""``unjam watchdog``: reconciles and recovers, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Any

from unjam.app.alive import beating
from unjam.app.house import House, found
from unjam.app.looking import snapshot_of
from unjam.app.opening import StoppedEarly, open_patiently
from unjam.app.reconciler import reconciler_of
from unjam.app.recovery import book_of, recovery_of
from unjam.app.services import Services
from unjam.core.errors import SetupError
from unjam.observe.courier import Courier, document_messages
from unjam.observe.incidents import IncidentTape, incident_messages
from unjam.observe.logs import configure_logging
from unjam.observe.notify import Slack, Webhook, webhook_secret
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
    async with beating(settings.beat_file):
        try:
            services = await open_patiently(settings, role="watchdog")
        except StoppedEarly:
            return 0
        return await _watch(services)


async def _watch(services: Services) -> int:
    couriers = couriers_of(services)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    me = process_identity("watchdog")
    look = snapshot_of(services)
    recovery = asyncio.create_task(recovery_of(services, look, me).follow(stopping))
    try:
        await watch(
            ledger=services.ledger,
            reconciler=reconciler_of(services),
            me=me,
            stopping=stopping,
            leader_chores=[
                lambda: _announce(services),
                lambda: asyncio.to_thread(services.reserve.restore),
                *chores_of(services),
                *couriers,
            ],
        )
    finally:
        stopping.set()
        await recovery
        await look.close()
        for courier in couriers:
            await courier.close()
        await services.close()
    return 0


def chores_of(services: Services) -> list[Chore]:
    """What the leader keeps up besides the documents."""
    settings, ledger = services.settings, services.ledger
    zone = zone_of(settings.timezone)
    return [
        StatsMirror(ledger, services.queue, zone, ledger.now),
        CapacityFile(ledger, settings.log_dir / "rag-capacity.csv", zone, ledger.now),
        Upkeep(ledger),
    ]


def couriers_of(services: Services) -> list[Courier[Any]]:
    """Webhooks for documents' and incidents' events when RAG_WEBHOOK_URL is set, and Slack for
    incidents when SLACK_WEBHOOK_URL is. Each has a line of its own."""
    settings, book = services.settings, book_of(services)
    tape = IncidentTape(services.ledger, book)
    couriers: list[Courier[Any]] = []
    if settings.slack_webhook_url is not None:
        slack = Slack(settings.slack_webhook_url.get_secret_value())
        told = incident_messages(book, services.ledger.id, settings.lang)
        couriers.append(Courier("slack", tape, slack, told))
    for name in ("webhook", "webhook-incidents"):
        sink = _webhook(settings)
        if sink is None:
            break
        if name == "webhook":
            translate = document_messages(services.ledger)
            couriers.append(Courier(name, services.ledger, sink, translate))
        else:
            told = incident_messages(book, services.ledger.id)
            couriers.append(Courier(name, tape, sink, told))
    return couriers


def _webhook(settings: Settings) -> Webhook | None:
    """None without an address. An unfit one is logged, and costs nothing but the webhooks."""
    if settings.webhook_url is None:
        return None
    given = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
    try:
        key = webhook_secret(given, settings.data_dir / "webhook-secret")
        return Webhook(settings.webhook_url.get_secret_value(), key)
    except SetupError as error:
        _log.error("No webhooks are sent: %s (%s)", error.detail, error.hint)
        return None


async def _announce(services: Services) -> None:
    """``rag:house`` stands in Redis, also after it lost its data. Another ledger's is left alone:
    two houses in one database are a person's mistake, and the diagnosis names it."""
    wanted = House.read(services.settings.data_dir) or services.house()
    found = await services.queue.read_house() or {}
    if found.get("ledger_id") in (None, "", wanted.ledger_id) and found != wanted.to_mapping():
        await services.queue.write_house(wanted.to_mapping())
