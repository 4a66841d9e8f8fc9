"""Worker: one long-lived process with many documents in flight.

Takes many jobs a round trip, claims them in one ledger transaction, and runs each as a task; the
tasks share embedding requests and upserts. SIGTERM drains: finish what can be finished in time,
hand back the rest, exit 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unjam.core.document import Claim, ClaimKind, Ticket
from unjam.core.errors import DependencyDown, LeaseLost, UnjamError
from unjam.core.outcome import Done, Release, Snooze
from unjam.core.ports import Ledger, Queue, WorkerRef
from unjam.observe import words
from unjam.pipeline.breakers import Breakers
from unjam.pipeline.run import Attempt, Tools
from unjam.queue.lanes import LARGE, serving_order
from unjam.worker.leases import LeaseKeeper
from unjam.worker.pressure import Pressure
from unjam.worker.task import Ended, QueueBooks, process, ticket_of

TAKE_AT_ONCE = 32
"""Jobs a round trip: beyond this the ledger's group commit gains nothing (measured there)."""

LEAST_IN_FLIGHT, MOST_IN_FLIGHT = 32, 128
"""Documents of one process: half of what the whole system may have in flight, within these."""

IDLE_WAIT_S = 1.0
PAUSE_S = 0.5
"""Between tries while queue or ledger are away."""

GATHER_S = 0.03
GATHER_SHARE = 4
"""Free places are filled together, a quarter of all at least or after this time: documents that
were taken together share the parsing child, the embedding request, the upsert and the commits."""

