"""The ledger's questions about the house: upkeep, processes, knobs, breakers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from unjam.core.breaker import Breaker
from unjam.core.document import (
    Ticket,
)
from unjam.core.ports.facts import Cleanup, WorkerRef


class UpkeepBook(Protocol):
    """The reconciler's questions; each costs by what is wrong, not by what waits."""

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


class BreakerBook(Protocol):
    """Circuit breakers, shared by all processes."""

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
