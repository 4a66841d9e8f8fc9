"""The ledger's questions about documents: as users see them, and dead ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from unjam.core.dead_letters import AT_ONCE, DeadFilter, DeadLetter
from unjam.core.document import (
    Accepted,
    Document,
    Pin,
    State,
    Submission,
    Ticket,
)
from unjam.core.events import Event
from unjam.core.ports.facts import Backlog, Completed, Equation, Page, VisibleDocument


class DocumentBook(Protocol):
    """Documents, as users see them; reads are flat at a million rows."""

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


class DeadLetterBook(Protocol):
    """Documents that are parked with a reason."""

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
