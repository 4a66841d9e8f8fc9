"""Requests and tokens per minute counted in Redis, over all processes and hosts.

The limit belongs to the key group's project at the provider, so it has to be shared. While Redis
is away each process goes on with its share of the limit: one part of as many as were last seen.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

from unjam.embedding.governor import LocalLimiter, Rates

if TYPE_CHECKING:
    from limits import RateLimitItem
    from redis.asyncio import ConnectionPool, Redis

log = logging.getLogger(__name__)

NAMESPACE = "rag:limit"
MEMBERS = f"{NAMESPACE}:members"
"""Sorted set: every process that asks for leave, by the time at which it last did."""

MEMBER_S = 10.0
MEMBER_GONE_S = 3 * MEMBER_S
TIMEOUT_S = 0.5
AWAY_S = 2.0
"""Redis that failed is asked again after this long, so that no request waits for it twice."""

ASK_AGAIN_S = 0.25


class SharedLimiter:
    """Limiter over a sliding window in Redis (``limits``' weighted two-bucket approximation)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._id = uuid.uuid4().hex
        self._alone = LocalLimiter()
        self._processes = 1
        self._counted_at = float("-inf")
        self._away_until = 0.0
        self._pool: ConnectionPool | None = None
        self._window: Any = None

    async def take(self, group: str, tokens: int, rates: Rates) -> float:
        if rates.requests <= 0 and rates.tokens <= 0:
            return 0.0
        if time.monotonic() >= self._away_until:
            from redis.exceptions import RedisError

            try:
                return await self._take_shared(group, tokens, rates)
            except (RedisError, OSError, TimeoutError) as error:
                log.warning(
                    "Redis does not count embedding requests (%s): this process keeps to 1/%d "
                    "of the limit",
                    error,
                    self._processes,
                )
                self._away_until = time.monotonic() + AWAY_S
        return await self._alone.take(group, tokens, self._share(rates))

    async def close(self) -> None:
        if self._pool is not None:
            with contextlib.suppress(Exception):
                await self._client().zrem(MEMBERS, self._id)
            with contextlib.suppress(Exception):
                await self._pool.aclose()
        await self._alone.close()

    @property
    def processes(self) -> int:
        """How many processes shared the limit when they were last counted."""
        return self._processes

    def _share(self, rates: Rates) -> Rates:
        def part(limit: int) -> int:
            return max(1, limit // self._processes) if limit > 0 else 0

        return Rates(part(rates.requests), part(rates.tokens))

    async def _take_shared(self, group: str, tokens: int, rates: Rates) -> float:
        self._connect()
        await self._count_processes()
        wanted = self._items(tokens, rates)
        if len(wanted) > 1:
            # Look before taking: a refusal by one limit must not use up the other.
            for item, name, cost in wanted:
                if not await self._window.test(item, group, name, cost=cost):
                    return ASK_AGAIN_S
        for item, name, cost in wanted:
            if not await self._window.hit(item, group, name, cost=cost):
                return ASK_AGAIN_S
        return 0.0

    def _items(self, tokens: int, rates: Rates) -> list[tuple[RateLimitItem, str, int]]:
        from limits import RateLimitItemPerMinute

        limits = (("requests", 1, rates.requests), ("tokens", tokens, rates.tokens))
        return [
            # What exceeds the whole limit takes all of it, or it could never go.
            (RateLimitItemPerMinute(limit, namespace=NAMESPACE), name, min(cost, limit))
            for name, cost, limit in limits
            if limit > 0
        ]

    def _connect(self) -> None:
        if self._pool is not None:
            return
        from limits.aio.storage import RedisStorage
        from limits.aio.strategies import SlidingWindowCounterRateLimiter
        from redis.asyncio import ConnectionPool

        self._pool = ConnectionPool.from_url(
            self._url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
        pool: Any = self._pool  # annotated as a plain option, passed on to redis-py as it is
        storage = RedisStorage(f"async+{self._url}", connection_pool=pool, implementation="redispy")
        self._window = SlidingWindowCounterRateLimiter(storage)

    def _client(self) -> Redis:
        from redis.asyncio import Redis

        return Redis(connection_pool=self._pool)

    async def _count_processes(self) -> None:
        if time.monotonic() - self._counted_at < MEMBER_S:
            return
        now = time.time()
        pipe = self._client().pipeline()
        pipe.zadd(MEMBERS, {self._id: now})
        pipe.zremrangebyscore(MEMBERS, "-inf", now - MEMBER_GONE_S)
        pipe.zcard(MEMBERS)
        pipe.expire(MEMBERS, int(MEMBER_GONE_S))
        answers: list[Any] = await pipe.execute()
        self._processes = max(1, int(answers[2]))
        self._counted_at = time.monotonic()
