"""The limits of each key group in Redis, over all processes and hosts.

The limit belongs to the key group's project at the provider, so it has to be shared, and so has
what the endpoint says of it: a 429 that one process meets pauses the group in all of them, and
cuts the rate of all of them. While Redis is away each process goes on with its share: one part of
as many as were last seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

from unjam._redis import pool_of
from unjam.embedding import pace
from unjam.embedding.governor import QUERY_GRACE, LocalLimiter, Outcome
from unjam.embedding.pace import MINUTE_S, Leave, Rates, Why

if TYPE_CHECKING:
    from limits import RateLimitItem
    from redis.asyncio import ConnectionPool, Redis

log = logging.getLogger("unjam.embedding")

NAMESPACE = "rag:limit"
GROUP = f"{NAMESPACE}:group:"
"""Hash per key group: see ``pace.Pace``. Gone an hour after it was last used."""

MEMBERS = f"{NAMESPACE}:members"
"""Sorted set: every process that asks for leave, by the time at which it last did. Times are those
of the server's clock."""

BARRED = f"{NAMESPACE}:barred"
"""Hash: id (digest) of a key that the endpoint refuses → ``<until, Unix seconds> <reason>``."""

OUTCOMES = f"{NAMESPACE}:outcomes"
"""Hash: outcome → requests that ended so, of all processes that ever were."""

MEMBER_S = 10.0
MEMBER_GONE_S = 3 * MEMBER_S
TIMEOUT_S = 0.5
AWAY_S = 2.0
"""Redis that failed is asked again after this long, so that no request waits for it twice."""

ASK_AGAIN_S = 0.25
FLUSH_S = 1.0
"""Counted outcomes are written at most this much later; a killed process loses as many."""

SPENT = f"{NAMESPACE}:spent"
"""Hash: outcome → milliseconds that such requests took, likewise."""

_CONSTANTS = json.dumps(
    {
        "burst": pace.BURST,
        "learnt_burst": pace.LEARNT_BURST,
        "back_off": pace.BACK_OFF,
        "growth": pace.GROWTH,
        "measure": pace.MEASURE,
        "cuts_in_a_row": pace.CUTS_IN_A_ROW,
        "first_pause_s": pace.FIRST_PAUSE_S,
        "again_s": pace.AGAIN_S,
        "longest_pause_s": pace.LONGEST_PAUSE_S,
    }
)


