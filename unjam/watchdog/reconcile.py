"""Reconciler: finds each document whose state says that it should move and does not, and moves it.

Every chore is bounded and costs by what is wrong, not by what waits. All of them are safe to run
twice, beside workers, and to be cut off anywhere: the ledger decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from unjam.core.breaker import OUTBOX, Breaker
from unjam.core.chunk import chunk_ids
from unjam.core.dead_letters import AT_ONCE, DeadFilter
from unjam.core.document import Document, Pin, State, Ticket
from unjam.core.errors import DependencyDown
from unjam.core.ports import Blobs, Cleanup, Embedder, Ledger, Queue, VectorStore, WorkerRef
from unjam.observe import words
from unjam.queue.order import show_pauses
from unjam.watchdog.audit_vectors import VectorAudit
from unjam.watchdog.lanes_served import LanesServed

OUTBOX_S = 4.0
"""When the next look at a shut outbox is due, at the latest: two rounds."""

SLICE = 1000
"""Documents a tick that are compared with the lanes: 2 s × 1,000 covers 100,000 in 200 s."""

AUDIT_REST_S = 30.0
"""Between two whole audits of the lanes because their count did not match the ledger's."""

HEAL_EVERY_S = 10.0

DEAD_SLICE = 200
"""Dead letters a tick whose place in Redis is looked at."""

BLOB_GRACE_S = 3600.0
"""A blob may go this long after its last reference (an upload may be about to re-link it)."""

BLOBS_AT_ONCE = 100

VECTORS_S = 4.0
"""What of a round the audit of vectors may take when the vector store hangs."""

CLEANUP_BLOCK = 256
CLEANUP_GAP = 4
"""Blocks in a row without any chunk that end a clean-up of unknown length. A document has three
windows of at most 256 chunks in flight: what died early may have stored a later one only."""


