"""How much comes, how much the house can do, what limits it, and what would help.

All of it is estimated from what was seen, never from a data sheet:

- *capability* is the pace of the last minutes in which documents waited (at most ten; the house
  then does what it can), otherwise the best five minutes of the last day: at least that.
- the *bottleneck* is the stage in which the latest documents spent most of their time. Under load
  a line forms in front of the slowest stage, and that wait is part of the stage's time.
- *what if* scales each stage's ceiling by what was added: stages that run on this house's cores by
  workers (never beyond the cores), an endpoint by requests in flight and by key groups, the vector
  store's one writer by nothing. The lowest ceiling wins. It is a bound, not a promise.

Everything here is pure. Rates are documents a second, times Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from unjam.core.ports import Completed

STAGES = ("parse", "embed", "store")
Stage = Literal["parse", "embed", "store", "endpoint_limit"]
Basis = Literal["measured", "best_seen", "unknown"]

LOAD_DOCUMENTS = 10
"""From this many waiting documents on the house is under load."""
PACE_MINUTES, BEST_MINUTES = 10, 5
MOST_WORKERS = 64
ROOM = 1.2
"""Enough means a fifth more than what comes: nobody wants a house that is exactly full."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished document: milliseconds by stage, and its chunks."""

    stage_ms: Mapping[str, float]
    chunks: int


@dataclass(frozen=True, slots=True)
class Day:
    """One day of ``rag-capacity.csv``; *average_ms*: from claim to searchable."""

    date: str  # YYYYMMDD
    jobs: int
    average_ms: int

    def line(self) -> str:
        return f"{self.date},{self.jobs},{self.average_ms}"


@dataclass(frozen=True, slots=True)
class House:
    """What the house has. *key_groups* 0: the local model."""

    workers: int
    cores: int
    key_groups: int = 0
    keys_ready: int = 0
    requests_per_minute: int = 0  # per key group
    texts_per_request: int = 0
    in_flight_cap: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """*arrivals*: minute (Unix s // 60) → documents accepted; *done*: the last day by minute."""

    now: float
    arrivals: Mapping[int, int]
    done: Sequence[Completed]
    waiting: int
    in_work: int
    oldest_s: float
    house: House
    samples: Sequence[Sample] = ()
    days: Sequence[Day] = ()  # oldest first, whole days only


