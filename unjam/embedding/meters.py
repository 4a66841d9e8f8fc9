"""What all processes together know of the endpoint, for ``/metrics``: read from Redis.

Counts of requests are kept there by the limiter and survive the processes that made them. They
are not in the ledger: a request is no document, and thousands a minute are not worth an fsync.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from unjam._redis import client_of
from unjam.embedding.keys import KeyPool
from unjam.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

REQUESTS = "rag_embedding_requests_total"
KEYS_READY = "rag_embedding_keys_ready"
KEYS = "rag_embedding_keys"
TIMEOUT_S = 0.5


class Meters:
    """One per process that shows metrics. While Redis is away the last known counts are shown:
    a counter that falls to zero and comes back would look like a burst of requests."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._outcomes: dict[str, int] = {}
        self._keys = KeyPool(settings.api_keys)

    async def read(self) -> Mapping[tuple[str, str], float]:
        """(metric, label value; "" for none) → value. Never raises for Redis."""
        if self._settings.redis_url:
            from redis.exceptions import RedisError

            client = client_of(
                self._settings.redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
            )
            try:
                await self._look(client)
            except (RedisError, OSError, TimeoutError):
                pass
            finally:
                await client.aclose()
        values = {(REQUESTS, outcome): float(n) for outcome, n in self._outcomes.items()}
        keys = {(KEYS_READY, ""): float(self._keys.ready()), (KEYS, ""): float(len(self._keys))}
        return {**values, **keys}

    async def _look(self, client: Redis) -> None:
        from unjam.embedding.shared_limiter import read_barred, read_outcomes

        self._outcomes.update(await read_outcomes(client))
        self._keys.learn(await read_barred(client))
