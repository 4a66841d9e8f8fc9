"""Ports: what the rooms ask of each other. Adapters are built in ``unjam.app`` and nowhere else.

Every port has one contract suite (``tests/contract``) that runs over all of its adapters, the
in-memory double included. Methods are coroutines unless they say otherwise; times are Unix
seconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from unjam.core.breaker import Breaker
from unjam.core.chunk import Chunk, StoredChunk
from unjam.core.dead_letters import AT_ONCE, DeadFilter, DeadLetter
from unjam.core.document import (
    Accepted,
    Claim,
    ClaimAnswer,
    Document,
    Pin,
    State,
    Submission,
    Ticket,
)
from unjam.core.events import Event
from unjam.core.incident import (
    Action,
    Diagnosis,
    Incident,
    IncidentEvent,
    IncidentPage,
    RemedyRequest,
    Sample,
    Severity,
)
from unjam.core.outcome import Outcome

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    """Shape (texts, dimension), unit length, C-contiguous float32."""
else:
    Vectors = object  # processes without vectors (parsing children, the CLI) need no NumPy


# -- ledger ---------------------------------------------------------------------------------
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


class Ledger(Protocol):
    """The truth. Every write of a claim is conditional on its fencing token."""

    id: str
    """UUID made with the ledger; tells one house from another."""

    # documents, as users see them
    async def accept(self, submissions: Sequence[Submission]) -> list[Accepted]:
        """Make the submissions durable, one answer each, all in one group commit."""
        ...

    async def find_live(self, user_id: str, content_hashes: Sequence[str]) -> dict[str, str]:
        """Content hash → id of this user's live document with these bytes; one question."""
        ...

    async def find_idempotent(self, user_id: str, key: str) -> tuple[str, str] | None:
        """(document id, content hash) accepted under this Idempotency-Key."""
        ...

    async def replace(self, document_id: str, submission: Submission) -> Accepted:
        """A new generation (PUT). A running claim of the old one loses its token.

        Raises:
            NotFound: no such document, or deleted.
        """
        ...

    async def get(self, document_id: str) -> Document | None: ...

    async def get_many(self, document_ids: Sequence[str]) -> list[Document]:
        """Those that exist, in no particular order; one question for all."""
        ...

    async def list(
        self,
        *,
        state: State | None = None,
        user_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Newest first; flat at a million rows. Deleted ones only when asked for."""
        ...

    async def cancel(self, document_id: str) -> Document:
        """Stop it wherever it is. Raises NotFound; Conflict when it has ended otherwise."""
        ...

    async def retry(self, document_id: str, pin: Pin | None = None) -> Ticket:
        """Put a dead, cancelled or waiting document back to work, budgets reset.

        A dead or cancelled one gets a new generation (late cleanups of the old one must not
        meet it), pinned to *pin* or to what it had. Raises NotFound; Conflict in other states.
        """
        ...

    async def delete(self, document_id: str) -> None:
        """Tombstone it; its chunks are scheduled for removal, a running claim loses its token.

        Idempotent. Raises NotFound.
        """
        ...

    async def events(
        self, document_id: str | None, after: int = 0, limit: int = 200
    ) -> list[Event]:
        """Oldest first; of one document or of all."""
        ...

    async def last_event(self) -> int:
        """Number of the newest event, to tail from; 0 when there is none."""
        ...

    async def equation(self) -> Equation: ...

    async def state_counts(self) -> dict[State, int]: ...

    async def backlog(self) -> Backlog:
        """How much stands in line; flat however much that is."""
        ...

    async def counters(self) -> dict[tuple[str, str], float]:
        """(name, queue) → value, since the ledger began. Names: jobs_started, jobs_completed,
        jobs_failed, slo_total, slo_late, duration_sum, and duration_le:<bucket>."""
        ...

    async def completions(self, first_minute: int, end_minute: int) -> list[Completed]:
        """Those of the minutes first … end-1, oldest first; minutes without any are left out."""
        ...

    async def arrivals(self, first_minute: int, end_minute: int) -> dict[int, int]:
        """Minute (Unix seconds // 60) → documents accepted in it; new ids only, no updates. Costs
        by how many those are: ask for hours, not for months."""
        ...

    async def in_line_since(self, lanes: Sequence[str]) -> dict[str, float]:
        """Lane → since when (Unix s) its longest waiting document stands in line; flat."""
        ...

    async def visible(self, document_ids: Sequence[str]) -> dict[str, VisibleDocument]:
        """Those of the documents that search may show, with their visible generation."""
        ...

    async def pins_in_use(self) -> list[Pin]:
        """Pins of visible generations: more than one while a changed model builds beside."""
        ...

    async def repin(self, pin: Pin, limit: int) -> list[Ticket]:
        """Give searchable documents whose fingerprint is not *pin*'s a new generation."""
        ...

    # dead letters
    async def dead_by_reason(self) -> dict[str, int]:
        """Reason → how many are dead of it, most first; costs the same at any number."""
        ...

    async def count_dead(self, which: DeadFilter) -> int: ...

    async def dead_page(
        self, which: DeadFilter, *, cursor: str | None = None, limit: int = 50
    ) -> Page:
        """Those that match, newest document first."""
        ...

    async def dead_letter(self, document_id: str) -> DeadLetter:
        """Raises NotFound: no such document, or not dead."""
        ...

    async def retry_many(
        self,
        which: DeadFilter,
        *,
        expected: int | None = None,
        limit: int = AT_ONCE,
        pin: Pin | None = None,
        by: str = "",
    ) -> list[Ticket]:
        """Put those that match at this moment back to work, all in one transaction, audited.

        Oldest first, at most *limit*. A new generation each, pinned to *pin* or to what it had.
        Raises Conflict (count_changed) when not exactly *expected* match; then nothing happened.
        """
        ...

    async def drop_many(
        self,
        which: DeadFilter,
        *,
        expected: int | None = None,
        limit: int = AT_ONCE,
        by: str = "",
    ) -> list[str]:
        """End those that match without a retry (→ cancelled, reason ``dropped``); their ids.

        What search shows of them (an update that died) stays. Raises as ``retry_many``.
        """
        ...

    async def revive(self, tickets: Sequence[Ticket], pin: Pin | None = None) -> list[Ticket]:
        """Those still dead under exactly these tickets go back to work, as ``retry`` has it."""
        ...

    # lanes
    async def pushable(self, limit: int) -> list[Ticket]:
        """Received documents that no lane holds yet, oldest first: the outbox."""
        ...

    async def mark_pushed(self, tickets: Sequence[Ticket]) -> None:
        """received → queued, where the sequence still is the ticket's."""
        ...

    async def queued_slice(self, after_id: str, limit: int) -> list[Ticket]:
        """Queued documents in id order, for the audit against the lanes."""
        ...

    async def requeue(self, tickets: Sequence[Ticket], why: str) -> list[Ticket]:
        """Orphans: give those still queued under this sequence a new one (→ received)."""
        ...

    async def standing_in(self, lane: str, limit: int = 1000) -> list[Ticket]:
        """Documents that stand in line in *lane* (received, queued), the longest waiting first."""
        ...

    async def in_line(
        self, cursor: str = "", limit: int = 2000, *, larger_than: int = -1
    ) -> tuple[list[InLine], str | None]:
        """A page of all that stand in line, suspects left out, and the cursor of the next one."""
        ...

    async def ordered(self, lane: str, by: Strategy, limit: int) -> list[Ticket]:
        """The first *limit* of those that stand in line in *lane*, in another order."""
        ...

    async def change_lane(self, tickets: Sequence[Ticket], lane: str) -> list[Ticket]:
        """Those that still stand in line under their sequence belong to *lane* from now on.

        What must be moved in the queue comes back, each with the lane where it stands there
        (the ticket's own, else the former one). ``queue.order.move`` does both halves.
        """
        ...

    # the audit of vectors
    async def visible_chunks(
        self, after: tuple[str, str] = ("", ""), limit: int = 200
    ) -> list[VisibleChunks]:
        """What the vector store must hold, behind (pin id, document id) *after*, in that order."""
        ...

    async def visible_totals(self) -> dict[str, int]:
        """Collection → chunks that it must hold at least."""
        ...

    async def note_gaps(self, found: Sequence[VisibleChunks]) -> list[Ticket]:
        """Chunks of these are absent from the vector store: they count as missing from now on.

        Searchable ones get a new generation under the pin they have (the tickets); those that
        are being updated already are only counted. Nothing where another generation is visible.
        """
        ...

    async def open_gaps(self, after: str = "", limit: int = 200) -> list[VisibleChunks]:
        """Those that count as missing, by document id."""
        ...

    async def close_gaps(self, whole: Sequence[VisibleChunks] = ()) -> int:
        """*whole* are complete again; notes that ended otherwise go, too. How many went."""
        ...

    async def keeping(self, pairs: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Keeping]:
        """(document, generation) → whether its chunks must stay. Ask after they were seen."""
        ...

    # claims
    async def claim(
        self, tickets: Sequence[Ticket], worker: WorkerRef, max_concurrent: int
    ) -> list[ClaimAnswer]:
        """Lease what is claimable; slots (whole system) are counted in the same transaction."""
        ...

    def renew(
        self,
        worker: WorkerRef,
        tokens: Mapping[str, int],
        progress: Sequence[Progress],
        rss_bytes: int = 0,
    ) -> set[str]:
        """Renew all leases of a process at once; the ids that are LOST come back.

        Blocking, on a connection of its own: called from the lease keeper's thread. An empty
        *tokens* still records that the process lives. *rss_bytes*: its peak of memory.
        """
        ...

    async def report(self, progress: Progress) -> None:
        """Write a claim's progress now. Raises LeaseLost."""
        ...

    async def settle(self, claim: Claim, outcome: Outcome) -> Settled:
        """End a claim. ``Done`` is the flip: it needs a valid token and generation > visible."""
        ...

    async def retire(self, worker_id: str) -> None:
        """Forget a process that ended cleanly."""
        ...

    async def note_exit(self, worker_id: str, code: int) -> None:
        """A supervisor saw the process end; *code* is negative for a signal. Evidence only."""
        ...

    # the reconciler's questions; each costs by what is wrong, not by what waits
    async def expire(self, dead_workers: Sequence[str] = (), limit: int = 500) -> list[Ticket]:
        """Take documents from expired leases, and at once from processes known to be dead.

        They become suspects (→ received, or waiting for a quiet house) or, past their death
        budget, dead letters.
        """
        ...

    async def wake(self, limit: int = 500) -> list[Ticket]:
        """Waiting documents whose time has come (→ received)."""
        ...

    async def due_cleanups(self, limit: int = 100) -> list[Cleanup]: ...

    async def finish_cleanups(self, ids: Sequence[int]) -> None: ...

    async def unreferenced_blobs(self, older_than_s: float, limit: int = 100) -> list[str]: ...

    async def forget_blob(self, content_hash: str) -> bool:
        """Drop the blob's row if still unreferenced; only then may the file go."""
        ...

    async def adopt_blobs(self, sizes: Mapping[str, int]) -> int:
        """Blobs (hash → bytes) found in the store: those the ledger does not know (their upload
        died before it was accepted) count as unreferenced from now on; how many those were."""
        ...

    async def count_late(self, slo_s: float = 300.0, limit: int = 500) -> int:
        """Count (slo_total, slo_late) what is not searchable *slo_s* after it was accepted, each
        generation once; how many were found."""
        ...

    async def trim(self, limit: int = 500) -> int:
        """Forget events older than 30 days (their number by day and kind stays), idempotency keys
        older than 7 days and old minutes, at most *limit* of each; *limit*: there may be more."""
        ...

    async def bookmark(self, name: str) -> int | None:
        """Number of the event up to which *name* has read; None: it never began."""
        ...

    async def set_bookmark(self, name: str, seq: int) -> None: ...

    async def rebuild(
        self, after: str = "", limit: int = 200, *, clean: bool = False
    ) -> tuple[int, str | None]:
        """After a restore: documents behind id *after* start over as new generations, shown again
        once they are stored. (How many began, the id to go on after; None: all done.)

        *clean*: the vector store may hold chunks of the generations known here; remove them.
        """
        ...

    async def processes(self) -> list[tuple[WorkerRef, float]]:
        """Every process that reported, with the age of its last heartbeat in seconds."""
        ...

    async def lead(self, role: str, holder: str, ttl_s: float) -> bool:
        """Take or keep leadership of *role*; one holder at a time."""
        ...

    async def knobs(self) -> dict[str, int]:
        """Live settings that were changed from their start value."""
        ...

    async def set_knob(self, name: str, value: int, by: str) -> None: ...

    async def set_knobs(self, values: Mapping[str, int | None], by: str) -> None:
        """All or none; None: back to the start value. Audited. Raises UsageError."""
        ...

    async def note_audit(self, by: str, action: str, data: Mapping[str, Any]) -> None: ...

    async def audit_page(
        self, cursor: int | None = None, limit: int = 50
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Who changed what (id, at, by, action, data), newest first, and the next cursor."""
        ...

    async def pause(self, lane: str, by: str) -> None:
        """Nobody claims documents of *lane* ("*": all) from now on; audited. Idempotent."""
        ...

    async def resume(self, lane: str, by: str) -> list[str]:
        """*lane* ("*": every pause) goes on; which pauses ended."""
        ...

    # circuit breakers, shared by all processes
    async def dependency_states(self) -> dict[str, Breaker]:
        """Every breaker that ever opened, by name."""
        ...

    async def report_dependency(
        self,
        name: str,
        reason: str,
        detail: str = "",
        told_s: float | None = None,
        *,
        checked: bool = False,
    ) -> Breaker:
        """Trouble was seen: open it, or note a failed probe. *told_s*: it said how long.
        *checked*: a probe would see it, too."""
        ...

    async def probe_dependency(self, name: str) -> bool:
        """Whether the caller may probe now; one at a time, over all processes."""
        ...

    async def close_dependency(self, name: str) -> int:
        """It works. Wakes, spread over a second or two, those that wait for it; how many."""
        ...

    async def bump_epoch(self, seen: int | None = None) -> int:
        """The epoch of Redis: *seen* None reads it, else stores max(own, seen) + 1."""
        ...

    async def backup(self, target: Path) -> None: ...

    async def close(self) -> None: ...


class IncidentBook(Protocol):
    """Incidents, remedies and their kill switch; ``SqlLedger`` is one."""

    async def open_incident(
        self,
        diagnosis: Diagnosis,
        severity: Severity,
        *,
        queue_length: int = 0,
        reopen_within_s: float = 0.0,
    ) -> Incident:
        """Open one, or note fresh evidence, effects and queue length of the one that is open under
        ``diagnosis.key``. One that was closed at most *reopen_within_s* ago is opened again."""
        ...

    async def note_sample(self, incident_id: int, sample: Sample) -> None:
        """For the report's chart; thinned out as the incident grows old."""
        ...

    async def begin_action(
        self, incident_id: int, action: Action, *, per_hour: int, rest_s: float
    ) -> str:
        """May this remedy be carried out? "" : yes, and it is noted (outcome ``asked``).

        Else why not: ``paused`` (the kill switch), ``rate`` (*per_hour* times within an hour, all
        incidents together), ``recent`` (somebody did so less than *rest_s* ago), ``closed``.
        """
        ...

    async def note_action(self, incident_id: int, action: Action) -> None:
        """What came of it, or was planned. Counts ``recovery:<remedy>:<outcome>``."""
        ...

    async def actions_since(self, at: float) -> list[tuple[int, Action]]:
        """(Incident, action) since then, oldest first, over all incidents."""
        ...

    async def hand_over(self, incident_id: int) -> None:
        """The remedies did not help, or there is none: open → handed_over."""
        ...

    async def close_incident(self, incident_id: int) -> Incident:
        """It is over: counts whom it made late and what died meanwhile. Idempotent."""
        ...

    async def note_undo(self, incident_id: int, undo: Mapping[str, Any]) -> None:
        """What is to be put back when it is over; {}: it was."""
        ...

    async def undone(self) -> list[Incident]:
        """Closed ones with something that is still to be put back."""
        ...

    async def incident(self, incident_id: int) -> Incident:
        """Raises NotFound."""
        ...

    async def incidents(
        self, *, open_only: bool = False, cursor: str | None = None, limit: int = 50
    ) -> IncidentPage:
        """Newest first. *open_only*: those that are handed over, too."""
        ...

    async def incident_events(
        self, incident_id: int | None, after: int = 0, limit: int = 500
    ) -> list[IncidentEvent]:
        """Oldest first; of one incident or of all (samples only of one)."""
        ...

    async def last_incident_event(self) -> int:
        """Number of the newest event, to tail from; 0 when there is none."""
        ...

    async def remedies_paused(self) -> bool:
        """The kill switch: the watchdog goes on looking, and does nothing."""
        ...

    async def pause_remedies(self, paused: bool, by: str) -> None: ...

    async def ask_remedy(self, request: RemedyRequest) -> RemedyRequest:
        """Note a request for a host's supervisor (its id is given here)."""
        ...

    async def remedies_asked(self, host: str) -> list[RemedyRequest]:
        """Those of *host* that nobody has carried out yet and that are still fresh."""
        ...

    async def answer_remedy(self, request_id: int, outcome: str) -> None: ...

    async def remedy(self, request_id: int) -> RemedyRequest:
        """Raises NotFound."""
        ...


# -- blobs ----------------------------------------------------------------------------------
class BlobWriter(Protocol):
    """One upload being streamed in. Leave without ``commit`` and nothing remains."""

    async def write(self, data: bytes) -> None:
        """Raises DependencyDown (disk full, store away)."""
        ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def head(self) -> bytes:
        """The first 64 KiB, to sniff the type from."""
        ...

    def digest(self) -> str:
        """sha-256 of all bytes written so far, hex."""
        ...

    async def abort(self) -> None: ...


class Blobs(Protocol):
    """Originals, content-addressed. What ``commit`` returned from is on disk."""

    async def create(self) -> BlobWriter: ...

    async def commit(self, writers: Sequence[BlobWriter]) -> None:
        """Make all of them durable together, under their digests. Idempotent per content."""
        ...

    async def path(self, content_hash: str) -> Path:
        """A local file with the bytes, to be read only. Raises DocumentRejected
        (original_missing) or DependencyDown (blob_store_down)."""
        ...

    async def exists(self, content_hash: str) -> bool: ...

    async def remove(self, content_hash: str) -> None: ...

    async def free_bytes(self) -> int: ...

    async def ping(self) -> None:
        """Raises DependencyDown (blob_store_down)."""
        ...

    async def sweep(self, older_than_s: float = 3600.0) -> int:
        """Remove what killed uploads left behind unfinished; how many files that were."""
        ...

    async def stored(self, part: int, older_than_s: float) -> dict[str, int]:
        """Hash → bytes of the originals in part 0 … 255 of the store that were last uploaded
        longer ago than that."""
        ...


# -- vectors --------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ChunkRow:
    """One row for the vector store; *vector* is one row of Vectors."""

    id: str
    document_id: str
    generation: int
    user_id: str
    chunk: Chunk
    filename: str
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


Keeping = Literal["kept", "over", "unknown"]
"""Of a generation's chunks: visible or in the making; superseded, abandoned or deleted; of a
document that the ledger never knew."""


@dataclass(frozen=True, slots=True)
class VisibleChunks:
    """What search shows of one document: *collection* must hold its chunks 0 … *chunks* - 1."""

    document_id: str
    generation: int
    chunks: int
    collection: str
    pin_id: str


@dataclass(frozen=True, slots=True)
class CollectionFacts:
    """A collection of the vector store. *identity* changes when it is made anew; *owners* are
    ids of the ledgers that keep their chunks in it."""

    identity: str
    rows: int
    owners: frozenset[str]


@dataclass(frozen=True, slots=True)
class StoredId:
    """One row of a collection; no document ("") when unjam did not write it."""

    id: str
    document_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A hit before the visibility check. *score* is cosine similarity, −1 … 1."""

    chunk: StoredChunk
    score: float


class VectorStore(Protocol):
    """Chunks and their vectors, one collection per fingerprint."""

    async def upsert(self, collection: str, rows: Sequence[ChunkRow], vectors: Vectors) -> None:
        """Raises DependencyDown (vector_store_down, embedding_dimension_changed)."""
        ...

    async def missing(self, collection: str, ids: Sequence[str]) -> list[str]:
        """Which of the ids are not there (``get(ids)``, no ``where``)."""
        ...

    async def get(self, collection: str, ids: Sequence[str]) -> list[StoredChunk]:
        """Those that exist, in the order asked for."""
        ...

    async def query(
        self, collection: str, vector: Vectors, k: int, where: Mapping[str, Any] | None = None
    ) -> list[Candidate]:
        """Nearest first, at most *k*. *vector* has shape (dimension,)."""
        ...

    async def delete(self, collection: str, ids: Sequence[str]) -> None: ...

    async def collections(self) -> list[str]: ...

    async def facts(self, collection: str) -> CollectionFacts | None:
        """None: there is no such collection. Cheap: 5 ms at 30,000 rows."""
        ...

    async def sign(self, collection: str, owner: str) -> None:
        """Add *owner* to the collection's owners; nothing where it does not exist."""
        ...

    async def stored(self, collection: str, offset: int, limit: int) -> list[StoredId]:
        """Rows in the store's own order, to be walked through."""
        ...

    async def ping(self) -> None:
        """Raises DependencyDown."""
        ...

    async def close(self) -> None: ...


# -- embedding ------------------------------------------------------------------------------
class Provider(Protocol):
    """One way to turn texts into vectors: the local model, or an OpenAI-compatible endpoint.

    Raises DependencyDown (waiting reasons embedding_*), DocumentRejected (embedding_refused).
    """

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One request; texts carry their role prefix already."""
        ...

    async def warm_up(self) -> None:
        """Load what the first request needs. Raises DependencyDown."""
        ...

    async def close(self) -> None: ...


class VectorCache(Protocol):
    """A bounded store of bytes by key; losing it costs money, never correctness."""

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]: ...

    async def put_many(self, rows: Mapping[bytes, bytes]) -> None: ...

    async def remove_many(self, keys: Sequence[bytes]) -> None: ...

    async def close(self) -> None: ...


class Embedder(Protocol):
    """The embedding service: cache → batch → govern → provider."""

    async def passages(self, texts: Sequence[str], pin: Pin, *, alone: bool = False) -> Vectors:
        """Vectors of document chunks, through the cache, sharing requests across documents."""
        ...

    async def query(self, text: str, pin: Pin) -> Vectors:
        """Shape (dimension,)."""
        ...

    async def warm_up(self, pin: Pin) -> None:
        """Load what the first passages need; nothing leaves the machine. Raises DependencyDown."""
        ...

    async def probe(self, pin: Pin) -> None:
        """Whether vectors can be had now, past every cache. Raises DependencyDown."""
        ...

    async def forget(self, texts: Sequence[str], pin: Pin) -> None:
        """Drop the cached vectors of these chunk texts."""
        ...

    async def close(self) -> None: ...


# -- queue ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class LaneFacts:
    """A lane as RQ's books have it at this moment."""

    name: str
    count: int  # jobs that wait in it
    started: int = 0
    failed: int = 0
    scheduled: int = 0
    deferred: int = 0
    finished: int = 0
    workers: int = 0  # live ones that serve it
    paused: bool = False
    line: tuple[str, ...] = ()
    """Document ids at evenly spaced places of the lane, head first: item i stands behind
    i × count / len(line) others."""


@dataclass(frozen=True, slots=True)
class Parked:
    """Dead letters in ``rag_dlq``, as counted in three places; alike unless a tool was there."""

    listed: int
    registered: int
    known: int


class Queue(Protocol):
    """The doorbell. Losing all of it costs seconds, never a document.

    Raises DependencyDown (queue_down, queue_full). A full one still takes, starts, finishes.
    """

    async def push(self, tickets: Sequence[Ticket]) -> None:
        """Put each into its lane unless its job exists already. Idempotent, one round trip.

        Users take turns: the j-th of a user that waits stands behind at most j of every other's.
        """
        ...

    async def take(self, lanes: Sequence[str], limit: int, worker: str) -> list[Ticket]:
        """Up to *limit* tickets, lanes in order, moved to an intermediate list in one step."""
        ...

    async def started(self, tickets: Sequence[Ticket], worker: str) -> None:
        """Claimed: leave the intermediate list, appear as started in RQ's books."""
        ...

    async def finished(self, tickets: Sequence[Ticket], worker: str, *, ok: bool = True) -> None:
        """Ended in the ledger: the job leaves RQ's books."""
        ...

    async def put_back(self, tickets: Sequence[Ticket], worker: str) -> None:
        """Not claimed for want of a slot: back to the head of its lane."""
        ...

    async def discard(self, tickets: Sequence[Ticket], worker: str) -> None:
        """Stale: drop job and intermediate entry."""
        ...

    async def move(self, tickets: Sequence[Ticket], lane: str) -> list[Ticket]:
        """Those that still wait in their lanes go to *lane*; each lane in one atomic step.

        They come back, now of *lane*, in the order in which they stood.
        """
        ...

    async def to_front(
        self, lane: str, tickets: Sequence[Ticket], turns: Sequence[int] = ()
    ) -> list[Ticket]:
        """Those that wait in *lane* stand at its head now, in this order; they come back.

        *turns*, one each, growing: how many turns later than the head others may still go
        between them; none: all before whoever comes from now on.
        """
        ...

    async def show_pauses(self, lanes: Collection[str], *, resume: bool = False) -> None:
        """Lanes that a person paused ("*": all), for whoever looks at the queue, RQ's own tools
        included. What counts is the ledger's word. *resume*: end what those tools paused, too."""
        ...

    async def present(self, tickets: Sequence[Ticket]) -> list[bool]:
        """Whether each stands in its lane or an intermediate list (audit)."""
        ...

    async def strand(self, workers: Sequence[str]) -> list[Ticket]:
        """What these dead workers took and did not start; absent for ``present`` from now on."""
        ...

    async def park(self, tickets: Sequence[Ticket]) -> None:
        """Make dead letters visible in ``rag_dlq`` (list and failed registry)."""
        ...

    async def unpark(self, document_ids: Sequence[str]) -> None: ...

    async def repark(self, tickets: Sequence[Ticket]) -> None:
        """Make ``rag_dlq`` hold exactly these; requeued ones that are not acknowledged stay."""
        ...

    async def parked(self) -> Parked:
        """How many dead letters stand where."""
        ...

    async def requeued(self) -> list[Ticket]:
        """Dead letters whose id left RQ's failed registry while it is still listed: somebody sent
        them back with ``rq requeue``."""
        ...

    async def acknowledge(self, tickets: Sequence[Ticket]) -> None:
        """These requeued ones were dealt with; a later death of theirs stays parked."""
        ...

    async def unsound(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Those of the dead letters that ``rag_dlq`` does not hold whole."""
        ...

    async def epoch(self) -> int:
        """The counter that tells a Redis that lost its data; 0 = none. Negative: it is there, but
        a restart, evictions, or an audit that never came to its end ask for a whole audit."""
        ...

    async def set_epoch(self, value: int) -> None:
        """A whole audit begins under this epoch."""
        ...

    async def confirm_epoch(self, value: int) -> bool:
        """It came to its end. False: the data was lost meanwhile."""
        ...

    async def suspended(self) -> bool:
        """Whether somebody ran ``rq suspend``: nobody takes anything then, ours neither."""
        ...

    async def standing(self) -> int:
        """Jobs that wait in all lanes, or are in somebody's hand and not started yet; cheap."""
        ...

    async def heal_books(self) -> tuple[int, int]:
        """Take ghosts of workers, and locks that nobody will release, off RQ's books; how many."""
        ...

    async def lengths(self) -> dict[str, int]:
        """Every lane that exists, and rag_dlq."""
        ...

    async def lane_facts(self, lanes: Sequence[str] = ()) -> dict[str, LaneFacts]:
        """Every lane that exists, *lanes*, and rag_dlq; its cost grows with the lanes only."""
        ...

    async def has_figures(self) -> bool:
        """Whether the statistics that were written last are still there."""
        ...

    async def write_figures(self, figures: Mapping[str, int], kept_s: Mapping[str, int]) -> None:
        """Write statistics: key → value, and key → how long to keep it (seconds)."""
        ...

    async def wait(self, lanes: Sequence[str], timeout_s: float) -> None:
        """Return when a lane may hold something, or after the time-out."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


# -- text -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ParseJob:
    """What the capped child needs to turn bytes into chunks."""

    path: Path
    filename: str
    media_type: str
    size_bytes: int
    chunk_tokens: int
    overlap_tokens: int
    tokenizer: str
    memory_bytes: int
    cpu_s: float
    wall_s: float
    output_bytes: int


class Parser(Protocol):
    """Runs a parse job in a disposable child (law 11)."""

    def chunks(self, job: ParseJob) -> AsyncGenerator[list[Chunk], None]:
        """Windows of chunks, in order, as they come; at most 256 chunks or 1 MiB a window.

        Raises DocumentRejected (dead reasons of the bytes), DocumentFailed (the child crashed,
        ran out of memory or time: code parser_crashed, parser_memory, parser_timeout).
        """
        ...

    async def close(self) -> None: ...
