from __future__ import annotations

import asyncio

import pytest

from unjam.embedding.governor import Governor, LocalLimiter, Places, Rates


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def governor(time: Time, **knobs: int) -> Governor:
    return Governor(
        lambda: knobs,
        LocalLimiter(clock=time.clock),
        clock=time.clock,
        sleep=time.sleep,
    )


async def test_requests_stay_apart_and_searches_do_not():
    time = Time()
    gov = governor(time, RAG_EMBEDDING_DELAY_MS=2000)
    for _ in range(3):
        await gov.admit("ingest", "", 1)
    assert time.now == pytest.approx(104.0)
    await gov.admit("query", "", 1)
    assert time.now == pytest.approx(104.0)


async def test_requests_per_minute_hold_over_a_minute():
    time = Time()
    gov = governor(time, RAG_EMBEDDING_RATE_LIMIT=60)
    start, sent = time.now, 0
    while time.now < start + 60:
        await gov.admit("ingest", "", 1)
        sent += 1
    assert 60 <= sent <= 60 + 60 / 4 + 1  # the rate, and the burst once


async def test_key_groups_have_limits_of_their_own():
    time = Time()
    limiter = LocalLimiter(clock=time.clock, burst_s=1)
    rates = Rates(requests=60, tokens=0)
    assert await limiter.take("one", 1, rates) == 0
    assert await limiter.take("one", 1, rates) == pytest.approx(1.0)
    assert await limiter.take("two", 1, rates) == 0


async def test_a_request_larger_than_the_bucket_passes_and_is_paid_for():
    time = Time()
    limiter = LocalLimiter(clock=time.clock, burst_s=6)
    rates = Rates(requests=0, tokens=600)  # bucket: 60 tokens
    assert await limiter.take("", 300, rates) == 0
    # 300 of 600 a minute: half a minute until the debt is paid and the bucket holds one request.
    assert await limiter.take("", 60, rates) == pytest.approx(30.0)


async def test_a_refusal_by_one_limit_costs_nothing_of_the_other():
    time = Time()
    limiter = LocalLimiter(clock=time.clock, burst_s=1)
    assert await limiter.take("", 60, Rates(requests=600, tokens=3600)) == 0
    for _ in range(20):  # tokens refuse; requests must not be used up by that
        assert await limiter.take("", 60, Rates(requests=600, tokens=3600)) > 0
    assert await limiter.take("", 0, Rates(requests=600, tokens=0)) == 0


async def test_places_follow_a_size_that_changes():
    size = [2]
    places = Places(lambda: size[0])
    inside: list[int] = []
    leave = asyncio.Event()

    async def hold(number: int) -> None:
        async with places.place():
            inside.append(number)
            await leave.wait()

    tasks = [asyncio.create_task(hold(n)) for n in range(6)]
    await asyncio.sleep(0)
    assert inside == [0, 1]
    size[0] = 3
    leave.set()
    await asyncio.gather(*tasks)
    assert inside == [0, 1, 2, 3, 4, 5]
    assert places.taken == 0


async def test_a_cancelled_waiter_gives_its_place_on():
    places = Places(lambda: 1)
    async with places.place():
        gone = asyncio.create_task(_enter(places))
        next_one = asyncio.create_task(_enter(places))
        await asyncio.sleep(0)
        gone.cancel()
    # Admitted in the same instant as it was cancelled, or skipped: either way nobody is stuck.
    await asyncio.wait_for(next_one, 5)
    assert places.taken == 0


async def _enter(places: Places) -> None:
    async with places.place():
        pass


async def test_searches_have_places_of_their_own():
    gov = governor(Time(), RAG_EMBEDDING_CONCURRENCY=1)
    async with gov.place("ingest"), asyncio.timeout(5), gov.place("query"):
        pass
