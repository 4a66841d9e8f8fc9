from __future__ import annotations

import asyncio
import time

import redis

from unjam.embedding.governor import Rates
from unjam.embedding.shared_limiter import ASK_AGAIN_S, MEMBERS, SharedLimiter


async def test_two_processes_share_one_limit(redis_url: str):
    limiters = [SharedLimiter(redis_url) for _ in range(2)]
    rates = Rates(requests=10, tokens=0)
    waits = [await limiters[n % 2].take("g", 1, rates) for n in range(14)]
    assert waits == [0.0] * 10 + [ASK_AGAIN_S] * 4
    assert await limiters[0].take("another group", 1, rates) == 0.0
    for limiter in limiters:
        await limiter.close()


async def test_tokens_that_are_refused_cost_no_request(redis_url: str):
    limiter = SharedLimiter(redis_url)
    rates = Rates(requests=3, tokens=100)
    assert await limiter.take("g", 90, rates) == 0.0
    for _ in range(5):
        assert await limiter.take("g", 90, rates) == ASK_AGAIN_S
    assert await limiter.take("g", 5, rates) == 0.0
    assert await limiter.take("g", 5, rates) == 0.0
    assert await limiter.take("g", 5, rates) == ASK_AGAIN_S
    await limiter.close()


async def test_a_text_above_the_whole_limit_still_goes(redis_url: str):
    limiter = SharedLimiter(redis_url)
    assert await limiter.take("g", 10_000, Rates(requests=0, tokens=100)) == 0.0
    assert await limiter.take("g", 1, Rates(requests=0, tokens=100)) == ASK_AGAIN_S
    await limiter.close()


async def test_without_redis_each_keeps_to_its_share(redis_url: str):
    limiters = [SharedLimiter(redis_url) for _ in range(4)]
    rates = Rates(requests=960, tokens=0)
    for limiter in limiters:
        await limiter.take("g", 1, rates)
    last = limiters[-1]
    assert last.processes == 4
    with redis.Redis.from_url(redis_url) as client:
        assert client.zcard(MEMBERS) == 4
    last._url = "redis://127.0.0.1:9/5"
    assert last._pool is not None
    await last._pool.aclose()
    last._pool = None
    sent = 0
    while sent < 1000 and await last.take("g", 1, rates) == 0.0:
        sent += 1
    assert 0 < sent <= 960 / 4 / 4 + 1  # a quarter of the limit, of that a burst of 15 s
    began = time.monotonic()
    await asyncio.gather(*[last.take("g", 1, rates) for _ in range(100)])
    assert time.monotonic() - began < 0.5  # an absent Redis is not asked for each request
    for limiter in limiters:
        await limiter.close()


async def test_no_limit_no_question():
    limiter = SharedLimiter("redis://127.0.0.1:9/5")
    assert await limiter.take("g", 10**9, Rates(0, 0)) == 0.0
    await limiter.close()
