"""One claimed document in this process: run it, settle it, tell the queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unjam.core.coalesce import Coalescer
from unjam.core.document import Claim, State, Ticket
from unjam.core.errors import DependencyDown, LeaseLost
from unjam.core.outcome import Dead, Done, Outcome, Release, Retry, Snooze
from unjam.core.ports import Ledger, Queue, Settled
from unjam.observe import words
from unjam.pipeline.run import Attempt, Tools, run
from unjam.pipeline.steps import Step

LEDGER_PATIENCE_S = 1.0
"""How often an end is offered to a ledger that cannot be written; fencing settles who is late."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended in the ledger. *settled* None: the lease was lost on the way."""

    outcome: Outcome | None
    settled: Settled | None


def ticket_of(claim: Claim) -> Ticket:
    return Ticket(claim.document_id, claim.enqueue_seq, claim.lane, claim.size_bytes)


async def process(attempt: Attempt, tools: Tools, ledger: Ledger) -> Ended:
    """Run one attempt and write its end into the ledger.

    A cancelled task hands its document back (drain), unless the lease is gone.
    """
    claim = attempt.claim
    began = time.monotonic()
    words.job_started(claim.document_id, claim.enqueue_seq, claim.filename)
    try:
        outcome = await run(attempt, tools)
    except LeaseLost:
        words.job_lost(claim.document_id, claim.enqueue_seq)
        return Ended(None, None)
    except asyncio.CancelledError:
        settled = await _settle(ledger, claim, Release())
        if not settled.moved:  # cancelled because the lease was lost, not for a drain
            words.job_lost(claim.document_id, claim.enqueue_seq)
            return Ended(None, None)
        return Ended(Release(), settled)
    settled = await _settle(ledger, claim, outcome)
    if not settled.moved:
        words.job_lost(claim.document_id, claim.enqueue_seq)
        return Ended(outcome, None)
    tools.checkpoint(Step.FLIPPED)
    _tell(claim, outcome, settled, (time.monotonic() - began) * 1000)
    return Ended(outcome, settled)


async def _settle(ledger: Ledger, claim: Claim, outcome: Outcome) -> Settled:
    """The end goes into the ledger, however long the ledger takes to be writable again."""
    while True:
        try:
            return await ledger.settle(claim, outcome)
        except DependencyDown as error:
            words.ledger_unwritable(error.detail)
            await asyncio.sleep(LEDGER_PATIENCE_S)


def _tell(claim: Claim, outcome: Outcome, settled: Settled, took_ms: float) -> None:
    match outcome:
        case Done(chunks, stage_ms, _):
            words.job_succeeded(claim.document_id, claim.enqueue_seq, chunks, took_ms, stage_ms)
        case Dead(reason, detail):
            words.job_parked(claim.document_id, claim.enqueue_seq, reason, detail)
        case Retry(reason, detail, after_s) | Snooze(reason, detail, after_s):
            words.job_waits(
                claim.document_id, claim.enqueue_seq, settled.state, reason, detail, after_s
            )
        case Release():
            words.job_handed_back(claim.document_id, claim.enqueue_seq)


class QueueBooks:
    """Closes ended jobs in the queue's books, many a round trip. A queue that is away is no
    trouble: the ledger knows, and the reconciler sweeps."""

    def __init__(self, queue: Queue, worker: str, checkpoint: Callable[[Step], None]) -> None:
        self._queue = queue
        self._worker = worker
        self._checkpoint = checkpoint
        self._line: Coalescer[tuple[Ticket, Ended], None] = Coalescer(self._flush, max_weight=500)

    async def close(self, ticket: Ticket, ended: Ended) -> None:
        await self._line.put((ticket, ended))

    async def drain(self) -> None:
        await self._line.close()

    async def _flush(self, items: Sequence[tuple[Ticket, Ended]]) -> Sequence[None]:
        answer = [None] * len(items)
        try:
            good = [t for t, e in items if isinstance(e.outcome, Done)]
            other = [t for t, e in items if not isinstance(e.outcome, Done)]
            if good:
                await self._queue.finished(good, self._worker, ok=True)
            if other:
                await self._queue.finished(other, self._worker, ok=False)
            self._checkpoint(Step.FINISHED)
            await self._after(items)
        except DependencyDown as error:
            words.redis_lost(error.detail)
        return answer

    async def after(self, ticket: Ticket, ended: Ended) -> None:
        """What follows an end besides RQ's own books (a stock worker keeps those itself)."""
        try:
            await self._after([(ticket, ended)])
        except DependencyDown as error:
            words.redis_lost(error.detail)

    async def _after(self, items: Sequence[tuple[Ticket, Ended]]) -> None:
        settled = [e.settled for _, e in items if e.settled is not None]
        again = [s.ticket for s in settled if s.ticket and s.state is not State.DEAD]
        if again:
            await self._queue.push(again)
        dead = [s.ticket for s in settled if s.ticket and s.state is State.DEAD]
        if dead:
            await self._queue.park(dead)
