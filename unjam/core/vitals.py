"""Vitals: what the ledger knows at one moment of how the house is. One question, flat in cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from unjam.core.breaker import Breaker
from unjam.core.document import State

if TYPE_CHECKING:
    from unjam.core.ports import Backlog, Completed, WorkerRef


@dataclass(frozen=True, slots=True)
class Running:
    """A document in somebody's hand. Its (token, state, done) changes with progress only."""

    document_id: str
    worker: str
    token: int
    state: State
    done: int
    lane: str
    size_bytes: int
    suspect: bool
    alone: bool
    claimed_at: float


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """A worker died with this document in its hand, as the event tells. *evidence*: its data
    (worker, step, done, total, alone, deaths, and how, where somebody saw it)."""

    seq: int
    at: float
    document_id: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Paid:
    """What one document that became searchable cost, by stage, milliseconds."""

    at: float
    chunks: int
    stage_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Standing:
    """A document in line, as far as its place there is judged."""

    document_id: str
    lane: str
    user_id: str
    size_bytes: int
    since: float


@dataclass(frozen=True, slots=True)
class Vitals:
    """Times are Unix seconds, ages seconds; *now* is the ledger's clock (its database's)."""

    ledger_id: str
    now: float
    counts: Mapping[State, int]
    backlog: Backlog
    oldest_since: Mapping[str, float]  # lane → since when its longest waiting one stands there
    breakers: Mapping[str, Breaker]
    processes: tuple[tuple[WorkerRef, float], ...]
    """Every process that reported, with the age of its heartbeat."""
    died: Mapping[str, float]
    """Process id → age of its death, of those that died within the last ten seconds."""
    running: tuple[Running, ...]  # at most RUNNING_SEEN of them, the oldest leases first
    running_count: int
    heads: tuple[Standing, ...]  # the HEADS_SEEN that wait longest in each lane
    deaths: tuple[WorkerDeath, ...]
    dead: tuple[tuple[float, str, str], ...]  # lately parked: (at, reason, document id)
    paid: tuple[Paid, ...]  # lately searchable
    last_event: int
    counters: Mapping[tuple[str, str], float]
    completions: tuple[Completed, ...]  # of the last ten minutes
    waiting_for: Mapping[str, int]  # reason → documents, of a bounded number of waiting ones
    missing: int  # searchable documents with chunks absent from the vector store
    epoch: int
    knobs: Mapping[str, int]
    exits: Mapping[str, int] = field(default_factory=dict[str, int])
    """Process id → exit code (negative: signal), where a supervisor saw it end."""
    ended: Mapping[str, tuple[float, int]] = field(default_factory=dict[str, tuple[float, int]])
    """Process id → (age of its end, exit code), of workers whose supervisor saw them end within
    the last minute, also of those that never had a heartbeat."""
    meta: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further notes of the ledger, by key, as others left them for the watchdog."""


class Patient(Protocol):
    """What can be asked how it is: the ledger, also when it was opened for reading only.

    Raises DependencyDown (ledger_unwritable) when it cannot be read.
    """

    @property
    def id(self) -> str: ...

    async def vitals(self, lanes: Sequence[str], after: int = 0) -> Vitals:
        """In one snapshot; flat at a million rows. *lanes*: whose heads are wanted. *after*: the
        last event that is known already (``Vitals.last_event``); what happened is told from there
        on."""
        ...

    async def glimpse(self, document_ids: Sequence[str]) -> list[Standing]:
        """Those of the documents that stand in line."""
        ...
