"""Repair: puts an unsafe Redis back to what a queue needs, where that is ours to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis.exceptions import RedisError

from unjam._redis import client_of
from unjam.core.errors import DependencyDown, SetupError

TIMEOUT_S = 5.0


class NotOurs(SetupError):
    """Others use this Redis, too, and nobody allowed the change."""


@dataclass(slots=True)
class RedisRepair:
    """*url* may configure the server. *forced*: also where other databases hold keys (it is our
    embedded one, or RAG_REDIS_REPAIR=1)."""

    url: str
    forced: bool = False

    async def noeviction(self) -> str:
        """Jobs are evicted no more; the policy that was there. Raises NotOurs, DependencyDown."""
        return await self._set("maxmemory-policy", "noeviction")

    async def appendonly(self) -> str:
        """Every write is logged; the value that was there. Raises NotOurs, DependencyDown."""
        return await self._set("appendonly", "yes")

    async def _set(self, name: str, value: str) -> str:
        client: Any = client_of(
            self.url, decode_responses=True, socket_timeout=TIMEOUT_S, socket_connect_timeout=2.0
        )
        try:
            before = str((await client.config_get(name)).get(name, ""))
            if before == value:
                return before
            if not self.forced:
                self._check_alone(client, await client.info("keyspace"))
            await client.config_set(name, value)
            return before
        except (RedisError, OSError, TimeoutError) as error:
            detail = f"Redis refuses the change: {type(error).__name__}: {error}"
            raise DependencyDown(detail, code="queue_down") from None
        finally:
            await client.aclose()

    @staticmethod
    def _check_alone(client: Any, keyspace: Mapping[str, Any]) -> None:
        own = int(cast("dict[str, Any]", client.connection_pool.connection_kwargs).get("db") or 0)
        others = sorted(name for name in keyspace if name.startswith("db") and name != f"db{own}")
        if others:
            raise NotOurs(
                f"other databases hold keys: {', '.join(others)}",
                hint="Set RAG_REDIS_REPAIR=1 if this Redis may be configured all the same.",
            )
