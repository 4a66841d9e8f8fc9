"""What the leader does besides reconciling: statistics, the daily CSV, the ledger's upkeep.

Each chore is called every round, does a bounded piece of work, and may be cut off anywhere.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta, tzinfo
from pathlib import Path

from unjam.core.ports import Ledger, Queue
from unjam.observe.stats import (
    DAY_KEPT_S,
    KEPT_MINUTES,
    MINUTE_S,
    REPORT_HOUR,
    WINDOW_MINUTES,
    Completions,
    capacity_line,
    kept_s,
    local,
    merged,
    midnight,
    minutes_of,
)

Clock = Callable[[], float]

SLICES = 8
"""Slices of upkeep a round: 4,000 rows in two seconds, more than a busy house adds."""

ALL_AGAIN_S = 600.0
"""An eviction may take single keys; all of them are written again this often."""


@dataclass(slots=True)
class StatsMirror:
    """The ledger's figures by minute → ``rag:stats:…`` in Redis."""

    ledger: Ledger
    queue: Queue
    zone: tzinfo | None
    clock: Clock = time.time
    _written: dict[str, int] = field(default_factory=dict[str, int])
    _all_due: float = float("-inf")

    async def __call__(self) -> None:
        """Write what changed; everything when Redis lost it. Raises DependencyDown."""
        now = self.clock()
        complete = now < self._all_due and await self.queue.has_figures()
        if not complete:
            self._written = {}
        figures = await (self._open_ones(now) if complete else self._all(now))
        changed = {key: n for key, n in figures.items() if self._written.get(key) != n}
        if changed:
            await self.queue.write_figures(changed, {key: kept_s(key) for key in changed})
        self._written = figures
        if not complete:
            self._all_due = now + ALL_AGAIN_S

    async def _open_ones(self, now: float) -> dict[str, int]:
        """The windows that still grow, and today. What was committed late enters the others with
        the next writing of everything."""
        this = int(now // MINUTE_S)
        since = int(midnight(local(now, self.zone).date(), self.zone) // MINUTE_S)
        first = min(since, this - 2 * WINDOW_MINUTES)
        rows = await self.ledger.completions(first, this + 1)
        done = Completions(self.zone, rows)
        days = Completions(self.zone, (row for row in rows if row.minute >= since))
        return {**done.windows(now), **days.days(now)}

    async def _all(self, now: float) -> dict[str, int]:
        this = int(now // MINUTE_S)
        first = this - KEPT_MINUTES - WINDOW_MINUTES
        oldest = local(now - DAY_KEPT_S, self.zone).date() + timedelta(days=1)
        since = minutes_of(oldest, self.zone)[0]
        rows = await self.ledger.completions(since, this + 1)
        done = Completions(self.zone, (row for row in rows if row.minute >= first))
        days = Completions(self.zone, rows)
        return {**done.windows(now, minutes=KEPT_MINUTES), **days.days(now)}


@dataclass(slots=True)
class CapacityFile:
    """``rag-capacity.csv``: one line ``DATE,JOBS,AVG`` a day, at 23:00 local time.

    What was missed while nobody led is made up for, and yesterday's line is completed after
    midnight.
    """

    ledger: Ledger
    file: Path
    zone: tzinfo | None
    clock: Clock = time.time
    _done: tuple[date, bool] | None = None

    async def __call__(self) -> None:
        moment = local(self.clock(), self.zone)
        stage = (moment.date(), moment.hour >= REPORT_HOUR)
        if stage != self._done:
            await self._write(*stage)
            self._done = stage

    async def _write(self, today: date, reported: bool) -> None:
        lines = await asyncio.to_thread(self._read)
        yesterday = today - timedelta(days=1)
        first = self._first_due(lines, yesterday)
        days = [first + timedelta(days=n) for n in range((yesterday - first).days + 1)]
        if reported:
            days.append(today)
        fresh: dict[str, str] = {}
        for day in days:
            rows = await self.ledger.completions(*minutes_of(day, self.zone))
            if rows or lines or day == today:  # days before the house was built have no line
                fresh[f"{day:%Y%m%d}"] = capacity_line(day, rows)
                lines = merged(lines, fresh)
        if fresh:
            await asyncio.to_thread(self._replace, lines)

    def _first_due(self, lines: list[str], yesterday: date) -> date:
        """The day after the last line, at most a year ago; yesterday in any case."""
        oldest = yesterday - timedelta(days=365)
        for line in reversed(lines):
            try:
                last = date.fromisoformat(line.partition(",")[0])
            except ValueError:
                continue
            # The last line may be one of 23:00: it is counted again, whole.
            return max(oldest, min(last, yesterday))
        return yesterday

    def _read(self) -> list[str]:
        try:
            return self.file.read_text().splitlines()
        except FileNotFoundError:
            return []

    def _replace(self, lines: list[str]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        half = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        half.write_text("".join(f"{line}\n" for line in lines))
        half.replace(self.file)


@dataclass(slots=True)
class Upkeep:
    """Late documents are counted when their deadline passes; what is old enough is forgotten."""

    ledger: Ledger
    slice_: int = 500
    rest_s: float = 60.0
    _due: float = 0.0

    async def __call__(self) -> None:
        for _ in range(SLICES):
            if await self.ledger.count_late(limit=self.slice_) < self.slice_:
                break
        if time.monotonic() < self._due:
            return
        for _ in range(SLICES):
            if await self.ledger.trim(self.slice_) < self.slice_:
                self._due = time.monotonic() + self.rest_s
                return
