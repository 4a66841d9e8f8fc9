from __future__ import annotations

import asyncio
import time

import redis

from unjam.embedding.pace import Leave, Rates
from unjam.embedding.shared_limiter import (
    MEMBERS,
    SPENT,
    SharedLimiter,
    read_barred,
    read_outcomes,
)

MANY = Rates(requests=100_000, tokens=0)


async def until_full(limiter: SharedLimiter, rates: Rates, tokens: int = 1) -> int:
    """Leaves that are granted before the first refusal."""
    granted = 0
    while granted < 5000 and not (await limiter.take("g", tokens, rates)).wait_s:
        granted += 1
    return granted


async def test_two_processes_share_one_limit(redis_url: str):
    limiters = [SharedLimiter(redis_url) for _ in range(2)]
    rates = Rates(requests=10, tokens=0)
    leaves = [await limiters[n % 2].take("g", 1, rates) for n in range(14)]
    # A quarter of the minute's leaves may go at once, the others are spread.
    assert [leave.why for leave in leaves] == [""] * 2 + ["pace"] * 12
    assert 2 < leaves[-1].wait_s <= 6
    assert (await limiters[0].take("another group", 1, rates)).wait_s == 0.0
    for limiter in limiters:
        await limiter.close()


async def test_tokens_that_are_refused_cost_no_request(redis_url: str):
    limiter = SharedLimiter(redis_url)
    rates = Rates(requests=16, tokens=1000)
    assert (await limiter.take("g", 250, rates)).wait_s == 0.0
    for _ in range(20):
        assert (await limiter.take("g", 250, rates)).why == "pace"
    assert await until_full(limiter, Rates(requests=16, tokens=0)) == 3
    await limiter.close()


async def test_a_text_above_the_whole_limit_still_goes(redis_url: str):
    limiter = SharedLimiter(redis_url)
    assert (await limiter.take("g", 10_000, Rates(requests=0, tokens=100))).wait_s == 0.0
    assert (await limiter.take("g", 1, Rates(requests=0, tokens=100))).wait_s > 60
    await limiter.close()


async def test_a_changed_knob_goes_on_with_what_was_counted(redis_url: str):
    limiter = SharedLimiter(redis_url)
    for _ in range(15):
        await limiter.take("g", 1, Rates(requests=60, tokens=0))
    assert await until_full(limiter, Rates(requests=80, tokens=0)) < 8
    await limiter.close()


async def test_the_window_bounds_a_minute_whatever_the_credit(redis_url: str):
    """A burst and what is spread after it: never more than the limit in the first minute."""
    limiter = SharedLimiter(redis_url, minute_s=2)
    rates = Rates(requests=100, tokens=0)
    began, granted = time.monotonic(), 0
    while time.monotonic() - began < 1.9:
        leave = await limiter.take("g", 1, rates)
        granted += not leave.wait_s
        await asyncio.sleep(min(leave.wait_s, 0.01))
    assert 50 <= granted <= 100
    await limiter.close()


async def test_a_pause_that_one_process_meets_holds_all(redis_url: str):
    one, other = SharedLimiter(redis_url), SharedLimiter(redis_url)
    leave = await one.take("g", 1, MANY)
    assert 29 < await one.refused("g", leave, 30.0, MANY) <= 30
    seen = await other.take("g", 1, MANY)
    assert (seen.why, seen.refusals) == ("pause", 1)
    assert 29 < seen.wait_s <= 30
    assert (await other.take("another group", 1, MANY)).wait_s == 0.0
    await one.close()
    await other.close()


async def test_refusals_in_a_row_pause_longer_until_one_goes_through(redis_url: str):
    limiter = SharedLimiter(redis_url)
    pauses: list[float] = []
    at = 0.0
    for _ in range(7):  # each was sent after the last refusal
        at = time.time() + 1
        pauses.append(await limiter.refused("g", Leave(0.0, at), 0.0, MANY))
        await asyncio.sleep(0)
        with redis.Redis.from_url(redis_url) as client:
            client.hset("rag:limit:group:g", mapping={"paused_until": 0, "cut_at": 0})
    assert [round(pause, 1) for pause in pauses] == [0.0, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0]
    await limiter.calm("g", Rates(0, 0), 7)
    assert (await limiter.take("g", 1, MANY)).refusals == 0
    await limiter.close()


async def test_limits_that_the_endpoint_tells_hold_everywhere(redis_url: str):
    one, other = SharedLimiter(redis_url), SharedLimiter(redis_url)
    await one.calm("g", Rates(requests=40, tokens=0), 0)
    assert await until_full(other, MANY) == 10
    await one.calm("g", Rates(requests=80, tokens=0), 0)  # raised by the provider
    assert 0 < (await other.take("g", 1, MANY)).wait_s <= 60 / 80
    await one.close()
    await other.close()


async def test_what_redis_lost_is_told_again(redis_url: str):
    limiter = SharedLimiter(redis_url)
    for _ in range(2):
        await limiter.calm("g", Rates(requests=40, tokens=0), 0)
        assert await until_full(limiter, MANY) == 10
        with redis.Redis.from_url(redis_url) as client:
            client.delete("rag:limit:group:g", *client.keys("LIMITS:*"))
        assert not (await limiter.take("g", 1, MANY)).wait_s
    await limiter.close()


async def test_a_refused_key_is_told_by_its_digest(redis_url: str):
    one, other = SharedLimiter(redis_url), SharedLimiter(redis_url)
    await one.bar("digest", "embedding_unauthorised", 60.0)
    await one.bar("gone", "embedding_quota", 0.0)
    barred = await other.barred()
    assert list(barred) == ["digest"]
    assert barred["digest"][0] == "embedding_unauthorised"
    assert 58 < barred["digest"][1] <= 60
    assert (await read_barred(other._client())).keys() == barred.keys()
    await one.close()
    await other.close()


async def test_outcomes_survive_their_process(redis_url: str):
    for _ in range(2):
        limiter = SharedLimiter(redis_url)
        for outcome in ("ok", "ok", "throttled"):
            limiter.count(outcome, 0.25 if outcome == "ok" else 0.0)
        await limiter.close()
    reader = SharedLimiter(redis_url)
    assert await read_outcomes(reader._client()) == {"ok": 4, "throttled": 2}
    with redis.Redis.from_url(redis_url) as client:
        assert client.hget(SPENT, "ok") == b"1000"
    await reader.close()


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
    sent = await until_full(last, rates)
    assert 0 < sent <= 960 / 4 / 4 + 1  # a quarter of the limit, of that a burst of 15 s
    began = time.monotonic()
    await asyncio.gather(*[last.take("g", 1, rates) for _ in range(100)])
    assert time.monotonic() - began < 0.5  # an absent Redis is not asked for each request
    leave = await last.take("other", 1, rates)
    assert await last.refused("other", leave, 20.0, rates) > 19  # pauses hold here all the same
    assert (await last.take("other", 1, rates)).why == "pause"
    for limiter in limiters:
        await limiter.close()


async def test_no_limit_no_wait(redis_url: str):
    limiter = SharedLimiter(redis_url)
    for _ in range(100):
        assert (await limiter.take("g", 10**9, Rates(0, 0))).wait_s == 0.0
    await limiter.close()
