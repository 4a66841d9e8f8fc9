"""Board: one snapshot a second of everything that the pages share, for however many viewers.

Each part is read on its own and may fail on its own: while Redis is away the ledger's tiles stay
live, and the queue's say since when they are stale. A part that hangs holds nobody up for longer
than ``PATIENCE_S``; it goes on in the background and is stale meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from unjam.core.breaker import Breaker
from unjam.core.document import RUNNING, Document, State
from unjam.core.errors import UnjamError
from unjam.core.incident import Incident
from unjam.core.ports import Backlog, Completed, Equation, IncidentBook, WorkerRef
from unjam.embedding.meters import KEYS_READY, REQUESTS, Meters
from unjam.observe.forecast import Forecast, Forecaster
from unjam.web.house import House
from unjam.web.queues import queue_list

FRESH_S = 1.0
PATIENCE_S = 0.7
"""What a page waits for one part: a hanging Redis must not make the ledger's tiles late."""
HISTORY_MINUTES = 60
IN_FLIGHT = 12
"""Documents at work that are shown by name."""

T = TypeVar("T")


def book_of(house: House) -> IncidentBook:
    """The ledger keeps the incidents, too."""
    return cast(IncidentBook, house.ledger)


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """One thing that was read. *at*: when it last succeeded (Unix s, 0 = never); *error*: why the
    last try failed, "" when it did not."""

    value: T
    at: float = 0.0
    error: str = ""

    @property
    def stale(self) -> bool:
        return bool(self.error)


_NOTHING = Equation(0, 0, 0, 0, 0, 0, 0, 0, 0)
_NO_LINE = Backlog(0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """What the ledger says; its questions are flat at any number of documents."""

    equation: Equation = _NOTHING
    states: Mapping[State, int] = field(default_factory=dict[State, int])
    backlog: Backlog = _NO_LINE
    processes: Sequence[tuple[WorkerRef, float]] = ()
    dead: Mapping[str, int] = field(default_factory=dict[str, int])
    minutes: Sequence[Completed] = ()
    breakers: Mapping[str, Breaker] = field(default_factory=dict[str, Breaker])
    in_flight: Sequence[Document] = ()
    seq: int = 0
    late: float = 0.0
    judged: float = 0.0


@dataclass(frozen=True, slots=True)
class WatchFacts:
    """What the watchdog found, and whether it may act."""

    incidents: Sequence[Incident] = ()
    paused: bool = False


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """*ready* of *known* keys; requests by outcome since the limiter's counts began."""

    ready: int = 0
    known: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment. *number* grows by one per snapshot."""

    number: int
    at: float
    ledger: Part[LedgerFacts]
    watch: Part[WatchFacts]
    lanes: Part[list[dict[str, Any]]]
    keys: Part[KeyFacts]
    forecast: Forecast

    @property
    def line_s(self) -> float | None:
        """About how long until all that stands in line is searchable; None = unknown."""
        waits = [
            lane["count"] / pace.per_s + pace.work_s
            for lane in self.lanes.value
            if lane["count"] and (pace := self.forecast.paces.get(lane["name"]))
        ]
        unknown = any(
            lane["count"] and lane["name"] not in self.forecast.paces
            for lane in self.lanes.value
            if lane["name"] != "rag_dlq"
        )
        return None if unknown or not waits else max(waits)


class _Reader(Generic[T]):
    """Reads one part again and again; at most one read is under way."""

    def __init__(self, first: T, read: Callable[[], Awaitable[T]]) -> None:
        self._part = Part(first)
        self._read = read
        self._task: asyncio.Task[None] | None = None

    async def part(self) -> Part[T]:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(), name="board-part")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._task), PATIENCE_S)
            return self._part
        late = self._part.error or f"no answer within {PATIENCE_S:g} s"
        return Part(self._part.value, self._part.at, late)

    async def _look(self) -> None:
        try:
            value = await self._read()
        except UnjamError as error:
            self._part = Part(self._part.value, self._part.at, error.detail)
        except (OSError, TimeoutError) as error:
            what = f"{type(error).__name__}: {error}"
            self._part = Part(self._part.value, self._part.at, what)
        else:
            self._part = Part(value, time.time())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class Board:
    """Keeps the newest snapshot; whoever asks after a second has passed reads the next one."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._forecaster = Forecaster(house.ledger, house.queue)
        self._meters = Meters(house.settings)
        self._ledger = _Reader(LedgerFacts(), self._read_ledger)
        self._watch = _Reader(WatchFacts(), self._read_watch)
        self._lanes = _Reader(list[dict[str, Any]](), lambda: queue_list(house))
        self._keys = _Reader(KeyFacts(), self._read_keys)
        self._paces = _Reader(Forecast(), self._forecaster.now)
        self._last: Snapshot | None = None
        self._looked = float("-inf")
        self._lock = asyncio.Lock()

    async def snapshot(self, *, newest: bool = False) -> Snapshot:
        """Never raises for a dependency. *newest*: after an action, when a second is too old."""
        async with self._lock:
            last = self._last
            if last is None or newest or time.monotonic() - self._looked >= FRESH_S:
                last = await self._look(last.number + 1 if last else 1)
                self._looked = time.monotonic()
                self._last = last
            return last

    async def _look(self, number: int) -> Snapshot:
        ledger, watch, lanes, keys, paces = await asyncio.gather(
            self._ledger.part(),
            self._watch.part(),
            self._lanes.part(),
            self._keys.part(),
            self._paces.part(),
        )
        return Snapshot(number, time.time(), ledger, watch, lanes, keys, paces.value)

    async def _read_ledger(self) -> LedgerFacts:
        ledger = self._house.ledger
        minute = int(time.time() // 60)
        states = await ledger.state_counts()
        at_work: list[Document] = []
        for state in sorted(RUNNING):
            if states.get(state) and len(at_work) < IN_FLIGHT:
                page = await ledger.list(state=state, limit=IN_FLIGHT - len(at_work))
                at_work += page.items
        counters = await ledger.counters()
        judged = sum(n for (name, _), n in counters.items() if name == "slo_total")
        late = sum(n for (name, _), n in counters.items() if name == "slo_late")
        return LedgerFacts(
            equation=await ledger.equation(),
            states=states,
            backlog=await ledger.backlog(),
            processes=await ledger.processes(),
            dead=await ledger.dead_by_reason(),
            minutes=await ledger.completions(minute - HISTORY_MINUTES + 1, minute + 1),
            breakers=await ledger.dependency_states(),
            in_flight=sorted(at_work, key=lambda d: d.id),
            seq=await ledger.last_event(),
            late=late,
            judged=judged,
        )

    async def _read_watch(self) -> WatchFacts:
        book = book_of(self._house)
        page = await book.incidents(open_only=True, limit=50)
        return WatchFacts(tuple(page.items), await book.remedies_paused())

    async def _read_keys(self) -> KeyFacts:
        known = len(self._house.settings.api_keys)
        if not known:  # the local model: no key, no request, nothing to ask Redis for
            return KeyFacts()
        values = await self._meters.read()
        outcomes = {label: int(n) for (name, label), n in values.items() if name == REQUESTS}
        return KeyFacts(int(values.get((KEYS_READY, ""), 0)), known, outcomes)

    async def close(self) -> None:
        for reader in (self._ledger, self._watch, self._lanes, self._keys, self._paces):
            await reader.close()
