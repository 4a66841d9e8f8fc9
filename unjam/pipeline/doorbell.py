"""Doorbell: accepted documents enter their lanes soon after the answer, many at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

from unjam.core.document import Ticket
from unjam.core.errors import NotNow
from unjam.core.ports import Ledger, Queue

_log = logging.getLogger("unjam.intake")


class Doorbell:
    """Pushes accepted documents into their lanes soon after the answer, many at a time.

    While one push is under way the next uploads gather, so concurrent uploads share a round
    trip. Bounded: what does not fit, or fails, is left to the reconciler.
    """

    def __init__(
        self, ledger: Ledger, queue: Queue, *, capacity: int = 10_000, batch: int = 500
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._capacity = capacity
        self._batch = batch
        self._pending: deque[Ticket] = deque()
        self._task: asyncio.Task[None] | None = None

    def ring(self, tickets: Sequence[Ticket]) -> None:
        """Never blocks and never raises."""
        room = self._capacity - len(self._pending)
        self._pending.extend(tickets[:room])
        if self._pending and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._drain(), name="intake-doorbell")

    async def _drain(self) -> None:
        while self._pending:
            count = min(self._batch, len(self._pending))
            batch = [self._pending.popleft() for _ in range(count)]
            try:
                await self._queue.push(batch)
                await self._ledger.mark_pushed(batch)
            except NotNow as error:
                self._pending.clear()
                _log.info("documents accepted but not rung for yet: %s", error)
            except Exception:
                self._pending.clear()
                _log.exception("the doorbell failed; the reconciler pushes these documents")

    async def close(self, timeout_s: float = 2.0) -> None:
        """Ring for what is pending, within *timeout_s*; the rest is the reconciler's."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=timeout_s)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
