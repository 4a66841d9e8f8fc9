"""The ledger's questions about dead letters; the other half of ``facade``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from unjam.core.dead_letters import AT_ONCE, DeadFilter, DeadLetter
from unjam.core.document import Pin, Ticket
from unjam.core.ports import Page
from unjam.stores.ledger import dead
from unjam.stores.ledger.commit import Committer
from unjam.stores.ledger.incidents import IncidentLedger

T = TypeVar("T")


class DeadLetterBook(IncidentLedger):
    """Mixed into ``SqlLedger``, which opens *_committer* and gives *_read*."""

    _committer: Committer

    async def _read(self, question: Callable[..., T], *args: Any) -> T:
        raise AssertionError("the ledger brings its own")

    async def dead_by_reason(self) -> dict[str, int]:
        return await self._read(dead.by_reason)

    async def count_dead(self, which: DeadFilter) -> int:
        return await self._read(dead.count, which)

    async def dead_page(
        self, which: DeadFilter, *, cursor: str | None = None, limit: int = 50
    ) -> Page:
        return await self._read(dead.page, which, cursor, limit)

    async def dead_letter(self, document_id: str) -> DeadLetter:
        return await self._read(dead.letter, document_id)

    async def retry_many(
        self,
        which: DeadFilter,
        *,
        expected: int | None = None,
        limit: int = AT_ONCE,
        pin: Pin | None = None,
        by: str = "",
    ) -> list[Ticket]:
        return await self._committer.submit(
            lambda tx: dead.retry_many(tx, which, expected, limit, pin, by), weight=limit
        )

    async def drop_many(
        self,
        which: DeadFilter,
        *,
        expected: int | None = None,
        limit: int = AT_ONCE,
        by: str = "",
    ) -> list[str]:
        return await self._committer.submit(
            lambda tx: dead.drop_many(tx, which, expected, limit, by), weight=limit
        )

    async def revive(self, tickets: Sequence[Ticket], pin: Pin | None = None) -> list[Ticket]:
        ids = [t.document_id for t in tickets]
        return await self._committer.submit(lambda tx: dead.revive(tx, tickets, pin), ids)
