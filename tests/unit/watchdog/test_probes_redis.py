"""What the watchdog reads out of a real Valkey."""

from __future__ import annotations

import redis.asyncio as redis

from unjam.queue.rq_queue import RqQueue
from unjam.watchdog.facts import LOOK_S
from unjam.watchdog.probes_redis import RedisProbe


async def test_a_pause_of_all_lanes_is_no_rq_suspend(redis_url: str) -> None:
    """Both hold stock workers by the same key; only one of them is ended by `rq resume`."""
    probe, queue, link = RedisProbe(redis_url, ""), RqQueue(redis_url), redis.from_url(redis_url)

    async def suspended() -> bool:
        facts, _ = await probe.look(LOOK_S, 10.0)
        assert facts.answers, facts.detail
        return facts.suspended

    try:
        assert not await suspended()
        await queue.show_pauses(["*"])
        assert await link.exists("rq:suspended")
        assert not await suspended()
        await queue.show_pauses([], resume=True)
        await link.set("rq:suspended", 1)
        assert await suspended()
    finally:
        await link.aclose()
        await queue.close()
        await probe.close()
