"""Whether this Redis may lose jobs by itself: its eviction policy and its persistence.

One ``INFO``; it changes nothing and needs no rights of an administrator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unjam._redis import client_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

EVICTION_POLICY = "eviction_policy"
APPENDONLY_OFF = "appendonly_off"
DANGERS = (EVICTION_POLICY, APPENDONLY_OFF)
METRIC = "rag_redis_unsafe"
TIMEOUT_S = 0.5


def dangers(info: Mapping[str, Any]) -> frozenset[str]:
    """What is unsafe in the answer to ``INFO``.

    *eviction_policy*: any but ``noeviction``; jobs then vanish without an error once ``maxmemory``
    is reached. *appendonly_off*: jobs written since the last snapshot go with a restart; the
    ledger queues them again.
    """
    found: set[str] = set()
    if str(info.get("maxmemory_policy", "noeviction")) != "noeviction":
        found.add(EVICTION_POLICY)
    if not int(info.get("aof_enabled", 1)):
        found.add(APPENDONLY_OFF)
    return frozenset(found)


class SafetyMeter:
    """One per process that shows metrics. While Redis is away the last answer stands."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._last: frozenset[str] = frozenset()

    async def read(self) -> Mapping[tuple[str, str], float]:
        """(metric, reason) → 1 while it may lose jobs for that reason. Never raises for Redis."""
        if self._url:
            from redis.exceptions import RedisError

            client = client_of(
                self._url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
            )
            try:
                self._last = await _look(client)
            except (RedisError, OSError, TimeoutError):
                pass
            finally:
                await client.aclose()
        return {(METRIC, reason): float(reason in self._last) for reason in DANGERS}


async def _look(client: Redis) -> frozenset[str]:
    return dangers(await client.info())
