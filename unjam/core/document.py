"""Document: its states, the moves that are legal between them, and the records that travel with it.

``received → queued → parsing → chunking → embedding → storing → searchable``, or
``waiting`` (reason, until), ``dead``, ``cancelled``, ``deleted``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any


class State(StrEnum):
    """Where a document stands. Exactly one at any time; every change is an event in the ledger."""

    RECEIVED = "received"  # durable, no lane holds it yet: the outbox
    QUEUED = "queued"  # a lane holds its job
    PARSING = "parsing"
    CHUNKING = "chunking"
    EMBEDDING = "embedding"
    STORING = "storing"
    SEARCHABLE = "searchable"
    WAITING = "waiting"  # has a reason and a next step time; costs no attempt
    DEAD = "dead"  # parked with a reason and a hint
    CANCELLED = "cancelled"
    DELETED = "deleted"


RUNNING = frozenset({State.PARSING, State.CHUNKING, State.EMBEDDING, State.STORING})
CLAIMABLE = frozenset({State.RECEIVED, State.QUEUED})
ENDED = frozenset({State.SEARCHABLE, State.DEAD, State.CANCELLED, State.DELETED})
LIVE = frozenset(State) - {State.DEAD, State.CANCELLED, State.DELETED}
"""States in which a copy counts as a duplicate of the same bytes by the same user."""

_LEAVE_WORK = frozenset(
    {State.RECEIVED, State.SEARCHABLE, State.WAITING, State.DEAD, State.CANCELLED, State.DELETED}
)
LEGAL_MOVES: Mapping[State, frozenset[State]] = {
    # RECEIVED -> RECEIVED: an update before the first claim; the same holds further down.
    State.RECEIVED: frozenset(
        {State.RECEIVED, State.QUEUED, State.PARSING, State.CANCELLED, State.DELETED}
    ),
    State.QUEUED: frozenset({State.RECEIVED, State.PARSING, State.CANCELLED, State.DELETED}),
    State.PARSING: frozenset({State.CHUNKING, State.EMBEDDING, State.STORING}) | _LEAVE_WORK,
    State.CHUNKING: frozenset({State.EMBEDDING, State.STORING}) | _LEAVE_WORK,
    # A large document streams: it embeds its next window after it stored the last one.
    State.EMBEDDING: frozenset({State.STORING}) | _LEAVE_WORK,
    State.STORING: frozenset({State.EMBEDDING}) | _LEAVE_WORK,
    State.WAITING: frozenset({State.RECEIVED, State.DEAD, State.CANCELLED, State.DELETED}),
    State.SEARCHABLE: frozenset({State.RECEIVED, State.DELETED}),
    State.DEAD: frozenset({State.RECEIVED, State.CANCELLED, State.DELETED}),
    State.CANCELLED: frozenset({State.RECEIVED, State.DELETED}),
    State.DELETED: frozenset(),
}


def is_legal(source: State, target: State) -> bool:
    """Whether a document may go from *source* to *target* in one step."""
    return target in LEGAL_MOVES[source]


@dataclass(frozen=True)
class Fingerprint:
    """What decides an embedding's value; equal fingerprints mean interchangeable vectors."""

    endpoint: str  # "local", or the base URL without credentials
    model: str
    revision: str = ""
    dimension: int = 0  # 0: whatever the model gives
    role_prefix: str = ""  # prepended to passages, e.g. "passage: "
    sanitiser: int = 1

    @cached_property
    def id(self) -> str:
        """Twelve hex digits; names the vector collection and keys the embedding cache."""
        return _digest(asdict(self))[:12]

    @property
    def collection(self) -> str:
        """The vector store's collection for these vectors."""
        return f"unjam-{self.id}"


@dataclass(frozen=True)
class Pin:
    """The settings a generation keeps for its whole life, whatever the knobs do meanwhile."""

    fingerprint: Fingerprint
    chunk_tokens: int
    overlap_tokens: int
    tokenizer: str  # "local" or the OpenAI encoding's name
    parser_version: int = 1

    @cached_property
    def id(self) -> str:
        """Sixteen hex digits over everything pinned."""
        return _digest(asdict(self))[:16]

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Pin:
        raw: dict[str, Any] = json.loads(text)
        fingerprint = Fingerprint(**raw.pop("fingerprint"))
        return Pin(fingerprint=fingerprint, **raw)


