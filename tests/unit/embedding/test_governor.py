from __future__ import annotations

import asyncio
import logging

import pytest

from unjam.embedding.governor import Admission, Governor, LocalLimiter, Paused, Places
from unjam.embedding.pace import Rates


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


async def admitted(gov: Governor, lane: str = "ingest", group: str = "") -> Admission:
    answer = await gov.admit(lane, [group], 1, 1)  # type: ignore[arg-type]
    assert isinstance(answer, Admission)
    return answer


async def test_requests_stay_apart_and_searches_do_not():
    time = Time()
    gov = governor(time, RAG_EMBEDDING_DELAY_MS=2000)
    for _ in range(3):
        await admitted(gov)
    assert time.now == pytest.approx(104.0)
    await admitted(gov, "query")
    assert time.now == pytest.approx(104.0)


async def test_requests_per_minute_hold_over_a_minute():
    time = Time()
    gov = governor(time, RAG_EMBEDDING_RATE_LIMIT=60)
    start, sent = time.now, 0
    while time.now < start + 60:
        await admitted(gov)
        sent += 1
    assert 60 <= sent <= 60 + 60 / 4 + 1  # the rate, and the burst once


async def test_key_groups_have_limits_of_their_own():
    time = Time()
    limiter = LocalLimiter(clock=time.clock)
    rates = Rates(requests=4, tokens=0)
    assert (await limiter.take("one", 1, rates)).wait_s == 0
    assert (await limiter.take("one", 1, rates)).wait_s == pytest.approx(15.0)
    assert (await limiter.take("two", 1, rates)).wait_s == 0


async def test_another_group_goes_when_the_first_has_no_room():
    gov = governor(Time(), RAG_EMBEDDING_RATE_LIMIT=4)
    went = [await gov.admit("ingest", ["one", "two"], 1, 1) for _ in range(2)]
    assert [answer.group for answer in went] == ["one", "two"]


async def test_a_request_larger_than_the_bucket_passes_and_is_paid_for():
    time = Time()
    limiter = LocalLimiter(clock=time.clock)
    rates = Rates(requests=0, tokens=600)  # credit: 150 tokens
    assert (await limiter.take("", 300, rates)).wait_s == 0
    # 300 of 600 a minute: half a minute, of which a quarter was credit, then 60 tokens' time.
    assert (await limiter.take("", 60, rates)).wait_s == pytest.approx(30 - 15 + 6)


async def test_a_refusal_by_one_limit_costs_nothing_of_the_other():
    time = Time()
    limiter = LocalLimiter(clock=time.clock)
    assert (await limiter.take("", 900, Rates(requests=8, tokens=3600))).wait_s == 0
    for _ in range(20):  # tokens refuse; requests must not be used up by that
        assert (await limiter.take("", 60, Rates(requests=8, tokens=3600))).wait_s > 0
    assert (await limiter.take("", 0, Rates(requests=8, tokens=0))).wait_s == 0


async def test_a_pause_is_told_at_once_and_is_one_for_all_lanes():
    gov = governor(Time())
    await gov.refused(await admitted(gov), 20.0)
    for lane in ("ingest", "query"):
        answer = await gov.admit(lane, [""], 1, 1)
        assert isinstance(answer, Paused)
        assert answer.wait_s == pytest.approx(20.0)
    assert isinstance(await gov.admit("ingest", ["other"], 1, 1), Admission)


async def test_room_that_the_endpoint_has_not_is_waited_for():
    gov = governor(Time())
    await gov.answered(await admitted(gov), Rates(0, 0), 3.0)
    assert isinstance(await gov.admit("ingest", [""], 1, 1), Paused)


async def test_a_rate_limit_is_said_in_the_operators_words_once(caplog: pytest.LogCaptureFixture):
    time = Time()
    gov = governor(time)
    with caplog.at_level(logging.ERROR, "unjam.embedding"):
        for _ in range(5):
            await gov.refused(await admitted(gov), 0.0)
            time.now += 1
    assert [(r.levelname, r.getMessage(), r.name) for r in caplog.records] == [
        ("ERROR", "Embedding API rate limit exceeded", "unjam.embedding")
    ]
    time.now += 30
    with caplog.at_level(logging.ERROR, "unjam.embedding"):
        await gov.refused(await admitted(gov), 0.0)
    assert len(caplog.records) == 2


async def test_a_shorter_delay_holds_while_one_waits():
    time, knobs = Time(), {"RAG_EMBEDDING_DELAY_MS": 60_000}
    gov = Governor(
        lambda: knobs, LocalLimiter(clock=time.clock), clock=time.clock, sleep=time.sleep
    )
    await admitted(gov)
    second = asyncio.create_task(admitted(gov))
    await asyncio.sleep(0)
    knobs["RAG_EMBEDDING_DELAY_MS"] = 0
    await second
    assert time.now < 103.0


async def test_searches_teach_ingestion_nothing():
    gov = governor(Time(), RAG_EMBEDDING_CONCURRENCY=8)
    await gov.refused(await admitted(gov, "query"), 0.0)
    assert gov.concurrency() == 8


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
