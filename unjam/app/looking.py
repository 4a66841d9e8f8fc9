"""Where the watchdog and the doctor look, out of a process's services or of bare settings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from unjam.app.house import without_password
from unjam.app.originals import upload_folder
from unjam.app.services import Services, ledger_url
from unjam.core.errors import DependencyDown
from unjam.core.ports import VectorStore
from unjam.core.vitals import Patient
from unjam.embedding.fingerprint import current_pin
from unjam.queue.lanes import DEFAULT_LANES, parse_type_queues
from unjam.settings import MIB, Settings
from unjam.stores.ledger import SqlLedger
from unjam.watchdog.facts import LOOK_S
from unjam.watchdog.probes_host import Folder
from unjam.watchdog.snapshot import Places, Snapshot
from unjam.worker.identity import is_alive

PULSE = "watchdog-pulse"
PULSE_S = 0.9 * LOOK_S
"""Before the look itself gives up, so that it can say why."""
LOGS_NEED_BYTES = MIB
"""With less, evidence is lost; work goes on."""


def snapshot_of(services: Services) -> Snapshot:
    """The watchdog's: it also writes one row a look, to know that the ledger takes writes."""
    ledger = services.ledger
    assert isinstance(ledger, SqlLedger)  # the port has no questions of the watchdog
    return Snapshot(
        places_of(
            services.settings,
            ledger,
            services.vectors,
            services.knobs,
            pulse=lambda: _beat(ledger),
            collection=lambda: services.current_pin().fingerprint.collection,
        )
    )


async def _beat(ledger: SqlLedger) -> None:
    """Raises DependencyDown, with the name of who is in the way where that is known."""
    try:
        async with asyncio.timeout(PULSE_S):
            await ledger.lead(PULSE, PULSE, 1.0)
    except TimeoutError:
        detail = "; ".join(filter(None, (f"no write within {PULSE_S:g} s", ledger.in_the_way())))
        raise DependencyDown(detail, code="ledger_unwritable") from None


def places_of(
    settings: Settings,
    ledger: Patient | None,
    vectors: VectorStore | None,
    knobs: Callable[[], Mapping[str, int]],
    *,
    pulse: Callable[[], Awaitable[object]] | None = None,
    collection: Callable[[], str] | None = None,
    trouble: str = "",
) -> Places:
    """*trouble*: why there is no ledger to ask."""
    typed = parse_type_queues(settings.type_queues).values()
    return Places(
        settings=settings,
        ledger=ledger,
        vectors=vectors,
        collection=collection or (lambda: current_pin(settings, knobs()).fingerprint.collection),
        is_alive=is_alive,
        folders=folders_of(settings),
        shown=without_password,
        knobs=knobs,
        lanes=tuple(dict.fromkeys((*DEFAULT_LANES, *typed))),
        pulse=pulse,
        trouble=trouble,
    )


def folders_of(settings: Settings) -> list[Folder]:
    """What is written to, and how much room each needs for work to go on."""
    reserve = 2 * settings.reserve_bytes  # as much as ``stores.reserve`` wants before it refills
    found = [Folder("originals", upload_folder(settings), settings.min_free_disk_mb * MIB)]
    what = "data" if settings.database_url else "ledger"
    found.append(
        Folder(what, settings.data_dir, LOGS_NEED_BYTES if settings.database_url else reserve)
    )
    found.append(Folder("logs", settings.log_dir, LOGS_NEED_BYTES))
    return found


def shown_ledger_url(settings: Settings) -> str:
    return without_password(ledger_url(settings))
