"""What the ledger answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unjam.core.document import (
    Document,
    Pin,
    State,
    Ticket,
)


@dataclass(frozen=True, slots=True)
class WorkerRef:
    """One process that may hold leases. *id* is unique per process life."""

    id: str
    host: str
    pid: int
    version: str
    kind: Literal["worker", "stock", "watchdog", "api", "supervisor"] = "worker"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a claim has come; reported apart from life (a renewal alone is no progress)."""

    document_id: str
    token: int
    state: State
    done: int = 0  # chunks stored and confirmed
    total: int = 0  # 0 = not known yet
    alone: bool = False  # a suspect, and the process holds nothing else


@dataclass(frozen=True, slots=True)
class Settled:
    """The ledger's answer to the end of one claim. *moved* False: the token was no longer valid."""

    document_id: str
    moved: bool
    state: State
    ticket: Ticket | None = None  # to be pushed (back to work at once) or parked (state dead)
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Cleanup:
    """Chunks that must go from the vector store: computed ids of one generation."""

    id: int
    document_id: str
    generation: int
    collection: str
    first: int  # chunk indices first … last-1
    last: int  # -1: unknown; go on block by block until a whole block is absent
    due_at: float
    purge: Pin | None = None
    """Set when the document is deleted and no other holds its bytes: the vectors that this pin's
    cache remembers of its texts go, too."""


@dataclass(frozen=True, slots=True)
class VisibleDocument:
    """What search needs to know about a document that may be shown."""

    document_id: str
    generation: int
    filename: str
    user_id: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Equation:
    """accepted = searchable + running + queued + waiting + dead + cancelled + deleted + missing."""

    accepted: int
    searchable: int
    running: int
    queued: int
    waiting: int
    dead: int
    cancelled: int
    deleted: int
    missing: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What stands in line (received, queued)."""

    documents: int
    size_bytes: int  # above 5,000 documents of a state: estimated from the oldest of them
    oldest_s: float  # since the oldest of these came to where it stands


@dataclass(frozen=True, slots=True)
class Completed:
    """What became searchable in one minute (older figures: in the quarter-hour from it on)."""

    minute: int  # Unix seconds // 60
    queue: str
    jobs: int
    duration_s: float  # sum, from claim to searchable


@dataclass(frozen=True, slots=True)
class Page:
    items: Sequence[Document]
    next_cursor: str | None


Strategy = Literal["oldest_first", "newest_first", "smallest_first", "largest_first", "fair"]
"""Orders of a lane; *fair*: the users in turn, each one's oldest first."""


@dataclass(frozen=True, slots=True)
class InLine:
    """A document that waits for a worker, as the rules of operators see it."""

    ticket: Ticket
    media_type: str
    accepted_at: float  # Unix seconds
    attempts: int  # errors and deaths that counted
    home_lane: str  # where it belongs unless somebody moved it
