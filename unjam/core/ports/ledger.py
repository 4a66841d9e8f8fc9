"""The truth: one interface over everything that the ledger keeps about documents."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from unjam.core.ports.documents import DeadLetterBook, DocumentBook
from unjam.core.ports.house import BreakerBook, UpkeepBook
from unjam.core.ports.work import ClaimBook, LaneBook, VectorAudit


class Ledger(
    DocumentBook,
    DeadLetterBook,
    LaneBook,
    ClaimBook,
    VectorAudit,
    UpkeepBook,
    BreakerBook,
    Protocol,
):
    """The truth. Every write of a claim is conditional on its fencing token."""

    id: str
    """UUID made with the ledger; tells one house from another."""

    def now(self) -> float:
        """Unix seconds by the ledger's clock (its database's), as the times in it are: this host's
        own clock may be minutes off. As the last write or the opening saw it; nothing is asked."""
        ...

    @property
    def newer(self) -> str:
        """In words, that a newer program has migrated the ledger since it was opened; else "".
        As this process's last write saw it, and each heartbeat is one. What this program holds it
        may still renew and settle; whatever else it would write raises DependencyDown
        (ledger_newer)."""
        ...

    async def bump_epoch(self, seen: int | None = None) -> int:
        """The epoch of Redis: *seen* None reads it, else stores max(own, seen) + 1."""
        ...

    async def backup(self, target: Path) -> None: ...

    async def close(self) -> None: ...