@dataclass(frozen=True, slots=True)
class WhatIf:
    """*limit*: the stage that is the lowest ceiling then."""

    workers: int
    key_groups: int
    per_s: float
    limit: Stage


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through the days (least squares)."""

    jobs_per_day: float  # by the line, today
    growth_per_day: float
    in_30_days: float
    full_in_days: int | None  # None: never, the way it goes


@dataclass(frozen=True, slots=True)
class Report:
    """*headroom*: the part of the capability that is not asked for; negative: too much comes.
    *drain_s*: until nothing waits; None: never, or unknown."""

    arrivals_per_s: Mapping[str, float]  # "5m", "1h"
    completions_per_s: Mapping[str, float]  # "5m", "1h", "24h"
    waiting: int
    in_work: int
    oldest_s: float
    capability_per_s: float | None
    basis: Basis
    headroom: float | None
    drain_s: float | None
    bottleneck: Stage | None
    shares: Mapping[str, float]  # stage → share of the documents' time
    chunks_per_document: float | None
    house: House
    enough_workers: int | None  # workers that would do for what comes; None: workers do not help
    what_if: Sequence[WhatIf] = ()
    trend: Trend | None = None
    days: Sequence[Day] = field(default_factory=tuple[Day, ...])


def report(facts: Facts, asked: Sequence[tuple[int, int]] = ()) -> Report:
    """*asked*: (workers, key groups) to judge besides the usual ones."""
    minute = int(facts.now // 60)
    arrivals = {name: _mean(facts.arrivals, minute, n) for name, n in (("5m", 5), ("1h", 60))}
    by_minute: dict[int, int] = {}
    for row in facts.done:
        by_minute[row.minute] = by_minute.get(row.minute, 0) + row.jobs
    done = {n: _mean(by_minute, minute, m) for n, m in (("5m", 5), ("1h", 60), ("24h", 1440))}
    capability, basis = _capability(facts, by_minute, minute)
    shares, chunks = _shares(facts.samples), _chunks(facts.samples)
    limit = _endpoint_limit(facts.house, chunks)
    bottleneck = _bottleneck(shares, capability, limit)
    coming = max(arrivals.values())

    def what_if(workers: int, groups: int) -> WhatIf | None:
        return _what_if(facts.house, shares, capability, limit, workers, groups)

    usual = _usual(facts.house)
    judged = [found for w, g in (*usual, *asked) if (found := what_if(w, g)) is not None]
    spare = capability - coming if capability else None
    return Report(
        arrivals_per_s=arrivals,
        completions_per_s=done,
        waiting=facts.waiting,
        in_work=facts.in_work,
        oldest_s=round(facts.oldest_s, 1),
        capability_per_s=_round(capability),
        basis=basis,
        headroom=round(1 - coming / capability, 3) if capability else None,
        drain_s=round(facts.waiting / spare, 1) if spare and spare > 0 else None,
        bottleneck=bottleneck,
        shares={stage: round(share, 3) for stage, share in shares.items()},
        chunks_per_document=_round(chunks),
        house=facts.house,
        enough_workers=_enough(facts.house, coming, what_if),
        what_if=judged,
        trend=_trend(facts.days, capability),
        days=tuple(facts.days),
    )


# -- what was seen ----------------------------------------------------------------------------
def _mean(counts: Mapping[int, int], minute: int, minutes: int) -> float:
    """Per second over the *minutes* that ended last; the running one is not whole yet."""
    seen = sum(n for m, n in counts.items() if minute - minutes <= m < minute)
    return round(seen / (60 * minutes), 4)


def _capability(
    facts: Facts, by_minute: Mapping[int, int], minute: int
) -> tuple[float | None, Basis]:
    if not by_minute:
        return None, "unknown"
    loaded = min(PACE_MINUTES, int(facts.oldest_s // 60))  # minutes in which documents waited
    if facts.waiting >= LOAD_DOCUMENTS and loaded >= 1:
        return _mean(by_minute, minute, loaded), "measured"
    best = max(sum(by_minute.get(m + n, 0) for n in range(BEST_MINUTES)) for m in by_minute)
    return best / (60 * BEST_MINUTES), "best_seen"


def _shares(samples: Sequence[Sample]) -> dict[str, float]:
    """Stage → its share of the time of all samples; {} when nothing is known."""
    spent = {s: sum(max(0.0, x.stage_ms.get(s, 0.0)) for x in samples) for s in STAGES}
    whole = sum(spent.values())
    return {stage: ms / whole for stage, ms in spent.items()} if whole else {}


def _chunks(samples: Sequence[Sample]) -> float | None:
    return sum(s.chunks for s in samples) / len(samples) if samples else None


def _endpoint_limit(house: House, chunks: float | None) -> float | None:
    """Documents a second that the limit of requests a minute allows; None: no endpoint."""
    if not house.key_groups or not chunks or not house.requests_per_minute:
        return None
    texts_per_s = house.requests_per_minute / 60 * max(1, house.texts_per_request)
    return house.key_groups * texts_per_s / chunks


def _bottleneck(
    shares: Mapping[str, float], capability: float | None, limit: float | None
) -> Stage | None:
    if capability and limit and capability >= 0.9 * limit:
        return "endpoint_limit"
    if not shares:
        return None
    slowest = max(shares, key=lambda stage: shares[stage])
    return next(stage for stage in STAGES if stage == slowest)


# -- what would be ----------------------------------------------------------------------------
def _what_if(
    house: House,
    shares: Mapping[str, float],
    capability: float | None,
    limit: float | None,
    workers: int,
    groups: int,
) -> WhatIf | None:
    if not capability or not shares:
        return None
    top = max(shares.values())
    on_cores = min(workers, house.cores) / max(1, min(house.workers, house.cores))
    requests = workers / max(1, house.workers)
    scale = {"parse": on_cores, "embed": requests if house.key_groups else on_cores, "store": 1.0}
    ceilings: dict[Stage, float] = {
        stage: capability * top / shares[stage] * scale[stage]
        for stage in STAGES
        if shares[stage] > 0
    }
    if limit:
        ceilings["endpoint_limit"] = limit * groups / house.key_groups
    lowest = min(ceilings, key=lambda stage: ceilings[stage])
    return WhatIf(workers, groups, round(ceilings[lowest], 3), lowest)


def _usual(house: House) -> list[tuple[int, int]]:
    now = max(1, house.workers)
    rows = [(w, house.key_groups) for w in dict.fromkeys((now, now + 1, 2 * now, 4 * now))]
    if house.key_groups:
        rows += [(now, house.key_groups + 1), (2 * now, 2 * house.key_groups)]
    return [(w, g) for w, g in rows if w <= MOST_WORKERS]


def _enough(
    house: House, coming: float, what_if: Callable[[int, int], WhatIf | None]
) -> int | None:
    for workers in range(1, MOST_WORKERS + 1):
        found = what_if(workers, house.key_groups)
        if found is not None and found.per_s >= coming * ROOM:
            return workers
    return None


def _trend(days: Sequence[Day], capability: float | None) -> Trend | None:
    """None below three days."""
    if len(days) < 3:
        return None
    n = len(days)
    mean_x, mean_y = (n - 1) / 2, sum(d.jobs for d in days) / n
    spread = sum((x - mean_x) ** 2 for x in range(n))
    slope = sum((x - mean_x) * (d.jobs - mean_y) for x, d in enumerate(days)) / spread
    today = max(0.0, mean_y + slope * (n - mean_x))
    full: int | None = None
    if capability:
        most = capability * 86_400
        if today >= most:
            full = 0
        elif slope > 0:
            full = int((most - today) / slope)
    return Trend(round(today, 1), round(slope, 2), round(max(0.0, today + 30 * slope), 1), full)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
