"""What Redis says of itself, RQ's books, and what all processes noted there of the endpoint."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from redis.exceptions import RedisError

from unjam.core.errors import DependencyDown
from unjam.embedding.keys import KeyPool
from unjam.embedding.shared_limiter import BARRED, OUTCOMES, SPENT
from unjam.queue import keys
from unjam.queue.facts import read_facts
from unjam.queue.lanes import DEFAULT_LANES
from unjam.queue.link import RedisLink
from unjam.settings import Settings
from unjam.watchdog.facts import EmbeddingFacts, RedisFacts


class RedisProbe:
    """One pool of connections for all looks; ``close`` it."""

    def __init__(self, url: str, shown_url: str) -> None:
        self._link = RedisLink(url, "unjam-watchdog")
        self._shown = shown_url

    async def look(self) -> tuple[RedisFacts, Mapping[str, Any]]:
        """Facts, and the raw notes of the embedding (outcomes, barred). Raises nothing for Redis:
        ``answers`` is False then."""
        try:
            await self._link.call(lambda: self._link.redis.ping())  # connects where it must
            began = time.monotonic()
            await self._link.call(lambda: self._link.redis.ping())
            ping_s = time.monotonic() - began
            info, *notes = await self._link.call(self._ask)
            facts = replace(_facts(info, notes), url=self._shown, ping_s=ping_s)
            lanes = await read_facts(self._link, DEFAULT_LANES)
        except DependencyDown as error:
            return RedisFacts(False, error.detail, self._shown), {}
        noted = {"outcomes": notes[3], "barred": notes[4], "spent": notes[5]}
        return replace(facts, lanes=lanes), noted

    async def _ask(self) -> list[Any]:
        async with self._link.redis.pipeline(transaction=False) as pipe:
            pipe.info()
            pipe.exists(keys.SUSPENDED)
            pipe.hget(keys.HOUSE, "ledger_id")
            pipe.get(keys.EPOCH)
            pipe.hgetall(OUTCOMES)
            pipe.hgetall(BARRED)
            pipe.hget(SPENT, "ok")
            answers = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        return answers

    async def close(self) -> None:
        await self._link.close()


def _facts(info: Mapping[str, Any], notes: list[Any]) -> RedisFacts:
    suspended, house, epoch = notes[:3]
    return RedisFacts(
        answers=True,
        run_id=str(info.get("run_id", "")),
        uptime_s=float(info.get("uptime_in_seconds", 0)),
        used_bytes=int(info.get("used_memory", 0)),
        max_bytes=int(info.get("maxmemory", 0)),
        policy=str(info.get("maxmemory_policy", "")),
        aof=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        aof_ok=info.get("aof_last_write_status", "ok") == "ok"
        and info.get("rdb_last_bgsave_status", "ok") == "ok",
        evicted=int(info.get("evicted_keys", 0)),
        read_only=info.get("role", "master") != "master",
        loading=bool(info.get("loading", 0)),
        clients=int(info.get("connected_clients", 0)),
        max_clients=int(info.get("maxclients", 0)),
        rejected=int(info.get("rejected_connections", 0)),
        connections=int(info.get("total_connections_received", 0)),
        suspended=bool(suspended),
        house=str(house or ""),
        epoch=int(epoch or 0),
        version=str(info.get("valkey_version") or info.get("redis_version", "")),
    )


def embedding_facts(settings: Settings, notes: Mapping[str, Any], shown_url: str) -> EmbeddingFacts:
    """What the processes noted in Redis; no request is sent. Without notes: nothing is known of
    the outcomes."""
    if settings.uses_local_model:
        return EmbeddingFacts(local=True)
    now = time.time()
    barred: dict[str, tuple[str, float]] = {}
    for key_id, noted in notes.get("barred", {}).items():
        until, _, code = str(noted).partition(" ")
        if float(until) > now:
            barred[key_id] = (code, float(until) - now)
    pool = KeyPool(settings.api_keys)
    pool.learn(barred)
    return EmbeddingFacts(
        local=False,
        endpoint=shown_url,
        keys=len(pool),
        keys_ready=pool.ready(),
        barred=dict(Counter(code for code, _ in barred.values())),
        outcomes={str(k): int(v) for k, v in notes.get("outcomes", {}).items()},
        answered_ms=int(notes.get("spent") or 0),
    )
