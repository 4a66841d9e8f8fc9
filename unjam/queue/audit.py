"""Audit: which tickets stand in the lanes. Its cost must not grow with every question asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from unjam.core.document import Ticket
from unjam.queue import keys
from unjam.queue.jobs import stamp
from unjam.queue.lanes import PROCESSING
from unjam.queue.link import RedisLink

PAGE = 20_000
"""Ids a read of a lane: about 1 ms of Redis."""

FRESH_S = 10.0
"""A picture of a lane serves this long for the tickets that it shows."""

SHARE = 0.01
"""Of the time that pictures may take: a million ids take two seconds of CPU, so a picture of them
serves for minutes. What it does not show is then looked at by itself."""

LOOKS = 20
"""Ids of a long lane that one question looks for by themselves (``LPOS``: 5 ms of Redis each in a
lane of a million). The others' turn comes with a later question."""

SETTLED_S = 5.0
"""A job that was put into its lane so long before a picture must be on it."""

STRANDED_S = 15.0
"""What is in somebody's hand for longer was left there: whoever took it died. (Of a taker that is
known to be dead, ``strand`` tells at once.)"""


@dataclass(frozen=True, slots=True)
class _Picture:
    at: float
    ids: frozenset[str]
    took: datetime  # when reading it began
    good_s: float

    @property
    def of_a_long_lane(self) -> bool:
        return self.good_s > FRESH_S


class Audit:
    """Answers from a recent picture of the lane, and looks again before it says no."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._pictures: dict[str, _Picture] = {}

    async def present(self, tickets: Sequence[Ticket]) -> list[bool]:
        """One answer a ticket. A no is certain. A yes is at most ``FRESH_S`` old (in a long lane
        as old as its picture), and its job exists now."""
        by_lane: dict[str, list[Ticket]] = {}
        for ticket in tickets:
            by_lane.setdefault(ticket.lane or PROCESSING, []).append(ticket)
        there: set[str] = set()
        for lane, some in by_lane.items():
            there |= await self._in_lane(lane, [t.job_id for t in some])
        return [t.job_id in there for t in tickets]

    async def _in_lane(self, lane: str, ids: Sequence[str]) -> set[str]:
        known = await self._existing(ids)
        picture = self._pictures.get(lane)
        if picture is not None and time.monotonic() - picture.at < picture.good_s:
            found = known & picture.ids
            if len(found) == len(known):
                return found
            if picture.of_a_long_lane:
                return found | await self._not_on(picture, lane, known - found)
        moment = await self._link.moment()
        began = time.process_time()
        listed = await self._read(lane)
        good_s = max(FRESH_S, (time.process_time() - began) / SHARE)
        self._pictures[lane] = _Picture(time.monotonic(), listed, moment, good_s)
        found = known & listed
        # Read after the lane: a ticket taken in between is met here.
        return found | await self._held(lane, known - found)

    async def _existing(self, ids: Sequence[str]) -> set[str]:
        """Those whose job hash is there: one without is lost, whatever the list says."""

        async def ask() -> list[int]:
            async with self._link.redis.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    pipe.exists(keys.job(job_id))
                return await pipe.execute()

        answers = await self._link.call(ask)
        return {job_id for job_id, there in zip(ids, answers, strict=True) if there}

    async def _not_on(self, picture: _Picture, lane: str, ids: set[str]) -> set[str]:
        """Those of *ids* that are not known to be absent: they came later, somebody holds them, or
        the lane has them after all (they were put back)."""

        async def times() -> list[str | None]:
            async with self._link.redis.pipeline(transaction=False) as pipe:
                for job_id in sorted(ids):
                    pipe.hget(keys.job(job_id), "enqueued_at")
                return await pipe.execute()

        latest = stamp(picture.took - timedelta(seconds=SETTLED_S))
        put = dict(zip(sorted(ids), await self._link.call(times), strict=True))
        older = {job_id for job_id, at in put.items() if (at or "") < latest}
        doubtful = sorted(older - await self._held(lane, older))[:LOOKS]

        async def look() -> list[int | None]:
            async with self._link.redis.pipeline(transaction=False) as pipe:
                for job_id in doubtful:
                    pipe.lpos(keys.lane(lane), job_id)
                return await pipe.execute()

        places = await self._link.call(look) if doubtful else []
        return ids - {i for i, place in zip(doubtful, places, strict=True) if place is None}

    async def _read(self, lane: str) -> frozenset[str]:
        """The lane's ids, page by page from the tail: takers at the head shift no page."""
        key, ids, last = keys.lane(lane), list[str](), -1
        while True:
            first = last - PAGE + 1
            page: list[str] = await self._link.call(
                lambda first=first, last=last: self._link.redis.lrange(key, first, last)
            )
            ids += page
            if len(page) < PAGE:
                return frozenset(ids)
            last = first - 1

    async def _held(self, lane: str, ids: set[str]) -> set[str]:
        """Those of *ids* that somebody took a short while ago and may be about to claim.

        A stock worker's job is in RQ's started registry while its process still imports.
        """
        if not ids:
            return set()

        async def taken() -> tuple[list[str], list[str]]:
            async with self._link.redis.pipeline(transaction=True) as pipe:
                pipe.lrange(keys.intermediate(lane), 0, -1)
                pipe.zrange(keys.wip(lane), 0, -1)
                inter, started = await pipe.execute()
                return inter, started

        inter, started = await self._link.call(taken)
        mine = list(ids & {*inter, *(entry.partition(":")[0] for entry in started)})
        if not mine:
            return set()

        now = await self._link.now()

        async def records() -> list[str | int]:
            async with self._link.redis.pipeline(transaction=False) as pipe:
                for job_id in mine:
                    # A stock worker keeps no time of taking: the first look begins it.
                    pipe.hsetnx(keys.TAKEN, job_id, f"{now:.3f} {lane} ")
                pipe.hmget(keys.TAKEN, mine)
                return await pipe.execute()

        noted: list[str | None] = (await self._link.call(records))[-1]  # type: ignore[assignment]
        return {i for i, r in zip(mine, noted, strict=True) if r and now - taken_at(r) < STRANDED_S}

    def forget(self) -> None:
        """Look again at the next question: something is known to have changed."""
        self._pictures.clear()


def taken_at(record: str) -> float:
    """When a ticket was taken, out of its record in ``rag:taken``."""
    return float(record.partition(" ")[0])
