"""RQ's books about our workers, so that ``rq info`` shows them, and the house's entry in Redis."""

from __future__ import annotations

import platform
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from unjam import __version__
from unjam.queue import keys
from unjam.queue.heal import Healing
from unjam.queue.jobs import stamp
from unjam.queue.link import RedisLink

WORKER_TTL_S = 60
"""A worker that did not beat for this long disappears from RQ's books."""

WIP_TTL_S = 120
"""A started job's entry outlives its hash (100 s): RQ then drops it without calling it failed."""

JOB_TTL_S = 100


@dataclass(slots=True)
class _Listed:
    """A worker of this process as it stands in RQ's books."""

    lanes: tuple[str, ...]
    pid: int
    birth: str
    held: dict[str, str] = field(default_factory=dict[str, str])  # job id → lane it came from
    idle_state: str = "idle"


class RqBooks(Healing):
    """Registers, beats and unregisters workers. A beat repairs what Redis lost."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._listed: dict[str, _Listed] = {}

    async def register_worker(self, name: str, lanes: Sequence[str], pid: int) -> None:
        """List *name* as a worker of *lanes*; it disappears by itself unless it beats."""
        self._listed[name] = _Listed(tuple(lanes), pid, stamp(await self._link.moment()))
        await self.beat_worker(name)

    async def beat_worker(self, name: str) -> None:
        """Say that *name* lives: call it every few seconds, at least once a minute.

        Writes the whole entry, so a Redis that lost its data shows the worker again at once.
        """
        me = self._listed[name]
        now = stamp(await self._link.moment())
        expiry = int(await self._link.now()) + WIP_TTL_S
        entry: dict[str, str | int] = {
            "birth": me.birth,
            "last_heartbeat": now,
            "queues": ",".join(me.lanes),
            "pid": me.pid,
            "hostname": socket.gethostname(),
            "ip_address": "127.0.0.1",
            "version": version("rq"),
            keys.OURS: __version__,
            "python_version": f"{platform.python_version()} ({sys.implementation.name})",
            "state": "busy" if me.held else me.idle_state,
        }
        key = keys.worker(name)

        async def write() -> None:
            async with self._link.redis.pipeline(transaction=True) as pipe:
                pipe.hset(key, mapping=entry)
                pipe.expire(key, WORKER_TTL_S)
                pipe.sadd(keys.WORKERS, key)
                for lane in me.lanes:
                    pipe.sadd(keys.lane_workers(lane), key)
                for job_id, lane in me.held.items():
                    pipe.zadd(keys.wip(lane), {member(job_id, name): expiry}, xx=True)
                    pipe.expire(keys.job(job_id), JOB_TTL_S)
                await pipe.execute()

        await self._link.call(write)

    async def _strike(self, name: str) -> None:
        """Take a dead worker of another process off the books."""
        key = keys.worker(name)
        lanes: str | None = await self._link.call(lambda: self._link.redis.hget(key, "queues"))
        if lanes is None:
            return

        async def write() -> None:
            async with self._link.redis.pipeline(transaction=True) as pipe:
                pipe.srem(keys.WORKERS, key)
                for lane in lanes.split(","):
                    pipe.srem(keys.lane_workers(lane), key)
                pipe.delete(key)
                await pipe.execute()

        await self._link.call(write)

    async def unregister_worker(self, name: str) -> None:
        """Take *name* off the books: it ended cleanly."""
        me = self._listed.pop(name, None)
        key = keys.worker(name)

        async def write() -> None:
            async with self._link.redis.pipeline(transaction=True) as pipe:
                pipe.srem(keys.WORKERS, key)
                for lane in me.lanes if me else ():
                    pipe.srem(keys.lane_workers(lane), key)
                pipe.delete(key)
                await pipe.execute()

        await self._link.call(write)

    async def write_house(self, mapping: Mapping[str, str]) -> None:
        """Replace ``rag:house``: where ledger, data folder and servers are. No secrets."""

        async def write() -> None:
            async with self._link.redis.pipeline(transaction=True) as pipe:
                pipe.delete(keys.HOUSE)
                pipe.hset(keys.HOUSE, mapping=dict(mapping))
                await pipe.execute()

        await self._link.call(write)

    async def read_house(self) -> dict[str, str]:
        """``rag:house``; empty when nobody wrote it yet."""
        return await self._link.call(lambda: self._link.redis.hgetall(keys.HOUSE))

    async def has_figures(self) -> bool:
        """Whether Redis still holds the statistics that were written last."""
        return bool(await self._link.call(lambda: self._link.redis.exists(keys.FIGURES)))

    async def write_figures(self, figures: Mapping[str, int], kept_s: Mapping[str, int]) -> None:
        """``rag:stats:…`` → value, each with its time to live."""

        async def write() -> None:
            async with self._link.redis.pipeline(transaction=False) as pipe:
                for key, value in figures.items():
                    pipe.set(key, value, ex=kept_s[key])
                pipe.set(keys.FIGURES, int(time.time()))  # last: all the others stand then
                await pipe.execute()

        await self._link.call(write)

    async def epoch(self) -> int:
        """The counter that tells a Redis that lost its data; 0 = none. Negative: it is there, but
        this Redis restarted or evicted keys since, or the audit under it never came to its end."""

        async def read() -> tuple[str | None, str | None]:
            epoch, whole = await self._link.redis.mget(keys.EPOCH, keys.EPOCH_WHOLE)
            return epoch, whole

        epoch, whole = await self._link.call(read)
        value = int(epoch or 0)
        return value if whole == f"{value} {await self._life()}" else -value

    async def set_epoch(self, value: int) -> None:
        """Begin an audit under this epoch; ``confirm_epoch`` ends it."""
        begun = {keys.EPOCH: value, keys.EPOCH_BEGUN: f"{value} {await self._life()}"}
        await self._link.call(lambda: self._link.redis.mset(begun))

    async def confirm_epoch(self, value: int) -> bool:
        """The audit under this epoch is done; False when the data was lost meanwhile."""
        names = [keys.EPOCH, keys.EPOCH_BEGUN, keys.EPOCH_WHOLE]
        return bool(await self._link.run("confirm", names, [value]))

    async def _life(self) -> str:
        """Which run of the server this is, and how many keys it has evicted."""

        async def ask() -> tuple[str, int]:
            redis = self._link.redis
            server, stats = await redis.info("server"), await redis.info("stats")
            return str(server["run_id"]), int(stats["evicted_keys"])

        run, evicted = await self._link.call(ask)
        return f"{run} {evicted}"

    def _hold(self, worker: str, job_ids: Mapping[str, str]) -> None:
        if worker in self._listed:
            self._listed[worker].held.update(job_ids)

    def _holds(self, worker: str) -> int:
        """How many started jobs *worker* holds, as far as this process knows."""
        me = self._listed.get(worker)
        return len(me.held) if me else 0

    def _lane_held(self, worker: str, job_id: str, default: str) -> str:
        me = self._listed.get(worker)
        return me.held.get(job_id, default) if me else default

    def _let_go(self, worker: str, job_ids: Sequence[str]) -> str:
        """Forget the jobs; the worker's state afterwards."""
        me = self._listed.get(worker)
        if me is None:
            return "idle"
        for job_id in job_ids:
            me.held.pop(job_id, None)
        return "busy" if me.held else "idle"


def member(job_id: str, worker: str) -> str:
    """``<job>:<execution>``, as RQ's started registry holds it; the worker is our execution."""
    return f"{job_id}:{worker.replace(':', '.')}"