CROWDED_S = 0.25
CROWDED_TRY = 4
"""Between tries for more, and with how many documents, while the whole system's cap leaves this
process no further slot."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    lanes: Sequence[str]
    drain_s: float = 20.0


def room_of(max_concurrent: int) -> int:
    """Documents that one process may have in flight while the whole system may have so many."""
    return min(MOST_IN_FLIGHT, max(LEAST_IN_FLIGHT, max_concurrent // 2))


class Worker:
    """``run`` returns after ``stop`` was called and everything in flight was settled."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        queue: Queue,
        tools: Tools,
        me: WorkerRef,
        options: WorkerOptions,
        max_concurrent: Callable[[], int],
        breakers: Breakers | None = None,
        pressure: Pressure | None = None,
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._tools = tools
        self._me = me
        self._options = options
        self._max_concurrent = max_concurrent
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._suspects: list[Claim] = []
        self._alone = ""
        self._large = 0
        self._takes = 0
        self._ceiling: int | None = None  # what the system's cap left us, …
        self._crowded_until = 0.0  # … and when to see whether it leaves more
        self._stopping = asyncio.Event()
        self._freed = asyncio.Event()
        self._breakers = breakers or Breakers(ledger, {})
        self._pressure = pressure or Pressure()
        self._keeper = LeaseKeeper(ledger, me, self._lost, self._ledger_trouble)
        self._books = QueueBooks(queue, me.id, tools.checkpoint)

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    @property
    def _room(self) -> int:
        """Documents that may begin now."""
        room = self._pressure.allow(room_of(self._max_concurrent())) - len(self._tasks)
        if self._ceiling is not None:
            more = CROWDED_TRY if time.monotonic() >= self._crowded_until else 0
            room = min(room, self._ceiling + more - len(self._tasks))
        return max(0, room)

    def stop(self) -> None:
        """Begin to drain. Safe to call from a signal handler of the loop, and twice."""
        self._stopping.set()
        self._freed.set()

    async def run(self) -> None:
        self._keeper.start()
        watching = asyncio.create_task(self._pressure.follow(), name="memory pressure")
        try:
            while not self._stopping.is_set():
                try:
                    await self._step()
                except DependencyDown as error:
                    words.dependency_lost(error.code, error.detail)
                    await self._breakers.report(error.code, error.detail)
                    await self._pause(PAUSE_S)
            await self._drain()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self._keeper.stop()
        with contextlib.suppress(UnjamError):
            await self._ledger.retire(self._me.id)

    # -- taking work ------------------------------------------------------------------------
    async def _step(self) -> None:
        """Take and claim what there is room for; wait when there is no room or no work."""
        if (pause_s := self._breakers.pause_s()) > 0:
            await self._pause(pause_s)
            return
        if self._suspects or self._alone in self._tasks:
            await self._suspect_alone()
            return
        tickets = await self._take()
        if tickets is None:
            await self._wait_for_room()
        elif tickets:
            await self._claim(tickets)
        else:
            await self._idle()

    async def _take(self) -> list[Ticket] | None:
        """Tickets in hand; None when this process is full."""
        room = min(self._room, TAKE_AT_ONCE)
        if not room:
            return None
        self._takes += 1
        lanes = self._open_lanes()
        small = [lane for lane in lanes if lane != LARGE]
        tickets: list[Ticket] = []
        # Large documents have a slot of their own: one at a time, beside the small ones.
        if LARGE in lanes and self._large == 0:
            tickets += await self._queue.take([LARGE], 1, self._me.id)
        if small and room > len(tickets):
            order = serving_order(small, self._takes)
            tickets += await self._queue.take(order, room - len(tickets), self._me.id)
        return tickets

    async def _wait_for_room(self) -> None:
        """Until documents ended, or it is time to see whether others left a slot."""
        patience_s = self._crowded_until - time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s if patience_s > 0 else None):
                while not self._room and not self._stopping.is_set():
                    self._freed.clear()
                    await self._freed.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                while self._room < len(self._tasks) // GATHER_SHARE and not self._stopping.is_set():
                    self._freed.clear()
                    await self._freed.wait()

    def _open_lanes(self) -> list[str]:
        """Those that no person paused. (The ledger refuses claims of the others, too.)"""
        return [lane for lane in self._options.lanes if self._breakers.paused(lane) is None]

    async def _claim(self, tickets: Sequence[Ticket]) -> None:
        try:
            answers = await self._ledger.claim(tickets, self._me, self._max_concurrent())
        except DependencyDown:
            # Not left to the audit: when the ledger is back they are taken at once.
            with contextlib.suppress(DependencyDown):
                await self._queue.put_back(tickets, self._me.id)
            raise
        by_kind: dict[ClaimKind, list[Ticket]] = {kind: [] for kind in ClaimKind}
        claims: list[Claim] = []
        for answer in answers:
            by_kind[answer.kind].append(answer.ticket)
            if answer.claim is not None:
                claims.append(answer.claim)
        for claim in claims:
            if claim.suspect:
                self._suspects.append(claim)
                self._keeper.hold(Attempt(claim))
            else:
                self._begin(Attempt(claim))
        self._learn_ceiling(crowded=bool(by_kind[ClaimKind.NO_SLOT]))
        if by_kind[ClaimKind.CLAIMED]:
            await self._queue.started(by_kind[ClaimKind.CLAIMED], self._me.id)
        if by_kind[ClaimKind.STALE]:
            await self._queue.discard(by_kind[ClaimKind.STALE], self._me.id)
        if by_kind[ClaimKind.NO_SLOT]:
            await self._queue.put_back(by_kind[ClaimKind.NO_SLOT], self._me.id)

    def _learn_ceiling(self, *, crowded: bool) -> None:
        """Whoever was refused a slot takes no more than it has, so that tickets are not carried to
        and fro; what ends here makes room here at once."""
        if crowded:
            self._ceiling = len(self._tasks) + len(self._suspects)
            self._crowded_until = time.monotonic() + CROWDED_S
        elif self._ceiling is not None and time.monotonic() >= self._crowded_until:
            self._ceiling = None

    async def _idle(self) -> None:
        lanes = [x for x in self._open_lanes() if x != LARGE or self._large == 0]
        bell = asyncio.ensure_future(self._queue.wait(lanes, IDLE_WAIT_S))
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([bell, stop], return_when=asyncio.FIRST_COMPLETED)
            if bell.done():
                bell.result()
        finally:
            for task in (bell, stop):
                task.cancel()
            await asyncio.gather(bell, stop, return_exceptions=True)

    async def _suspect_alone(self) -> None:
        """A document whose worker died runs with nobody beside it, so that only it can be blamed
        for the next death (law 7)."""
        if self._tasks:
            self._freed.clear()
            await self._freed.wait()
            return
        attempt = Attempt(self._suspects[0], alone=True)
        try:
            await self._ledger.report(attempt.progress())
        except LeaseLost:
            self._lost(attempt.claim.document_id)
            return
        self._suspects.pop(0)
        self._alone = attempt.claim.document_id
        self._begin(attempt)

    # -- documents in flight ----------------------------------------------------------------
    def _begin(self, attempt: Attempt) -> None:
        document_id = attempt.claim.document_id
        self._keeper.hold(attempt)
        self._large += attempt.claim.lane == LARGE
        task = asyncio.create_task(self._process(attempt), name=document_id)
        self._tasks[document_id] = task

    async def _process(self, attempt: Attempt) -> None:
        ended = Ended(None, None)
        try:
            ended = await process(attempt, self._tools, self._ledger)
        except Exception as error:  # a fault of ours: the lease runs out and it is taken up again
            words.worker_fault(attempt.claim.document_id, error)
        finally:
            self._keeper.drop(attempt)
            # A lost document may be ours again already, under a newer claim.
            if self._tasks.get(attempt.claim.document_id) is asyncio.current_task():
                del self._tasks[attempt.claim.document_id]
            self._large -= attempt.claim.lane == LARGE
            self._freed.set()
        match ended.outcome:
            case Snooze(reason, detail, after_s, _, shared):
                await self._breakers.report(reason, detail, retry_after_s=after_s, shared=shared)
            case Done():
                self._breakers.succeeded()
            case _:
                pass
        await self._books.close(ticket_of(attempt.claim), ended)

    def _lost(self, document_id: str) -> None:
        self._suspects = [c for c in self._suspects if c.document_id != document_id]
        task = self._tasks.get(document_id)
        if task is not None:
            task.cancel()

    def _ledger_trouble(self, error: UnjamError | None) -> None:
        if error is not None:
            words.ledger_unwritable(error.detail)
        self._breakers.ledger_trouble(error)
        if self._ledger.newer and not self._stopping.is_set():
            # Whoever starts this process anew starts the program that is installed by then.
            words.ledger_newer(self._ledger.newer)
            self.stop()

    # -- stopping ---------------------------------------------------------------------------
    async def _drain(self) -> None:
        words.worker_drains(len(self._tasks))
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=self._options.drain_s)
        for task in list(self._tasks.values()):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=5.0)
        with contextlib.suppress(DependencyDown):  # then the leases run out
            for claim in self._suspects:
                settled = await self._ledger.settle(claim, Release())
                await self._books.close(ticket_of(claim), Ended(Release(), settled))
        await self._books.drain()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