@dataclass(frozen=True, slots=True)
class Document:
    """One row of the ledger, as everybody but the ledger sees it. Times are Unix seconds (UTC)."""

    id: str
    user_id: str  # "" = anonymous
    filename: str
    media_type: str
    size_bytes: int
    content_hash: str  # sha-256, hex
    state: State
    generation: int  # the newest
    visible_generation: int  # 0 = none: not searchable yet
    chunks: int  # of the visible generation
    lane: str  # RQ queue it belongs to
    enqueue_seq: int
    reason: str  # code of core.reasons, "" when it moves
    detail: str  # what exactly happened, for a person
    next_step_at: float | None
    progress_done: int  # chunks stored of this generation
    progress_total: int  # 0 = not known yet
    errors: int
    deaths: int
    throttles: int
    suspect: bool
    worker: str  # who holds the lease, "" = nobody
    created_at: float
    updated_at: float
    searchable_at: float | None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    names: tuple[str, ...] = ()  # further names under which the same bytes arrived


@dataclass(frozen=True, slots=True)
class Submission:
    """An upload whose bytes stand in the blob store, about to be accepted."""

    document_id: str  # a fresh UUIDv7; unused when it turns out to be a duplicate
    user_id: str
    filename: str
    media_type: str
    size_bytes: int
    content_hash: str
    pin: Pin
    lane: str
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    idempotency_key: str = ""
    blob_durable: bool = True
    """False: only hashed so far. A new document is then not accepted but answered NEEDS_BLOB."""


class AcceptKind(StrEnum):
    CREATED = "created"
    DUPLICATE = "duplicate"  # the same bytes of the same user live already
    REVIVED = "revived"  # a dead copy was put back to work in place
    REPLAYED = "replayed"  # same Idempotency-Key, same body
    CONFLICT = "conflict"  # same Idempotency-Key, another body
    NEEDS_BLOB = "needs_blob"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The ledger's answer to one submission."""

    kind: AcceptKind
    document_id: str
    enqueue_seq: int = 0
    state: State = State.RECEIVED


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a lane carries: which document, and which of its enqueues this is."""

    document_id: str
    enqueue_seq: int
    lane: str = ""
    size_bytes: int = 0
    user_id: str = field(default="", compare=False)  # users take turns in a lane

    @property
    def job_id(self) -> str:
        """``<document>-<enqueue sequence>``: never reused, so a stale one is a no-op."""
        return f"{self.document_id}-{self.enqueue_seq}"

    @staticmethod
    def parse(job_id: str, lane: str = "") -> Ticket | None:
        """The ticket of a job id, or None when the id is not one of ours."""
        document_id, _, seq = job_id.rpartition("-")
        if not document_id or not seq.isdigit():
            return None
        return Ticket(document_id, int(seq), lane)


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease on one document: everything a worker needs, valid while its token is."""

    document_id: str
    generation: int
    token: int  # fencing token: grows with each claim of the document
    enqueue_seq: int
    user_id: str
    filename: str
    media_type: str
    size_bytes: int
    content_hash: str
    pin: Pin
    lane: str
    visible_generation: int
    errors: int
    deaths: int
    suspect: bool
    metadata: Mapping[str, Any]
    created_at: float
    claimed_at: float
    stored: int = 0
    """Chunks of this generation that an earlier claim saw stored; it may have stored more."""


class ClaimKind(StrEnum):
    CLAIMED = "claimed"
    STALE = "stale"  # another enqueue, or no longer claimable: drop the job
    NO_SLOT = "no_slot"  # the system-wide cap is reached, or the lane paused: put the job back


@dataclass(frozen=True, slots=True)
class ClaimAnswer:
    kind: ClaimKind
    ticket: Ticket
    claim: Claim | None = None


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