class SharedLimiter:
    """Limiter in Redis: the pace of ``pace.lua``, within ``limits``' sliding window."""

    def __init__(self, url: str, *, minute_s: int = int(MINUTE_S)) -> None:
        """*minute_s*: what a minute is, in whole seconds; tests have shorter ones."""
        self._url = url
        self._id = uuid.uuid4().hex
        self._minute_s = minute_s
        self._alone = LocalLimiter(minute_s=minute_s)
        self._processes = 1
        self._counted_at = float("-inf")
        self._away_until = 0.0
        self._pool: ConnectionPool | None = None
        self._window: Any = None
        self._script: Any = None
        self._told: dict[str, Rates] = {}
        self._outcomes: Counter[str] = Counter()
        self._spent_ms: Counter[str] = Counter()
        self._flush: asyncio.Task[None] | None = None

    @property
    def processes(self) -> int:
        """How many processes shared the limit when they were last counted."""
        return self._processes

    # -- Limiter ----------------------------------------------------------------------------
    async def take(self, group: str, tokens: int, rates: Rates, *, ahead: bool = False) -> Leave:
        if self._asked():
            try:
                return await self._take(group, tokens, rates, ahead)
            except _errors() as error:
                self._away(error)
        return await self._alone.take(group, tokens, self._share(rates), ahead=ahead)

    async def refused(self, group: str, leave: Leave, told_s: float | None, rates: Rates) -> float:
        # Also kept here, for the time that Redis may be away.
        alone_s = await self._alone.refused(group, leave, told_s, self._share(rates))
        if self._asked():
            try:
                told = "" if told_s is None else told_s
                answer = await self._run("refused", group, rates, leave.at, told)
                return float(answer[0])
            except _errors() as error:
                self._away(error)
        return alone_s

    async def calm(self, group: str, told: Rates, refusals: int) -> None:
        await self._alone.calm(group, self._share(told), refusals)
        news = told != Rates(0, 0) and told != self._told.get(group)
        if self._asked() and (news or refusals):
            with self._excused():
                await self._run("calm", group, Rates(0, 0), told.requests, told.tokens)
                self._told[group] = told

    async def rest(self, group: str, pause_s: float) -> None:
        await self._alone.rest(group, pause_s)
        if self._asked():
            with self._excused():
                await self._run("rest", group, Rates(0, 0), pause_s)

    async def bar(self, key_id: str, code: str, seconds: float) -> None:
        await self._alone.bar(key_id, code, seconds)
        if self._asked():
            with self._excused():
                until = await _clock(self._client()) + seconds
                pipe = self._client().pipeline()
                pipe.hset(BARRED, key_id, f"{until:.3f} {code}")
                pipe.expire(BARRED, int(seconds) + 1)
                await pipe.execute()

    async def barred(self) -> Mapping[str, tuple[str, float]]:
        if self._asked():
            with self._excused():
                return await read_barred(self._client())
        return await self._alone.barred()

    def count(self, outcome: Outcome, took_s: float = 0.0) -> None:
        self._outcomes[outcome] += 1
        self._spent_ms[outcome] += round(took_s * 1000)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().create_task(self._flush_soon())

    async def close(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            await asyncio.gather(self._flush, return_exceptions=True)
        await self._write_outcomes()
        if self._pool is not None:
            with contextlib.suppress(Exception):
                await self._client().zrem(MEMBERS, self._id)
            with contextlib.suppress(Exception):
                await self._pool.aclose()
        await self._alone.close()

    # -- Redis ------------------------------------------------------------------------------
    async def _take(self, group: str, tokens: int, rates: Rates, ahead: bool) -> Leave:
        await self._count_processes()
        grace_s = QUERY_GRACE * self._minute_s if ahead else 0.0
        answer = await self._run("take", group, rates, tokens, grace_s)
        why = cast(Why, answer[2].decode())
        leave = Leave(
            wait_s=float(answer[0]),
            at=float(answer[1]),
            why=why,
            refusals=round(float(answer[3])),
            rate=float(answer[4]),
        )
        if leave.wait_s > 0:
            return leave
        told = Rates(round(float(answer[5])), round(float(answer[6])))
        if told != self._told.get(group):  # somebody told otherwise, or Redis lost it: tell again
            self._told.pop(group, None)
        if not await self._within_window(group, tokens, rates.within(told)):
            await self._run("give_back", group, rates, tokens)
            return Leave(ASK_AGAIN_S * self._minute_s / MINUTE_S, leave.at, "pace", leave.refusals)
        return leave

    async def _within_window(self, group: str, tokens: int, rates: Rates) -> bool:
        """Whether the last minute has room for it; counted then."""
        limits = (("requests", 1, rates.requests), ("tokens", tokens, rates.tokens))
        wanted = [
            # What exceeds the whole limit takes all of it, or it could never go.
            (_window_of(limit, self._minute_s), name, min(cost, limit))
            for name, cost, limit in limits
            if limit > 0
        ]
        if len(wanted) > 1:
            # Look before taking: a refusal by one limit must not use up the other.
            for item, name, cost in wanted:
                if not await self._window.test(item, group, name, cost=cost):
                    return False
        for item, name, cost in wanted:
            if not await self._window.hit(item, group, name, cost=cost):
                return False
        return True

    async def _run(self, operation: str, group: str, rates: Rates, *more: object) -> list[bytes]:
        self._connect()
        arguments = [operation, "", self._minute_s, rates.requests, rates.tokens, _CONSTANTS]
        return await self._script([GROUP + group], [*arguments, *more])

    async def _count_processes(self) -> None:
        if time.monotonic() - self._counted_at < MEMBER_S:
            return
        now = await _clock(self._client())
        pipe = self._client().pipeline()
        pipe.zadd(MEMBERS, {self._id: now})
        pipe.zremrangebyscore(MEMBERS, "-inf", now - MEMBER_GONE_S)
        pipe.zcard(MEMBERS)
        pipe.expire(MEMBERS, int(MEMBER_GONE_S))
        answers: list[Any] = await pipe.execute()
        self._processes = max(1, int(answers[2]))
        self._counted_at = time.monotonic()

    async def _flush_soon(self) -> None:
        await asyncio.sleep(FLUSH_S)
        self._flush = None
        await self._write_outcomes()

    async def _write_outcomes(self) -> None:
        if not self._outcomes or not self._asked():
            return
        counts, self._outcomes = self._outcomes, Counter()
        spent_ms, self._spent_ms = self._spent_ms, Counter()
        try:
            pipe = self._client().pipeline()
            for outcome, count in counts.items():
                pipe.hincrby(OUTCOMES, outcome, count)
                pipe.hincrby(SPENT, outcome, spent_ms[outcome])
            await pipe.execute()
        except _errors() as error:
            self._outcomes.update(counts)  # written with the next ones
            self._spent_ms.update(spent_ms)
            self._away(error)

    def _connect(self) -> None:
        if self._pool is not None:
            return
        from limits.aio.storage import RedisStorage
        from limits.aio.strategies import SlidingWindowCounterRateLimiter

        self._pool = pool_of(self._url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        pool: Any = self._pool  # annotated as a plain option, passed on to redis-py as it is
        # The pool leads there; of the URL only the kind of server is read.
        storage = RedisStorage("async+redis://", connection_pool=pool, implementation="redispy")
        self._window = SlidingWindowCounterRateLimiter(storage)
        self._script = self._client().register_script(_lua())

    def _client(self) -> Redis:
        from redis.asyncio import Redis

        self._connect()
        return Redis(connection_pool=self._pool)

    # -- without Redis ----------------------------------------------------------------------
    def _asked(self) -> bool:
        return time.monotonic() >= self._away_until

    def _away(self, error: Exception) -> None:
        log.warning(
            "Redis does not count embedding requests (%s): this process keeps to 1/%d of the limit",
            error,
            self._processes,
        )
        self._away_until = time.monotonic() + AWAY_S

    @contextlib.contextmanager
    def _excused(self):
        try:
            yield
        except _errors() as error:
            self._away(error)

    def _share(self, rates: Rates) -> Rates:
        def part(limit: int) -> int:
            return max(1, limit // self._processes) if limit > 0 else 0

        return Rates(part(rates.requests), part(rates.tokens))


async def read_barred(client: Redis) -> dict[str, tuple[str, float]]:
    """Refused keys: id → (waiting reason, seconds left). Raises redis.RedisError."""
    pending: Any = client.hgetall(BARRED)
    rows: dict[bytes, bytes] = await pending
    now = await _clock(client) if rows else 0.0
    found: dict[str, tuple[str, float]] = {}
    for key_id, value in rows.items():
        until, _, code = value.decode().partition(" ")
        if float(until) > now:
            found[key_id.decode()] = (code, float(until) - now)
    return found


async def _clock(client: Redis) -> float:
    """Unix seconds by the server's clock: those of the hosts may be minutes apart."""
    pending: Any = client.time()
    seconds, micros = await pending
    return float(seconds) + float(micros) / 1e6


async def read_outcomes(client: Redis) -> dict[str, int]:
    """Requests by outcome, of all processes. Raises redis.RedisError."""
    pending: Any = client.hgetall(OUTCOMES)
    rows: dict[bytes, bytes] = await pending
    return {name.decode(): int(value) for name, value in rows.items()}


@lru_cache(maxsize=1)
def _lua() -> str:
    return resources.files("unjam.embedding").joinpath("pace.lua").read_text("utf-8")


@lru_cache(maxsize=1)
def _errors() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError

    return (RedisError, OSError, TimeoutError)


@lru_cache(maxsize=64)
def _window_of(limit: int, minute_s: int) -> RateLimitItem:
    from limits import RateLimitItemPerSecond

    class Window(RateLimitItemPerSecond):
        def key_for(self, *identifiers: bytes | str | float) -> str:
            # Without the amount: a changed knob goes on with what was counted already.
            return "/".join([self.namespace, *map(str, identifiers), str(self.multiples)])

    return Window(limit, minute_s, namespace=NAMESPACE)
