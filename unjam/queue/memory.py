"""MemoryQueue: the port ``Queue`` in one process, for tests. Ships, and passes the same suite."""

from __future__ import annotations

import asyncio
import contextlib
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from unjam.core.document import Ticket
from unjam.core.errors import DependencyDown
from unjam.core.ports import LaneFacts, Parked
from unjam.queue.audit import STRANDED_S
from unjam.queue.lanes import DEAD, DEFAULT_LANES, PROCESSING


class MemoryQueue:
    """Everything in dicts. ``away = True`` makes every call raise DependencyDown."""

    def __init__(self) -> None:
        self.away = False
        self.held_back = False  # as by ``rq suspend``
        self.started_jobs: dict[str, str] = {}  # job id → worker
        self.ended: list[tuple[str, bool]] = []  # job id, ok
        self.letters: dict[str, Ticket] = {}  # document → ticket
        self.sent_back: set[str] = set()  # job ids that ``rq requeue`` took off the registry
        self._lanes: dict[str, deque[str]] = {}
        self._jobs: dict[str, Ticket] = {}
        self._turns: dict[str, int] = {}  # job id → turn
        self._latest: dict[tuple[str, str], int] = {}  # lane, user → the user's last turn
        self._taken: dict[str, float] = {}
        self._taker: dict[str, str] = {}
        self._bell = asyncio.Event()
        self._epoch, self._audited = 0, True
        self._house: dict[str, str] = {}
        self._workers: dict[str, tuple[str, ...]] = {}
        self.paused: frozenset[str] = frozenset()
        self.figures: dict[str, int] = {}  # statistics by key

    def _check(self) -> None:
        if self.away:
            raise DependencyDown("Redis is away", code="queue_down")

    def lose_everything(self) -> None:
        """What FLUSHALL does."""
        for store in (self._lanes, self._jobs, self._taken, self.started_jobs, self.letters):
            store.clear()
        self.figures.clear()
        self._workers.clear()
        self._epoch, self._audited = 0, True
        self._house = {}

    async def push(self, tickets: Sequence[Ticket]) -> None:
        self._check()
        for ticket in tickets:
            if ticket.job_id in self._jobs:
                continue
            before = Ticket(ticket.document_id, ticket.enqueue_seq - 1).job_id
            self._jobs.pop(before, None)
            self._taken.pop(before, None)
            lane = ticket.lane or PROCESSING
            self._jobs[ticket.job_id] = Ticket(
                ticket.document_id, ticket.enqueue_seq, lane, ticket.size_bytes
            )
            self._place(ticket.job_id, lane, ticket.user_id)
        self._bell.set()

    def _place(self, job_id: str, lane: str, user_id: str) -> None:
        """Sorted by turn: see ``lua/place.lua``."""
        line = self._lanes.setdefault(lane, deque())
        if not line:
            self._latest = {k: n for k, n in self._latest.items() if k[0] != lane}
        now = self._turns.get(line[0], 0) if line else 0
        turn = max(now, self._latest.get((lane, user_id), 0) + 1)
        self._turns[job_id] = self._latest[lane, user_id] = turn
        if not line or turn >= self._turns.get(line[-1], 0):
            line.append(job_id)
        else:
            line.insert(bisect_right([self._turns.get(i, 0) for i in line], turn), job_id)

    async def take(self, lanes: Sequence[str], limit: int, worker: str) -> list[Ticket]:
        self._check()
        out: list[Ticket] = []
        for lane in () if self.held_back else lanes:
            line = self._lanes.get(lane, deque())
            while lane != DEAD and line and len(out) < limit:
                job_id = line.popleft()
                ticket = Ticket.parse(job_id, lane)
                if ticket is not None and job_id not in self._taken:
                    self._taken[job_id] = time.monotonic()
                    self._taker[job_id] = worker
                    out.append(ticket)
        return out

    async def started(self, tickets: Sequence[Ticket], worker: str) -> None:
        self._check()
        for ticket in tickets:
            self._taken.pop(ticket.job_id, None)
            self.started_jobs[ticket.job_id] = worker

    async def finished(self, tickets: Sequence[Ticket], worker: str, *, ok: bool = True) -> None:
        self._check()
        for ticket in tickets:
            self._taken.pop(ticket.job_id, None)
            self.started_jobs.pop(ticket.job_id, None)
            self._jobs.pop(ticket.job_id, None)
            self.ended.append((ticket.job_id, ok))

    async def put_back(self, tickets: Sequence[Ticket], worker: str) -> None:
        self._check()
        for ticket in reversed(tickets):
            if self._taken.pop(ticket.job_id, None) is not None:
                self._lanes.setdefault(ticket.lane, deque()).appendleft(ticket.job_id)
        self._bell.set()

    async def discard(self, tickets: Sequence[Ticket], worker: str) -> None:
        self._check()
        for ticket in tickets:
            self._taken.pop(ticket.job_id, None)
            if self.started_jobs.get(ticket.job_id, worker) == worker:
                self._jobs.pop(ticket.job_id, None)

    async def move(self, tickets: Sequence[Ticket], lane: str) -> list[Ticket]:
        self._check()
        wanted = {t.job_id: t for t in tickets if t.lane != lane}
        moved: list[Ticket] = []
        for source in dict.fromkeys(t.lane for t in wanted.values()):
            line = self._lanes.get(source, deque())
            going = [i for i in line if i in wanted and wanted[i].lane == source]
            self._lanes[source] = deque(i for i in line if i not in going)
            for job_id in going:
                if job_id in self._jobs:
                    self._jobs[job_id] = replace(self._jobs[job_id], lane=lane)
                    self._place(job_id, lane, wanted[job_id].user_id)
                    moved.append(replace(wanted[job_id], lane=lane))
        self._bell.set()
        return moved

    async def to_front(
        self, lane: str, tickets: Sequence[Ticket], turns: Sequence[int] = ()
    ) -> list[Ticket]:
        self._check()
        line = self._lanes.get(lane, deque())
        now = self._turns.get(line[0], 0) if line else 0
        waiting = set(line)
        front: list[Ticket] = []
        for ticket, after in zip(tickets, turns or [0] * len(tickets), strict=True):
            if ticket.job_id in waiting:
                waiting.discard(ticket.job_id)
                self._turns[ticket.job_id] = now + after
                front.append(ticket)
        self._lanes[lane] = deque([t.job_id for t in front] + [i for i in line if i in waiting])
        return front

    async def show_pauses(self, lanes: Collection[str], *, resume: bool = False) -> None:
        self._check()
        self.paused = frozenset(lanes)

    async def present(self, tickets: Sequence[Ticket]) -> list[bool]:
        self._check()
        now = time.monotonic()
        held = {i for i, at in self._taken.items() if now - at < STRANDED_S}
        listed = {(job_id, lane) for lane, line in self._lanes.items() for job_id in line}
        return [
            t.job_id in self._jobs
            and (t.job_id in held or (t.job_id, t.lane or PROCESSING) in listed)
            for t in tickets
        ]

    async def strand(self, workers: Sequence[str]) -> list[Ticket]:
        self._check()
        left = [i for i in self._taken if self._taker.get(i) in workers]
        for job_id in left:
            self._taken[job_id] = -STRANDED_S
        return [self._jobs[i] for i in left if i in self._jobs]

    async def park(self, tickets: Sequence[Ticket]) -> None:
        self._check()
        self.letters.update({t.document_id: t for t in tickets})

    async def unpark(self, document_ids: Sequence[str]) -> None:
        self._check()
        for document_id in document_ids:
            ticket = self.letters.pop(document_id, None)
            if ticket is not None:
                self.sent_back.discard(ticket.job_id)

    async def repark(self, tickets: Sequence[Ticket]) -> None:
        self._check()
        back = {d: t for d, t in self.letters.items() if t.job_id in self.sent_back}
        self.letters = {t.document_id: t for t in tickets} | back

    async def parked(self) -> Parked:
        self._check()
        count = len(self.letters)
        return Parked(count, count - len(self.sent_back), count)

    async def requeued(self) -> list[Ticket]:
        self._check()
        return [t for t in self.letters.values() if t.job_id in self.sent_back]

    async def acknowledge(self, tickets: Sequence[Ticket]) -> None:
        self._check()
        for ticket in tickets:
            self.sent_back.discard(ticket.job_id)
            letter = self.letters.get(ticket.document_id)
            if letter is not None and letter.job_id == ticket.job_id:
                del self.letters[ticket.document_id]

    async def unsound(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        self._check()
        whole = {t.job_id for t in self.letters.values()} - self.sent_back
        return [t for t in tickets if t.job_id not in whole]

    async def lengths(self) -> dict[str, int]:
        self._check()
        names = dict.fromkeys((*DEFAULT_LANES, DEAD, *sorted(self._lanes)))
        counts = {name: len(self._lanes.get(name, ())) for name in names}
        return {**counts, DEAD: len(self.letters)}

    async def lane_facts(self, lanes: Sequence[str] = ()) -> dict[str, LaneFacts]:
        counts = {**dict.fromkeys(lanes, 0), **await self.lengths()}
        line = {name: [i.rpartition("-")[0] for i in ids] for name, ids in self._lanes.items()}
        return {
            name: LaneFacts(
                name,
                count,
                started=sum(self._lane_of(i) == name for i in self.started_jobs),
                failed=len(self.letters) if name == DEAD else 0,
                workers=sum(name in served for served in self._workers.values()),
                paused=not self.paused.isdisjoint((name, "*")),
                line=tuple(line.get(name, ())),
            )
            for name, count in counts.items()
        }

    def _lane_of(self, job_id: str) -> str:
        ticket = self._jobs.get(job_id)
        return ticket.lane if ticket else ""

    async def has_figures(self) -> bool:
        self._check()
        return bool(self.figures)

    async def write_figures(self, figures: Mapping[str, int], kept_s: Mapping[str, int]) -> None:
        self._check()
        self.figures.update(figures)

    async def wait(self, lanes: Sequence[str], timeout_s: float) -> None:
        self._check()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not any(self._lanes.get(lane) for lane in lanes if lane != DEAD):
                    self._bell.clear()
                    await self._bell.wait()

    async def epoch(self) -> int:
        self._check()
        return self._epoch if self._audited else -self._epoch

    async def set_epoch(self, value: int) -> None:
        self._check()
        self._epoch, self._audited = value, False

    async def confirm_epoch(self, value: int) -> bool:
        self._check()
        self._audited = self._epoch == value
        return self._audited

    async def write_house(self, mapping: Mapping[str, str]) -> None:
        self._check()
        self._house = dict(mapping)

    async def read_house(self) -> dict[str, str]:
        self._check()
        return dict(self._house)

    async def register_worker(self, name: str, lanes: Sequence[str], pid: int) -> None:
        self._check()
        self._workers[name] = tuple(lanes)

    async def beat_worker(self, name: str) -> None:
        self._check()

    async def unregister_worker(self, name: str) -> None:
        self._check()
        self._workers.pop(name, None)

    async def suspended(self) -> bool:
        self._check()
        return self.held_back

    async def standing(self) -> int:
        self._check()
        return sum(map(len, self._lanes.values())) + len(self._taken)

    async def look_anew(self) -> None:
        self._check()

    async def heal_books(self) -> tuple[int, int]:
        self._check()
        return 0, 0

    async def ping(self) -> None:
        self._check()

    async def close(self) -> None:
        return None
