"""The ledger's questions about work: lanes, claims, and chunks that went missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from unjam.core.document import (
    Claim,
    ClaimAnswer,
    Ticket,
)
from unjam.core.outcome import Outcome
from unjam.core.ports.facts import InLine, Progress, Settled, Strategy, WorkerRef
from unjam.core.ports.vectors import Keeping, VisibleChunks


class LaneBook(Protocol):
    """Who stands in which lane, and what must enter one."""

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


class ClaimBook(Protocol):
    """Leases. Every write of a claim is conditional on its fencing token."""

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


class VectorAudit(Protocol):
    """The audit of the vector store against the ledger."""

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
