"""RqQueue: the lanes in Redis, laid out as RQ 3 lays them out, so that RQ's own tools work on them.

Every step is one atomic script. A ticket is in its lane, in the intermediate list, or started;
a process may die between any two steps and nothing is lost: what was left behind counts as absent
after ``STRANDED_S``, and the audit rings again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from unjam.core.document import Ticket
from unjam.core.ports import LaneFacts
from unjam.queue import keys
from unjam.queue.audit import Audit
from unjam.queue.books import JOB_TTL_S, WIP_TTL_S, RqBooks, member
from unjam.queue.dead_letters import ParkedJobs
from unjam.queue.facts import read_facts
from unjam.queue.jobs import DESCRIPTION, FUNCTION, encode, stamp
from unjam.queue.lanes import DEAD, DEFAULT_LANES, PROCESSING
from unjam.queue.link import RedisLink

T = TypeVar("T")

PUSH_AT_ONCE = 500
"""Tickets a script call: about 5 ms of Redis, in which nobody else is served."""

MOVE_AT_ONCE = 20_000
"""Tickets a script call that go to another lane: about 0.1 s of Redis out of 100,000."""

LEAST_SHARE = 4
"""Documents that one worker may hold however short the backlog is: they share requests."""

POLL_S = 0.075
"""Between looks at the lanes while idle: 0.8 % of a core. A blocking pop would open the
loss window that ``take`` closes, and a notification would miss what stock tools push."""


class RqQueue(RqBooks, ParkedJobs):
    """The port ``Queue`` on Redis or Valkey (≥ 6.2), database from the URL.

    *function* is what stock RQ workers call for a job.
    """

    def __init__(self, url: str, *, function: str = FUNCTION, client_name: str = "unjam") -> None:
        super().__init__(RedisLink(url, client_name))
        self._function = function
        self._audit = Audit(self._link)

    # -- into the lanes ---------------------------------------------------------------------
    async def push(self, tickets: Sequence[Ticket]) -> None:
        """Put each into its lane unless its job exists already; users take turns. Idempotent."""
        for some in chunks(tickets, PUSH_AT_ONCE):
            names = [keys.QUEUES, keys.failed(DEAD), keys.TAKEN, keys.JOBS]
            args = [stamp(await self._link.moment()), DESCRIPTION]
            for ticket in some:
                lane = ticket.lane or PROCESSING
                before = Ticket(ticket.document_id, ticket.enqueue_seq - 1).job_id
                names += (
                    keys.job(ticket.job_id),
                    keys.lane(lane),
                    keys.turns(lane),
                    keys.job(before),
                    keys.intermediate(lane),
                    keys.failed(lane),
                )
                data = encode(ticket, self._function)
                args += (ticket.job_id, lane, data, before, ticket.user_id)
            await self._link.run("push", names, args)

    async def put_back(self, tickets: Sequence[Ticket], worker: str) -> None:
        """Not claimed for want of a slot: back to the head of the lane, in the old order."""
        if not tickets:
            return
        names = [keys.TAKEN]
        for ticket in reversed(tickets):
            names += (keys.intermediate(ticket.lane), keys.lane(ticket.lane))
        await self._link.run("put_back", names, [t.job_id for t in reversed(tickets)])

    # -- out of the lanes -------------------------------------------------------------------
    async def take(self, lanes: Sequence[str], limit: int, worker: str) -> list[Ticket]:
        """Up to *limit* tickets, lanes in order; none while ``rq suspend`` holds.

        Bounded by the worker's fair share of what these lanes hold and have at work, so that a
        short backlog reaches every live worker. Who holds its share waits a moment for the others.
        A foreign id (not ``<document>-<sequence>``) is set aside in RQ's failed registry.
        """
        served = [lane for lane in lanes if lane != DEAD]
        if limit <= 0 or not served:
            return []
        raw = await self._take(served, limit, worker, eager=False)
        if raw == [-1]:
            # The others' turn: an idle one looks within POLL_S. What it leaves is ours.
            await asyncio.sleep(POLL_S * 1.5)
            raw = await self._take(served, limit, worker, eager=True)
        tickets: list[Ticket] = []
        for index, job_id in zip(raw[::2], raw[1::2], strict=True):
            ticket = Ticket.parse(str(job_id), served[int(index)])
            if ticket is None:
                await self._set_aside(str(job_id), served[int(index)])
            else:
                tickets.append(ticket)
        return tickets

    async def _take(
        self, lanes: Sequence[str], limit: int, worker: str, *, eager: bool
    ) -> list[Any]:
        names = [keys.SUSPENDED, keys.TAKEN]
        for lane in lanes:
            names += (keys.lane(lane), keys.intermediate(lane), keys.wip(lane))
            names.append(keys.lane_workers(lane))
        args = [limit, worker, self._holds(worker), LEAST_SHARE, int(eager), *lanes]
        # Not tried again: a lost answer leaves its tickets in the intermediate list, to the audit.
        return await self._link.run("take", names, args, again=False)

    async def keep(self, ticket: Ticket, worker: str) -> None:
        """A stock worker's job is in hand and not claimed yet: good for ``STRANDED_S``."""
        record = f"{await self._link.now():.3f} {ticket.lane or PROCESSING} {worker}"
        await self._link.call(lambda: self._link.redis.hset(keys.TAKEN, ticket.job_id, record))

    async def let_go(self, ticket: Ticket) -> None:
        """Claimed, or stale: the opposite of ``keep``."""
        await self._link.call(lambda: self._link.redis.hdel(keys.TAKEN, ticket.job_id))

    async def strand(self, workers: Sequence[str]) -> list[Ticket]:
        """These workers are dead: what they took counts as absent now; they leave RQ's books."""
        if not workers:
            return []
        raw = await self._link.run("strand", [keys.TAKEN], list(workers))
        for worker in workers:
            await self._strike(worker)
        self._audit.forget()
        pairs = zip(raw[::2], raw[1::2], strict=True)
        found = (Ticket.parse(str(job_id), str(lane)) for lane, job_id in pairs)
        return [ticket for ticket in found if ticket is not None]

    async def _set_aside(self, job_id: str, lane: str) -> None:
        async def write() -> None:
            async with self._link.redis.pipeline(transaction=True) as pipe:
                pipe.lrem(keys.intermediate(lane), 1, job_id)
                pipe.hdel(keys.TAKEN, job_id)
                pipe.zadd(keys.failed(lane), {job_id: -1})
                await pipe.execute()

        await self._link.call(write)

    async def started(self, tickets: Sequence[Ticket], worker: str) -> None:
        """Claimed: leave the intermediate list, appear as started in RQ's books."""
        if not tickets:
            return
        self._hold(worker, {t.job_id: t.lane for t in tickets})
        names = [keys.TAKEN, keys.worker(worker)]
        now = stamp(await self._link.moment())
        expiry = int(await self._link.now()) + WIP_TTL_S
        args: list[str | int | float] = [worker, now, expiry, JOB_TTL_S]
        for ticket in tickets:
            names += _places(ticket.lane, ticket.job_id)
            args += (ticket.job_id, member(ticket.job_id, worker))
        await self._link.run("started", names, args)

    async def finished(self, tickets: Sequence[Ticket], worker: str, *, ok: bool = True) -> None:
        """Ended in the ledger: the job leaves RQ's books, the worker's count goes up."""
        if not tickets:
            return
        names = [keys.TAKEN, keys.worker(worker), keys.failed(DEAD)]
        args: list[str | int | float] = []
        for ticket in tickets:
            # Its lane may have changed since it was taken; the books name the one it came from.
            lane = self._lane_held(worker, ticket.job_id, ticket.lane)
            names += _places(lane, ticket.job_id)
            args += (ticket.job_id, member(ticket.job_id, worker))
        state = self._let_go(worker, [t.job_id for t in tickets])
        count = "successful_job_count" if ok else "failed_job_count"
        await self._link.run("finished", names, [count, state, *args])

    async def discard(self, tickets: Sequence[Ticket], worker: str) -> None:
        """Stale: drop job and intermediate entry."""
        if not tickets:
            return
        names = [keys.TAKEN, keys.failed(DEAD)]
        for ticket in tickets:
            names += (keys.intermediate(ticket.lane), keys.job(ticket.job_id))
        await self._link.run("discard", names, [worker, *(t.job_id for t in tickets)])

    async def wait(self, lanes: Sequence[str], timeout_s: float) -> None:
        """Return when a lane may hold something, or after the time-out.

        Looks every 75 ms, so that documents pushed by stock tools wake it, too.
        """
        names = [keys.lane(lane) for lane in lanes if lane != DEAD]
        deadline = time.monotonic() + timeout_s
        while True:
            if names and await self._any(names):
                return
            left = deadline - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(POLL_S, left))

    async def _any(self, names: Sequence[str]) -> bool:
        """Whether one of the lanes holds something, and may be served."""
        redis = self._link.redis
        if not await self._link.call(lambda: redis.exists(*names)):
            return False
        return not await self._link.call(lambda: redis.exists(keys.SUSPENDED))

    # -- between the lanes ------------------------------------------------------------------
    async def move(self, tickets: Sequence[Ticket], lane: str) -> list[Ticket]:
        """Those that still wait in their lanes go to *lane*, in one step a lane."""
        moved: list[Ticket] = []
        for source, some in by_lane(tickets).items():
            for part in chunks(some, MOVE_AT_ONCE) if source != lane else ():
                known = {t.job_id: t for t in part}
                names = [keys.lane(source), keys.lane(lane), keys.turns(lane)]
                names += (keys.QUEUES, keys.JOBS)
                pairs = [word for t in part for word in (t.job_id, t.user_id)]
                ids = await self._link.run("move", names, [lane, *pairs])
                moved += [replace(known[str(i)], lane=lane) for i in ids]
        self._audit.forget()
        return moved

    async def to_front(
        self, lane: str, tickets: Sequence[Ticket], turns: Sequence[int] = ()
    ) -> list[Ticket]:
        """Those that wait in *lane* stand at its head, in the order given; one step for all."""
        ids = "\n".join(t.job_id for t in tickets)  # one word: 100,000 would take half a second
        names = [keys.lane(lane), keys.turns(lane), keys.JOBS]
        absent = set(await self._link.run("front", names, [ids, "\n".join(map(str, turns))]))
        return [t for n, t in enumerate(tickets) if n not in absent]

    async def show_pauses(self, lanes: Collection[str], *, resume: bool = False) -> None:
        """Lanes that are paused ("*": all), for everybody who looks; all at once is also what
        ``rq suspend`` does, so stock workers take nothing. *resume* ends theirs, too."""
        args = [keys.OUR_SUSPENSION, int(resume), *sorted(lanes)]
        await self._link.run("pauses", [keys.PAUSED, keys.SUSPENDED], args)

    # -- questions --------------------------------------------------------------------------
    async def present(self, tickets: Sequence[Ticket]) -> list[bool]:
        """Whether each stands in its lane or, not for too long, in the intermediate list."""
        return await self._audit.present(tickets)

    async def look_anew(self) -> None:
        """The next ``present`` looks at the lanes themselves."""
        self._audit.forget()

    async def lengths(self) -> dict[str, int]:
        """Every lane that exists, the default ones always, and ``rag_dlq``."""
        known = await self._link.call(lambda: self._link.redis.smembers(keys.QUEUES))
        names = dict.fromkeys((*DEFAULT_LANES, DEAD, *sorted(map(keys.lane_name, known))))

        async def count() -> list[int]:
            async with self._link.redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.llen(keys.lane(name))
                return await pipe.execute()

        return dict(zip(names, await self._link.call(count), strict=True))

    async def lane_facts(self, lanes: Sequence[str] = ()) -> dict[str, LaneFacts]:
        """What ``/api/queues`` and the metrics show; three round trips."""
        return await read_facts(self._link, lanes)

    async def ping(self) -> None:
        """Raises DependencyDown."""
        await self._link.call(lambda: self._link.redis.ping())

    # -- the end -----------------------------------------------------------------------------
    async def close(self) -> None:
        await self._link.close()


def _places(lane: str, job_id: str) -> tuple[str, str, str]:
    return keys.intermediate(lane), keys.job(job_id), keys.wip(lane)


def by_lane(tickets: Iterable[Ticket]) -> dict[str, list[Ticket]]:
    """Lane → its tickets, in their order."""
    found: dict[str, list[Ticket]] = {}
    for ticket in tickets:
        found.setdefault(ticket.lane or PROCESSING, []).append(ticket)
    return found


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most *size* items."""
    every = list(items)
    for start in range(0, len(every), size):
        yield every[start : start + size]