@dataclass(slots=True)
class Reconciler:
    """``tick`` is one round. *is_alive* tells whether a local process lives (None: elsewhere)."""

    ledger: Ledger
    queue: Queue
    vectors: VectorStore
    blobs: Blobs
    embedder: Embedder
    current_pin: Callable[[], Pin]
    is_alive: Callable[[WorkerRef], bool | None]
    _audit_from: str = ""
    _parked_to: str | None = None
    _blobs_due: float = 0.0
    _blobs_part: int = 0
    _down: set[str] = field(default_factory=set[str])
    _mourned: set[str] = field(default_factory=set[str])  # dead; the queue was not told yet
    _suspended: bool = False
    _short: int = 0  # queued documents that no lane held at the last look
    _audit_due: float = float("-inf")
    _heal_due: float = float("-inf")
    vector_audit: VectorAudit = field(init=False)
    lanes_served: LanesServed = field(init=False)

    def __post_init__(self) -> None:
        self.vector_audit = VectorAudit(self.ledger, self.vectors)
        self.lanes_served = LanesServed(self.ledger, self.queue)

    async def tick(self) -> None:
        """All chores once; one that fails for a dependency does not stop the others."""
        await self._tolerant(
            self.take_from_the_dead,
            self.ring_again_for_the_dead,
            self.wake_the_due,
            self.empty_the_outbox,
            self.audit_a_slice,
            self.compare_counts,
            self.lanes_served.check,
            self.look_at_the_books,
            self.mirror_dead_letters,
            self.mirror_pauses,
            self.clean_vectors,
            self.audit_vectors,
            self.build_beside,
            self.sweep_blobs,
        )

    async def step_in(self) -> None:
        """For a process that takes a dead one's place: what that one held goes to the lanes now,
        whoever leads. A busy outbox is left to the leader."""
        await self._tolerant(self._inherit, self.ring_again_for_the_dead)

    async def _inherit(self) -> None:
        tickets = await self.take_from_the_dead()
        await self.queue.push(tickets)
        await self.ledger.mark_pushed(tickets)

    async def _tolerant(self, *chores: Callable[[], Awaitable[object]]) -> None:
        for chore in chores:
            name = chore.__qualname__
            try:
                await chore()
                self._down.discard(name)
            except DependencyDown as error:
                if name not in self._down:  # once per outage, not once per tick
                    words.dependency_lost(error.code, error.detail)
                self._down.add(name)

    async def take_from_the_dead(self) -> list[Ticket]:
        """Leases that ran out, and at once those of processes of this host that are gone: the
        tickets of what goes back to work."""
        dead = [ref.id for ref, _ in await self.ledger.processes() if self.is_alive(ref) is False]
        tickets = await self.ledger.expire(dead)
        if tickets:
            words.documents_recovered(len(tickets), "worker_died")
        for worker_id in dead:
            await self.ledger.retire(worker_id)
        self._mourned |= set(dead)
        return tickets

    async def ring_again_for_the_dead(self) -> None:
        """What they had taken and not claimed yet stands in no lane: it need not wait for the
        audit. Remembered until Redis answers; after a lost memory the audit finds it."""
        if self._mourned:
            await self._requeue_absent(await self.queue.strand(sorted(self._mourned)))
            self._mourned.clear()

    async def wake_the_due(self) -> None:
        await self.ledger.wake()

    async def empty_the_outbox(self) -> None:
        """Received documents enter their lanes."""
        while tickets := await self.ledger.pushable(SLICE):
            try:
                await self.queue.push(tickets)
            except DependencyDown as error:
                await self.ledger.report_dependency(OUTBOX, error.code, error.detail, OUTBOX_S)
                raise
            await self.ledger.mark_pushed(tickets)
            if len(tickets) < SLICE:
                break
        if (await self.ledger.dependency_states()).get(OUTBOX, Breaker(OUTBOX)).holds:
            await self.ledger.close_dependency(OUTBOX)

    async def audit_a_slice(self) -> None:
        """Queued documents that no lane holds get a new sequence number and go in again."""
        await self._new_redis()
        tickets = await self.ledger.queued_slice(self._audit_from, SLICE)
        self._audit_from = tickets[-1].document_id if len(tickets) == SLICE else ""
        await self._requeue_absent(tickets)

    async def audit_all(self) -> None:
        """The whole backlog at once: Redis lost data, or its lanes hold too little."""
        await self.queue.look_anew()
        after = ""
        while tickets := await self.ledger.queued_slice(after, SLICE):
            await self._requeue_absent(tickets)
            after = tickets[-1].document_id

    async def compare_counts(self) -> None:
        """More documents are queued than the lanes hold, twice in a row: all of them are looked
        at. (Once is no sign: one may be claimed between the two questions.)"""
        queued = (await self.ledger.state_counts()).get(State.QUEUED, 0)
        short = max(0, queued - await self.queue.standing())
        before, self._short = self._short, short
        if min(before, short) > 0 and time.monotonic() >= self._audit_due:
            self._audit_due = time.monotonic() + AUDIT_REST_S
            await self.audit_all()

    async def look_at_the_books(self) -> None:
        """Says when somebody suspends the workers; ghosts and stale locks go."""
        suspended = await self.queue.suspended()
        if suspended != self._suspended:
            self._suspended = suspended
            words.queue_suspended(suspended)
        if time.monotonic() >= self._heal_due:
            self._heal_due = time.monotonic() + HEAL_EVERY_S
            ghosts, locks = await self.queue.heal_books()
            if ghosts or locks:
                words.books_healed(ghosts, locks)

    async def _requeue_absent(self, tickets: Sequence[Ticket]) -> None:
        if not tickets:
            return
        present = await self.queue.present(tickets)
        orphans = [t for t, there in zip(tickets, present, strict=True) if not there]
        if orphans:
            again = await self.ledger.requeue(orphans, "absent from its lane")
            if again:
                words.documents_recovered(len(again), "orphaned")
                await self.queue.push(again)
                await self.ledger.mark_pushed(again)

    async def _new_redis(self) -> None:
        """A Redis whose epoch is lower than the ledger's lost data, one that restarted or evicted
        keys may have: audit everything.

        The epoch stands in Redis before the audit begins: what is lost while it runs takes the
        epoch along, and the next tick begins again.
        """
        known = await self.ledger.bump_epoch()
        seen = await self.queue.epoch()
        if seen == known and known > 0:
            return
        epoch = await self.ledger.bump_epoch(abs(seen))
        if known > 0 and abs(seen) != known:
            words.redis_lost_data(seen, known)
        await self.queue.set_epoch(epoch)
        await self.audit_all()
        await self.queue.confirm_epoch(epoch)

    async def mirror_dead_letters(self) -> None:
        """``rag_dlq`` shows the documents that the ledger holds dead, and what ``rq requeue`` took
        from there goes back to work. The evidence of that is looked for before anything heals."""
        await self._take_back_requeued()
        dead = (await self.ledger.state_counts()).get(State.DEAD, 0)
        shown = await self.queue.parked()
        if {dead} != {shown.listed, shown.registered, shown.known}:
            await self.queue.repark(await self._dead_tickets())
            return
        page = await self.ledger.dead_page(DeadFilter(), cursor=self._parked_to, limit=DEAD_SLICE)
        self._parked_to = page.next_cursor
        hurt = await self.queue.unsound([_ticket(d) for d in page.items])
        if hurt:
            await self.queue.park(hurt)

    async def mirror_pauses(self) -> None:
        """A Redis that lost its data shows again which lanes a person paused."""
        await show_pauses(self.ledger, self.queue)

    async def _take_back_requeued(self) -> None:
        tickets = await self.queue.requeued()
        for start in range(0, len(tickets), AT_ONCE):
            some = tickets[start : start + AT_ONCE]
            again = await self.ledger.revive(some, self.current_pin())
            await self.queue.acknowledge(some)
            if again:
                words.documents_recovered(len(again), "requeued")
                await self.queue.push(again)
                await self.ledger.mark_pushed(again)

    async def _dead_tickets(self) -> list[Ticket]:
        cursor: str | None = None
        found: list[Ticket] = []
        while True:
            page = await self.ledger.dead_page(DeadFilter(), cursor=cursor, limit=500)
            found += [_ticket(d) for d in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def clean_vectors(self) -> None:
        """Chunks of generations that nobody may see any more go by computed ids."""
        for cleanup in await self.ledger.due_cleanups():
            await self._clean(cleanup)
            await self.ledger.finish_cleanups([cleanup.id])

    async def _clean(self, cleanup: Cleanup) -> None:
        first, gap = cleanup.first, 0
        while cleanup.last < 0 or first < cleanup.last:
            end = first + CLEANUP_BLOCK
            if cleanup.last >= 0:
                end = min(end, cleanup.last)
            ids = chunk_ids(cleanup.document_id, cleanup.generation, end, first)
            first = end
            if cleanup.last < 0:
                absent = await self.vectors.missing(cleanup.collection, ids)
                gap = gap + 1 if len(absent) == len(ids) else 0
                if gap == CLEANUP_GAP:
                    return
                if gap:
                    continue
            if cleanup.purge is not None:
                texts = [c.text for c in await self.vectors.get(cleanup.collection, ids)]
                await self.embedder.forget(texts, cleanup.purge)
            await self.vectors.delete(cleanup.collection, ids)

    async def audit_vectors(self) -> None:
        """What search should find is in the vector store, and nothing else stays there."""
        try:
            async with asyncio.timeout(VECTORS_S):
                await self.vector_audit.check()
                await self.vector_audit.walk()
        except TimeoutError:
            raise DependencyDown(
                "the vector store does not answer the audit", code="vector_store_down"
            ) from None

    async def build_beside(self) -> None:
        """A changed embedding model: searchable documents get a new generation, bit by bit."""
        pin = self.current_pin()
        in_use = await self.ledger.pins_in_use()
        if any(p.fingerprint != pin.fingerprint for p in in_use):
            await self.ledger.repin(pin, 100)

    async def sweep_blobs(self) -> None:
        """Only here may a blob go: an hour unreferenced, and the ledger asked again.

        Once a minute also what uploads left that died half-way, and, a 256th of the store at a
        time, what was made durable but never accepted: from then on it counts as unreferenced.
        """
        if time.monotonic() < self._blobs_due:
            return
        loose = await self.ledger.unreferenced_blobs(BLOB_GRACE_S, BLOBS_AT_ONCE)
        for content_hash in loose:
            if await self.ledger.forget_blob(content_hash):
                await self.blobs.remove(content_hash)
        if len(loose) == BLOBS_AT_ONCE:
            return  # the next round goes on
        self._blobs_due = time.monotonic() + 60.0
        await self.blobs.sweep(BLOB_GRACE_S)
        old = await self.blobs.stored(self._blobs_part, BLOB_GRACE_S)
        if old:
            await self.ledger.adopt_blobs(old)
        self._blobs_part = (self._blobs_part + 1) % 256


def _ticket(document: Document) -> Ticket:
    return Ticket(document.id, document.enqueue_seq, document.lane, document.size_bytes)
