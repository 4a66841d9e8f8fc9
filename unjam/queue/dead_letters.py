"""Dead letters in Redis: list and failed registry of ``rag_dlq``, as RQ's tools expect them.

A letter stands in both, and in ``rag:parked`` under its document. RQ's own tools change one without
the others, and that tells what happened: ``rq requeue`` takes the id out of the registry and leaves
the list (somebody wants it back), ``rq empty`` and a worker that was pointed at the queue take it
out of the list (nobody wants anything: it is put back).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from unjam.core.document import Ticket
from unjam.core.ports import Parked
from unjam.queue import keys
from unjam.queue.jobs import DESCRIPTION, encode, stamp
from unjam.queue.lanes import DEAD, PROCESSING
from unjam.queue.link import RedisLink

T = TypeVar("T")
AT_ONCE = 500
"""Letters a script call: a few milliseconds of Redis."""
PAGE = 2_000
"""Listed ids a call that are compared with the registry."""
_PLACES = (keys.lane(DEAD), keys.failed(DEAD), keys.PARKED)


class ParkedJobs:
    """Mixed into ``RqQueue``, which opens *_link* and knows *_function*."""

    _link: RedisLink
    _function: str

    async def park(self, tickets: Sequence[Ticket]) -> None:
        """Make dead letters visible in ``rag_dlq``: list and failed registry, for ever.

        The job's origin is ``rag_processing``, so ``rq requeue --all --queue rag_dlq`` sends it
        there. One that was just requeued so is left as it is: the reconciler has yet to see it.
        """
        for some in _chunks(tickets, AT_ONCE):
            names = [keys.QUEUES, *_PLACES]
            args = [stamp(await self._link.moment()), DESCRIPTION, PROCESSING]
            for ticket in some:
                names.append(keys.job(ticket.job_id))
                args += (ticket.document_id, ticket.job_id, encode(ticket, self._function))
            older = await self._link.run("park", names, args)
            await self._forget_jobs(older)

    async def unpark(self, document_ids: Sequence[str]) -> None:
        """These documents are dead no more. Unknown ones are no error."""
        for some in _chunks(document_ids, AT_ONCE):
            await self._forget_jobs(await self._link.run("unpark", list(_PLACES), some))

    async def parked(self) -> Parked:
        """How many letters stand where; all three are equal unless somebody's tool was there."""

        async def ask() -> list[int]:
            async with self._link.redis.pipeline(transaction=True) as pipe:
                pipe.llen(_PLACES[0])
                pipe.zcard(_PLACES[1])
                pipe.hlen(_PLACES[2])
                return await pipe.execute()

        listed, registered, known = await self._link.call(ask)
        return Parked(listed, registered, known)

    async def requeued(self) -> list[Ticket]:
        """Letters that left the registry while still listed: ``rq requeue`` sent them back."""
        sizes = await self.parked()
        if sizes.registered >= max(sizes.known, sizes.listed):
            return []
        found: list[str] = []
        for first in range(0, sizes.listed, PAGE):
            found += await self._link.run("requeued", list(_PLACES[:2]), [first, first + PAGE - 1])
        tickets = (Ticket.parse(job_id, PROCESSING) for job_id in dict.fromkeys(found))
        return [ticket for ticket in tickets if ticket is not None]

    async def acknowledge(self, tickets: Sequence[Ticket]) -> None:
        """These requeued letters were dealt with: they leave ``rag_dlq``."""
        for some in _chunks(tickets, AT_ONCE):
            args = [part for t in some for part in (t.document_id, t.job_id)]
            await self._forget_jobs(await self._link.run("acknowledge", list(_PLACES), args))

    async def unsound(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Those of the letters that lack their registry entry, our record of them, or the job."""
        if not tickets:
            return []

        async def ask() -> list[object]:
            async with self._link.redis.pipeline(transaction=False) as pipe:
                for ticket in tickets:
                    pipe.zscore(_PLACES[1], ticket.job_id)
                    pipe.hget(_PLACES[2], ticket.document_id)
                    pipe.exists(keys.job(ticket.job_id))
                return await pipe.execute()

        raw = await self._link.call(ask)
        answers = zip(tickets, raw[::3], raw[1::3], raw[2::3], strict=True)
        return [t for t, score, at, job in answers if score is None or at != t.job_id or not job]

    async def repark(self, tickets: Sequence[Ticket]) -> None:
        """Make ``rag_dlq`` hold exactly these, whatever a tool did to it.

        Requeued ones that nobody has looked at yet stay as they are.
        """
        # With an empty list there is nothing to be learnt from what is left, and much to be slow.
        await self._forget_jobs(await self._link.run("clear_unlisted", list(_PLACES), []))
        listed, registered, known = await self._contents()
        requeued = set(listed) - registered
        wanted = {t.job_id: t for t in tickets}
        gone = [doc for doc, i in known.items() if i not in wanted and i not in requeued]
        await self.unpark(gone)
        recorded = set(known.values())
        await self._strike_ids({i for i in {*listed, *registered} if i not in recorded} - requeued)
        sound = set(listed) & registered & recorded
        await self.park([t for i, t in wanted.items() if i not in sound and i not in requeued])

    async def _contents(self) -> tuple[list[str], set[str], dict[str, str]]:
        async def look() -> tuple[list[str], list[str], dict[str, str]]:
            async with self._link.redis.pipeline(transaction=True) as pipe:
                pipe.lrange(_PLACES[0], 0, -1)
                pipe.zrange(_PLACES[1], 0, -1)
                pipe.hgetall(_PLACES[2])
                listed, registered, known = await pipe.execute()
                return listed, registered, known

        listed, registered, known = await self._link.call(look)
        return listed, set(registered), known

    async def _strike_ids(self, job_ids: Iterable[str]) -> None:
        """Take ids off list and registry that we have no record of."""
        for some in _chunks(job_ids, AT_ONCE):

            async def write(some: list[str] = some) -> None:
                async with self._link.redis.pipeline(transaction=True) as pipe:
                    for job_id in some:
                        pipe.lrem(_PLACES[0], 0, job_id)
                        pipe.zrem(_PLACES[1], job_id)
                    await pipe.execute()

            await self._link.call(write)

    async def _forget_jobs(self, job_ids: Sequence[str]) -> None:
        for some in _chunks(job_ids, AT_ONCE):
            await self._link.call(lambda some=some: self._link.redis.delete(*map(keys.job, some)))


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    every = list(items)
    for start in range(0, len(every), size):
        yield every[start : start + size]
