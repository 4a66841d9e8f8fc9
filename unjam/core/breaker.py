"""Breaker: whether work that needs a dependency may begin. Pure; the ledger keeps the rows.

closed → open (reason, time of the next probe) → half-open (one process probes) → closed, or open
again. While it is not closed nobody claims documents, so trouble costs the documents nothing.
The shape is that of M. Nygard, "Release It!" (2007); the numbers are our own, see each.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

State = Literal["closed", "open", "half_open"]

LEDGER, BLOBS, REDIS, EMBEDDING, CHROMA = "ledger", "blobs", "redis", "embedding", "chroma"

DEPENDENCIES = (LEDGER, REDIS, BLOBS, EMBEDDING, CHROMA)
"""In the order in which a document needs them: the first that is away is why it waits."""

OUTBOX = "outbox"
"""A row of the same kind that holds no claims: accepted documents cannot enter their lanes."""

PAUSE = "lane:"
"""``lane:<queue>``: a row that a person opens. It holds the claims of one lane; never probed."""

EVERY_LANE = PAUSE + "*"
"""The same for all lanes."""

OF_REASON: Mapping[str, str] = {
    "ledger_unwritable": LEDGER,
    "ledger_newer": LEDGER,
    "queue_down": REDIS,
    "blob_store_down": BLOBS,
    "embedding_throttled": EMBEDDING,
    "embedding_quota": EMBEDDING,
    "embedding_unauthorised": EMBEDDING,
    "embedding_down": EMBEDDING,
    "embedding_dimension_changed": EMBEDDING,
    "vector_store_down": CHROMA,
}
"""Waiting reason, or error of a program that may not write → whose trouble it is."""

PLAINLY: Mapping[str, str] = {
    LEDGER: "ledger_unwritable",
    REDIS: "queue_down",
    BLOBS: "blob_store_down",
    EMBEDDING: "embedding_down",
    CHROMA: "vector_store_down",
}
"""The waiting reason when nothing more exact is known."""

FIRST_PROBE_S = 0.5
"""A restart of a local server takes about as long."""

PROBE_EVERY_S = 2.0
"""One cheap request for the whole system: work flows within 5 s of a dependency's return."""

FLAP_S = 60.0
"""A breaker that opens again this soon was closed by a probe that does not see the trouble (a
server that answers pings and refuses writes): its first probe comes later each time, …"""

FLAP_CAP_S = 30.0
"""… up to this."""

PROBING_S = 4.0
"""After this long another process may probe, too: the first may have died, or been cut off from
the ledger, and until a probe passes all claims wait. Two probes of a slow server do no harm."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """One row. Times are Unix seconds; *until*: when the next probe may begin."""

    name: str
    state: State = "closed"
    reason: str = ""  # code of core.reasons
    detail: str = ""
    until: float | None = None
    failures: int = 0  # times that it opened in a row
    changed_at: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether claims must wait for it."""
        return self.state != "closed"

    @property
    def place(self) -> int:
        """Its rank in DEPENDENCIES."""
        return DEPENDENCIES.index(self.name) if self.name in DEPENDENCIES else len(DEPENDENCIES)


def paused_lanes(rows: Mapping[str, Breaker]) -> frozenset[str]:
    """Lanes that a person paused; ``*`` among them: all."""
    held = (row.name for row in rows.values() if row.holds)
    return frozenset(name.removeprefix(PAUSE) for name in held if name.startswith(PAUSE))


def reasons_of(name: str) -> tuple[str, ...]:
    """The waiting reasons that are *name*'s trouble."""
    return tuple(reason for reason, whose in OF_REASON.items() if whose == name)


def trip(
    now: Breaker,
    reason: str,
    detail: str,
    at: float,
    told_s: float | None = None,
    dice: Callable[[], float] = random.random,
    *,
    checked: bool = False,
) -> Breaker:
    """After trouble was seen at *at*. *told_s*: the dependency itself said how long to wait.
    *checked*: the check that probes make sees the trouble, too, so it is a new outage and no
    flapping, however soon after the last one.

    An open one stays as it is, unless it was told to wait longer: fifty documents that meet the
    same outage are one outage.
    """
    if now.state == "open":
        if told_s is not None and at + told_s > (now.until or at):
            return replace(now, reason=reason, detail=detail, until=at + told_s, changed_at=at)
        return now
    if now.state == "half_open":
        failures, wait_s = now.failures, PROBE_EVERY_S
    else:
        flaps = not checked and at - now.changed_at < FLAP_S
        failures = now.failures + 1 if flaps else 1
        wait_s = min(FLAP_CAP_S, FIRST_PROBE_S * 2.0 ** min(failures - 1, 16))
    wait_s = max(wait_s * (0.75 + dice() / 4), told_s or 0.0)
    return Breaker(now.name, "open", reason, detail, at + wait_s, failures, at)


def probe(now: Breaker, at: float) -> Breaker | None:
    """The row of whoever may probe at *at*; None when nobody may (yet)."""
    if not now.holds or (now.until or 0.0) > at:
        return None
    return replace(now, state="half_open", until=at + PROBING_S)


def passed(now: Breaker, at: float) -> Breaker:
    """A probe went through: work may begin."""
    return Breaker(now.name, failures=now.failures, changed_at=at)
