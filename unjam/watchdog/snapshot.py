"""Snapshot: looks at everything at once, and remembers the last two minutes of looks."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from unjam import __version__
from unjam.core.breaker import paused_lanes
from unjam.core.errors import DependencyDown, UnjamError
from unjam.core.ports import VectorStore, WorkerRef
from unjam.core.vitals import Patient, Standing, Vitals
from unjam.queue.lanes import DEAD, DEFAULT_LANES
from unjam.settings import Settings
from unjam.watchdog.facts import (
    BEAT_LATE_S,
    HISTORY_S,
    LOOK_S,
    PATIENCE_S,
    ChromaFacts,
    Facts,
    History,
    LedgerFacts,
    Process,
    RedisFacts,
)
from unjam.watchdog.probes_host import Folder, disk_facts, host_facts, process_state
from unjam.watchdog.probes_redis import RedisProbe, embedding_facts

T = TypeVar("T")

VOUCHED_S = 45.0
"""A supervisor speaks for a worker that has been silent for so long at most: how it ended would be
known for a minute (``core.vitals.Vitals.ended``), and then nobody could tell."""

SKEW_S = 1.0
"""Less is the time that it takes to ask."""


class Looking(Protocol):
    """What takes looks: ``Snapshot``, or a test with facts of its own."""

    @property
    def history(self) -> History: ...

    async def take(self, wrote_s: float = 0.0) -> Facts: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Places:
    """Where to look. None: there is none, or it could not be opened (*trouble* says why).

    *collection* names the vectors' collection in use; *pulse* makes one small durable write to
    the ledger (None: the look must not write). URLs are shown without their passwords.
    """

    settings: Settings
    ledger: Patient | None
    vectors: VectorStore | None
    collection: Callable[[], str]
    is_alive: Callable[[WorkerRef], bool | None]
    folders: Sequence[Folder]
    shown: Callable[[str], str]
    knobs: Callable[[], Mapping[str, int]]
    lanes: Sequence[str] = DEFAULT_LANES
    pulse: Callable[[], Awaitable[object]] | None = None
    trouble: str = ""


class Snapshot:
    """``take`` one look after the other; ``history`` holds those before the last one."""

    def __init__(self, places: Places, *, one_off: bool = False) -> None:
        self._at = places
        self._one_off = one_off
        self._patience_s = LOOK_S if one_off else PATIENCE_S
        url = places.settings.redis_url
        self._redis = RedisProbe(url, places.shown(url)) if url else None
        self._before: deque[Facts] = deque()
        self._last: Facts | None = None
        self._skew_s = 0.0  # what the ledger's clock is ahead of this host's

    @property
    def history(self) -> History:
        """Oldest first, at most two minutes."""
        return tuple(self._before)

    async def take(self, wrote_s: float = 0.0) -> Facts:
        """All probes side by side, each given ``LOOK_S``. Never raises for what it looks at.

        *wrote_s*: what a write to the ledger took just before. Where writers wait for a turn, the
        look's own follows on that one's heels, and would tell nothing.
        """
        clock, began = time.time(), time.monotonic()
        trouble: dict[str, str] = {}
        (redis, notes), ledger, chroma, host, disks = await asyncio.gather(
            self._look_at_redis(),
            self._look_at_ledger(wrote_s),
            self._look_at_chroma(),
            asyncio.to_thread(host_facts),
            asyncio.to_thread(lambda: tuple(disk_facts(f) for f in self._at.folders)),
        )
        sample = await self._sample(redis, trouble)
        settings, knobs = self._at.settings, self._at.knobs()
        processes = ledger.vitals.processes if ledger.vitals else ()
        took_s = time.monotonic() - began
        if ledger.vitals is not None:  # while it is away the clocks are as far apart as they were
            skew_s = ledger.vitals.now - clock
            self._skew_s = skew_s if abs(skew_s) > SKEW_S + took_s else 0.0
        facts = Facts(
            at=clock + self._skew_s,
            clock=clock,
            took_s=took_s,
            host=host,
            ledger=ledger,
            redis=redis,
            chroma=chroma,
            embedding=embedding_facts(settings, notes, self._at.shown(settings.openai_base_url)),
            processes=tuple(self._process(ref, age, ledger.vitals) for ref, age in processes),
            disks=disks,
            sample=sample,
            paused_lanes=tuple(
                sorted(paused_lanes(ledger.vitals.breakers) if ledger.vitals else ())
            ),
            version=__version__,
            max_concurrent=knobs.get("RAG_MAX_CONCURRENT_JOBS", settings.max_concurrent_jobs),
            large_bytes=settings.large_document_bytes,
            one_off=self._one_off,
            trouble=trouble,
        )
        self._remember(facts)
        return facts

    def _process(self, ref: WorkerRef, age_s: float, vitals: Vitals | None) -> Process:
        alive = self._at.is_alive(ref)
        if alive is None and vitals is not None and _vouched(ref, age_s, vitals):
            return Process(ref, age_s, True)
        return Process(ref, age_s, alive, process_state(ref.pid) if alive else "")

    def _remember(self, facts: Facts) -> None:
        if self._last is not None:
            self._before.append(self._last)
        self._last = facts
        now = facts.host.boottime
        while self._before and now - self._before[0].host.boottime > HISTORY_S:
            self._before.popleft()

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.close()

    # -- probes -----------------------------------------------------------------------------
    async def _look_at_redis(self) -> tuple[RedisFacts, Mapping[str, Any]]:
        if self._redis is None:
            return RedisFacts(False, "no address of it is known"), {}
        shown = self._at.shown(self._at.settings.redis_url or "")
        whole_s = LOOK_S if self._one_off else PATIENCE_S + LOOK_S
        try:
            return await self._redis.look(self._patience_s, whole_s)
        except Exception as error:  # a probe that breaks is no all-clear
            return RedisFacts(False, f"{type(error).__name__}: {error}", shown), {}

    async def _look_at_ledger(self, wrote_s: float) -> LedgerFacts:
        ledger, pulse = self._at.ledger, self._at.pulse
        if ledger is None:
            return LedgerFacts(False, self._at.trouble)
        lanes = tuple(dict.fromkeys((*self._at.lanes, *self._known_lanes())))
        after = self._last.vitals.last_event if self._last and self._last.vitals else 0
        read, read_s, detail = await _timed(ledger.vitals(lanes, after))
        if pulse is None or read is None:
            return LedgerFacts(read is not None, detail, read_s, vitals=read)
        if wrote_s >= LOOK_S:  # it waits still: one more write would only stand behind it
            late = f"no write within {LOOK_S:g} s"
            return LedgerFacts(True, late, read_s, False, wrote_s, read)
        _, write_s, refused = await _timed(pulse())
        return LedgerFacts(True, refused, read_s, not refused, max(write_s, wrote_s), read)

    def _known_lanes(self) -> Sequence[str]:
        return [n for n in self._last.redis.lanes if n != DEAD] if self._last else []

    async def _look_at_chroma(self) -> ChromaFacts:
        vectors, settings = self._at.vectors, self._at.settings
        shown, name = self._at.shown(settings.vectors_url or ""), settings.vector_store
        if vectors is None:
            return ChromaFacts(False, "no address of it is known", shown, name=name)
        beat_s = 0.0
        for _ in range(2):  # the first one connects where it must
            _, beat_s, detail = await _timed(vectors.ping(), self._patience_s)
            if detail:
                return ChromaFacts(False, detail, shown, beat_s, name=name)
        _, read_s, detail = await _timed(vectors.missing(self._at.collection(), ["-"]))
        slow = read_s >= LOOK_S  # its heartbeat is well: slow is not down
        return ChromaFacts(slow or not detail, detail, shown, beat_s, read_s=read_s, name=name)

    async def _sample(self, redis: RedisFacts, trouble: dict[str, str]) -> tuple[Standing, ...]:
        ids = [i for n, lane in redis.lanes.items() if n != DEAD for i in lane.line]
        if not ids or self._at.ledger is None:
            return ()
        found, _, detail = await _timed(self._at.ledger.glimpse(ids))
        if detail:
            trouble["sample"] = detail
        return tuple(found or ())


def _vouched(ref: WorkerRef, age_s: float, vitals: Vitals) -> bool:
    """Whether a supervisor on its own host reports, began before it, and did not see it end: then
    it lives, and whoever keeps it can restart it."""
    if ref.kind != "worker" or age_s > VOUCHED_S or ref.id in vitals.ended:
        return False
    keepers = [
        other
        for other, silent_s in vitals.processes
        if other.kind == "supervisor" and other.host == ref.host and silent_s < BEAT_LATE_S
    ]
    return any(_started(keeper) <= _started(ref) for keeper in keepers)


def _started(ref: WorkerRef) -> int:
    """Clock ticks since its host booted, as its id ends with them."""
    ticks = ref.id.rpartition(".")[2]
    return int(ticks) if ticks.isdecimal() else 0


async def _timed(work: Awaitable[T], within_s: float = LOOK_S) -> tuple[T | None, float, str]:
    """(what came of it, seconds, why nothing came of it)."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(within_s):
            value = await work
    except TimeoutError:
        return None, within_s, f"no answer within {within_s:g} s"
    except DependencyDown as error:
        return None, time.monotonic() - began, error.detail
    except UnjamError as error:
        return None, time.monotonic() - began, f"{error.detail} {error.hint}".strip()
    except Exception as error:  # a probe that breaks is no all-clear
        return None, time.monotonic() - began, f"{type(error).__name__}: {error}"
    return value, time.monotonic() - began, ""
