"""When a document will be searchable: its lane's recent pace and how many stand before it.

Approximate, and silent (None) where nothing is known: a lane without recent completions, without
live workers or paused, or a document that waits for something else. One look a second serves all
documents; a document then costs a binary search over a few samples of its lane.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from unjam.core.document import CLAIMABLE, RUNNING, Document, State
from unjam.core.errors import DependencyDown
from unjam.core.ports import Completed, LaneFacts, Ledger, Queue

LOOK_BACK_MINUTES = 10
LEAST_SPAN_S = 20.0
"""A burst of the first seconds says little about a lane's pace: it counts over this long."""
FRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """One lane: documents a second lately, and the mean time of work on one, seconds."""

    per_s: float
    work_s: float
    lane: LaneFacts

    def before(self, document_id: str) -> float:
        """About how many stand before it. Ids sort by the time of acceptance, so in a lane that
        nobody reordered it is found between two samples; in any other all stand before it."""
        line, count = self.lane.line, self.lane.count
        if not line or any(a >= b for a, b in pairwise(line)):
            return float(count)
        return count * bisect_left(line, document_id) / len(line)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The state of all lanes at one moment; empty when it could not be had."""

    paces: Mapping[str, Pace] = field(default_factory=dict[str, Pace])

    def eta_s(self, document: Document, now: float) -> float | None:
        """Seconds until it is searchable; None = unknown, or it will not move by itself."""
        pace = self.paces.get(document.lane)
        if pace is None:
            return None
        if document.state in RUNNING:
            done, total = document.progress_done, document.progress_total
            share = min(1.0, done / total) if total else 0.0
            return round(pace.work_s * (1.0 - share), 1)
        if document.state in CLAIMABLE:
            return round(pace.before(document.id) / pace.per_s + pace.work_s, 1)
        if document.state is State.WAITING and document.reason == "processing_error":
            rest = max(0.0, (document.next_step_at or now) - now)
            return round(rest + pace.lane.count / pace.per_s + pace.work_s, 1)
        return None


def paces_of(rows: list[Completed], lanes: Mapping[str, LaneFacts], now: float) -> dict[str, Pace]:
    """The pace of each lane that completed something lately and goes on."""
    jobs: dict[str, int] = {}
    spent_s: dict[str, float] = {}
    began: dict[str, float] = {}
    for row in rows:
        jobs[row.queue] = jobs.get(row.queue, 0) + row.jobs
        spent_s[row.queue] = spent_s.get(row.queue, 0.0) + row.duration_s
        began.setdefault(row.queue, row.minute * 60.0)
    found: dict[str, Pace] = {}
    for name, n in jobs.items():
        lane = lanes.get(name)
        if n and lane is not None and lane.workers and not lane.paused:
            span_s = max(LEAST_SPAN_S, now - began[name])
            found[name] = Pace(n / span_s, spent_s[name] / n, lane)
    return found


class Forecaster:
    """Keeps one forecast a second for everybody who asks."""

    def __init__(self, ledger: Ledger, queue: Queue) -> None:
        self._ledger = ledger
        self._queue = queue
        self._last = Forecast()
        self._looked = float("-inf")
        self._lock = asyncio.Lock()

    async def now(self) -> Forecast:
        """Never raises for a dependency: nothing is known then."""
        if time.monotonic() - self._looked > FRESH_S:
            async with self._lock:
                if time.monotonic() - self._looked > FRESH_S:
                    self._last = await self._look()
                    self._looked = time.monotonic()
        return self._last

    async def _look(self) -> Forecast:
        now = self._ledger.now()
        minute = int(now // 60)
        try:
            rows = await self._ledger.completions(minute - LOOK_BACK_MINUTES, minute + 1)
            lanes = await self._queue.lane_facts() if rows else {}
        except DependencyDown:
            return Forecast()
        return Forecast(paces_of(rows, lanes, now))

    async def eta_s(self, document: Document) -> float | None:
        """As :meth:`Forecast.eta_s`, now."""
        return (await self.now()).eta_s(document, self._ledger.now())
