"""What RQ's books say about the lanes: lengths, registries, live workers, who stands where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from unjam.core.ports import LaneFacts
from unjam.queue import keys
from unjam.queue.lanes import DEAD, DEFAULT_LANES
from unjam.queue.link import RedisLink

SAMPLES = 32
"""Places of a lane that are looked at: a position is known to within a 32nd of its length."""

FRESH_S = 15.0
"""Our workers beat every five seconds. Stock ones beat once in seven minutes: they count until
RQ's own entry expires."""


async def read_facts(link: RedisLink, lanes: Sequence[str]) -> dict[str, LaneFacts]:
    """Raises DependencyDown."""
    known, suspended, held = await link.call(lambda: _ask(link, _lanes_known))
    names = dict.fromkeys((*DEFAULT_LANES, *lanes, *sorted(map(keys.lane_name, known)), DEAD))
    now = await link.now()
    answers = await link.call(lambda: _ask(link, _books, list(names), now))
    counts = {name: answers[i * _EACH : (i + 1) * _EACH] for i, name in enumerate(names)}
    serving = {name: sorted(row[-1]) for name, row in counts.items()}
    workers = sorted({worker for some in serving.values() for worker in some})
    places = {name: _places(int(row[0])) for name, row in counts.items()}
    rest = await link.call(lambda: _ask(link, _details, workers, places))
    live = {w: _is_live(row, now) for w, row in zip(workers, rest[: len(workers)], strict=True)}
    heads = iter(rest[len(workers) :])
    found: dict[str, LaneFacts] = {}
    for name, (count, *registries, _) in counts.items():
        ids = [next(heads) for _ in places[name]]
        found[name] = LaneFacts(
            name,
            count,
            *registries,
            workers=sum(live[w] for w in serving[name]),
            paused=bool(suspended) or name in held or "*" in held,
            line=_documents(ids),
        )
    return found


async def _ask(link: RedisLink, fill: Any, *args: Any) -> list[Any]:
    async with link.redis.pipeline(transaction=False) as pipe:
        fill(pipe, *args)
        return await pipe.execute()


def _lanes_known(pipe: Any) -> None:
    pipe.smembers(keys.QUEUES)
    pipe.exists(keys.SUSPENDED)
    pipe.smembers(keys.PAUSED)


_EACH = 7


def _books(pipe: Any, names: Sequence[str], now: float) -> None:
    for name in names:
        pipe.llen(keys.lane(name))
        pipe.zcount(keys.wip(name), int(now), "+inf")  # an expired entry is nobody's
        pipe.zcard(keys.failed(name))
        pipe.zcard(keys.scheduled(name))
        pipe.zcard(keys.deferred(name))
        pipe.zcard(keys.finished(name))
        pipe.smembers(keys.lane_workers(name))


def _places(length: int) -> list[int]:
    n = min(SAMPLES, length)
    return [i * length // n for i in range(n)]


def _details(pipe: Any, workers: Sequence[str], places: Mapping[str, Sequence[int]]) -> None:
    for worker in workers:
        pipe.hmget(worker, "last_heartbeat", keys.OURS, "death")
    for name, some in places.items():
        for place in some:
            pipe.lindex(keys.lane(name), place)


def _is_live(row: Sequence[str | None], now: float) -> bool:
    beat, ours, death = row
    if beat is None or death is not None:
        return False
    if ours is None:
        return True
    try:
        at = datetime.fromisoformat(beat).timestamp()
    except ValueError:
        return False
    return now - at <= FRESH_S


def _documents(job_ids: Sequence[str | None]) -> tuple[str, ...]:
    """The documents of the jobs; () when the lane moved so much that some are gone already."""
    if None in job_ids:
        return ()
    return tuple(str(i).rpartition("-")[0] for i in job_ids)
