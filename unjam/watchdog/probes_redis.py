"""What Redis says of itself, RQ's books, and what all processes noted there of the endpoint."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
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

QUICK_S = 0.1
"""A PING under this, and no answer to the rest: it is not the line that is slow."""


class RedisProbe:
    """One pool of connections for all looks; ``close`` it."""

    def __init__(self, url: str, shown_url: str) -> None:
        self._link = RedisLink(url, "unjam-watchdog")
        self._shown = shown_url
        self._beat: asyncio.Task[None] | None = None
        self._known: tuple[RedisFacts, Mapping[str, Any]] | None = None

    async def look(self, patience_s: float, whole_s: float) -> tuple[RedisFacts, Mapping[str, Any]]:
        """Facts, and the raw notes of the embedding (outcomes, barred). Raises nothing for Redis:
        ``answers`` is False then.

        A PING has *patience_s* seconds, all of it *whole_s*. Who answers a PING in time and not
        the six round trips of the rest is slow, not away: what it said last stands.
        """
        began = time.monotonic()
        try:
            if not await self._answers(patience_s):
                return self._silent(patience_s), {}
            async with asyncio.timeout(patience_s):
                pinged = time.monotonic()
                await self._link.call(lambda: self._link.redis.ping())
                ping_s = time.monotonic() - pinged
        except TimeoutError:
            return self._silent(patience_s), {}
        except DependencyDown as error:
            return RedisFacts(False, error.detail, self._shown), {}
        try:
            async with asyncio.timeout(max(0.1, whole_s - (time.monotonic() - began))):
                facts, noted = await self._rest()
        except TimeoutError:
            if ping_s < QUICK_S:
                return self._silent(whole_s), {}
            facts, noted = self._known or (RedisFacts(True), {})
        except DependencyDown as error:
            return RedisFacts(False, error.detail, self._shown), {}
        self._known = facts, noted
        return replace(facts, url=self._shown, ping_s=ping_s), noted

    async def _answers(self, patience_s: float) -> bool:
        """The first PING connects where it must, which takes several round trips: one that is
        under way goes on, and the next look finds it done."""
        if self._beat is None:
            self._beat = asyncio.create_task(self._connect(), name="ping")
        await asyncio.wait({self._beat}, timeout=patience_s)
        if not self._beat.done():
            return False
        beat, self._beat = self._beat, None
        await beat
        return True

    async def _connect(self) -> None:
        await self._link.call(lambda: self._link.redis.ping())

    def _silent(self, seconds: float) -> RedisFacts:
        return RedisFacts(False, f"no answer within {seconds:g} s", self._shown)

    async def _rest(self) -> tuple[RedisFacts, Mapping[str, Any]]:
        info, *notes = await self._link.call(self._ask)
        lanes = await read_facts(self._link, DEFAULT_LANES)
        noted: dict[str, Any] = {"outcomes": notes[3], "barred": notes[4], "spent": notes[5]}
        noted["now"] = _seconds(notes[6])
        return replace(_facts(info, notes), lanes=lanes), noted

    async def _ask(self) -> list[Any]:
        async with self._link.redis.pipeline(transaction=False) as pipe:
            pipe.info()
            pipe.get(keys.SUSPENDED)
            pipe.hget(keys.HOUSE, "ledger_id")
            pipe.get(keys.EPOCH)
            pipe.hgetall(OUTCOMES)
            pipe.hgetall(BARRED)
            pipe.hget(SPENT, "ok")
            pipe.time()
            answers = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        return answers

    async def close(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
            await asyncio.gather(self._beat, return_exceptions=True)
        await self._link.close()


def _seconds(told: Sequence[Any]) -> float:
    """Of what TIME answers: the server's clock, by which keys are barred."""
    return int(told[0]) + int(told[1]) / 1e6


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
        # A pause of all lanes through unjam has the same key; the ledger tells of that one.
        suspended=suspended is not None and suspended != keys.OUR_SUSPENSION,
        house=str(house or ""),
        epoch=int(epoch or 0),
        version=str(info.get("valkey_version") or info.get("redis_version", "")),
    )


def embedding_facts(settings: Settings, notes: Mapping[str, Any], shown_url: str) -> EmbeddingFacts:
    """What the processes noted in Redis; no request is sent. Without notes: nothing is known of
    the outcomes."""
    if settings.uses_local_model:
        return EmbeddingFacts(local=True)
    now = float(notes.get("now", 0.0))
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
