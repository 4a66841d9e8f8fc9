"""What other programs, or their deaths, leave in RQ's books: suspension, ghosts, stale locks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unjam.queue import keys
from unjam.queue.lanes import DEAD, DEFAULT_LANES
from unjam.queue.link import RedisLink

CLEANING_TTL_S = 899
"""RQ sets its cleaning lock for so long, and needs it for some milliseconds."""

CLEANING_S = 60
"""A cleaning lock that is older than this was left by a worker that died."""


class Healing:
    """Mixed into ``RqBooks``. Everything here costs by lanes and workers, not by what waits."""

    _link: RedisLink

    async def suspended(self) -> bool:
        """Whether ``rq suspend`` holds: nobody takes anything then, our workers neither. A pause
        of all lanes through unjam looks alike to stock workers, and is none."""
        value = await self._link.call(lambda: self._link.redis.get(keys.SUSPENDED))
        return value is not None and value != keys.OUR_SUSPENSION

    async def standing(self) -> int:
        """Jobs that wait in all lanes, or are in somebody's hand and not started yet."""

        async def known() -> list[str]:
            return await self._link.redis.smembers(keys.QUEUES)

        lanes = {*map(keys.lane_name, await self._link.call(known)), *DEFAULT_LANES} - {DEAD}

        async def count() -> list[int]:
            async with self._link.redis.pipeline(transaction=True) as pipe:
                for lane in lanes:
                    pipe.llen(keys.lane(lane))
                pipe.hlen(keys.TAKEN)
                return await pipe.execute()

        return sum(await self._link.call(count))

    async def heal_books(self) -> tuple[int, int]:
        """Take off workers whose entry is gone, and locks that their owners will not release;
        (workers, locks)."""
        lanes = sorted(map(keys.lane_name, await self._members(keys.QUEUES)))
        lists = [keys.WORKERS, *(keys.lane_workers(lane) for lane in lanes)]
        listed = {name: await self._members(name) for name in lists}
        everybody = sorted(set[str]().union(*listed.values()))
        there = await self._existing(everybody)
        ghosts = [w for w, known in zip(everybody, there, strict=True) if not known]
        locks = await self._stale_locks(lanes)

        async def write() -> None:
            async with self._link.redis.pipeline(transaction=True) as pipe:
                for name, members in listed.items():
                    if gone := members.intersection(ghosts):
                        pipe.srem(name, *gone)
                if locks:
                    pipe.delete(*locks)
                await pipe.execute()

        if ghosts or locks:
            await self._link.call(write)
        return len(ghosts), len(locks)

    async def _members(self, key: str) -> set[str]:
        return set(await self._link.call(lambda: self._link.redis.smembers(key)))

    async def _existing(self, names: Sequence[str]) -> list[int]:
        async def ask() -> list[int]:
            async with self._link.redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.exists(name)
                return await pipe.execute()

        return await self._link.call(ask)

    async def _stale_locks(self, lanes: Sequence[str]) -> list[str]:
        """A cleaning lock that is old, or has no end; a scheduler's whose worker is gone."""

        async def ask() -> list[Any]:
            async with self._link.redis.pipeline(transaction=False) as pipe:
                for lane in lanes:
                    pipe.ttl(keys.cleaning(lane))
                    pipe.get(keys.scheduler(lane))
                return await pipe.execute()

        answers = await self._link.call(ask)
        stale: list[str] = []
        owners: dict[str, str] = {}
        for lane, ttl, owner in zip(lanes, answers[::2], answers[1::2], strict=True):
            if ttl == -1 or 0 <= ttl < CLEANING_TTL_S - CLEANING_S:
                stale.append(keys.cleaning(lane))
            if owner is not None:
                owners[keys.scheduler(lane)] = keys.worker(str(owner))
        there = await self._existing(list(owners.values()))
        gone = (lock for lock, known in zip(owners, there, strict=True) if not known)
        return [*stale, *gone]
