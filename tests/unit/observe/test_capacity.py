"""What comes, what is possible, what limits it: judged from figures that the test makes up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unjam.core.ports import Completed
from unjam.observe.capacity import Day, Facts, House, Sample, report

MINUTE = 29_000_000
NOW = MINUTE * 60 + 30.0
LOCAL = House(workers=2, cores=2)
ENDPOINT = House(
    workers=2, cores=8, key_groups=1, keys_ready=1, requests_per_minute=60, texts_per_request=32
)
EMBEDDING = [Sample({"parse": 10, "embed": 980, "store": 10}, 35)] * 20


def done(per_minute: int, minutes: int, ago: int = 1) -> list[Completed]:
    """*per_minute* in each of *minutes* that ended *ago* minutes before the running one."""
    first = MINUTE - ago - minutes + 1
    return [Completed(first + n, "rag_processing", per_minute, 1.0) for n in range(minutes)]


def facts(**changed: object) -> Facts:
    calm = Facts(NOW, {}, (), 0, 0, 0.0, LOCAL, EMBEDDING)
    return replace(calm, **changed)  # type: ignore[arg-type]


def test_a_house_that_never_worked_knows_nothing_and_says_so() -> None:
    told = report(Facts(NOW, {}, (), 0, 0, 0.0, House(0, 2)))
    assert (told.capability_per_s, told.basis, told.headroom) == (None, "unknown", None)
    assert (told.bottleneck, told.what_if, told.trend, told.enough_workers) == (
        None,
        [],
        None,
        None,
    )


def test_under_load_the_pace_is_what_it_can_do() -> None:
    told = report(
        facts(
            arrivals={MINUTE - n: 60 for n in range(1, 61)},
            done=done(120, 10),
            waiting=600,
            in_work=50,
            oldest_s=900.0,
        )
    )
    assert told.basis == "measured"
    assert told.capability_per_s == pytest.approx(2.0)
    assert told.arrivals_per_s == {"5m": 1.0, "1h": 1.0}
    assert told.headroom == pytest.approx(0.5)
    assert told.drain_s == pytest.approx(600.0)  # 600 documents at one a second to spare


def test_more_comes_than_can_be_done() -> None:
    told = report(
        facts(
            arrivals={MINUTE - n: 120 for n in range(1, 6)},
            done=done(60, 10),
            waiting=5000,
            oldest_s=900.0,
        )
    )
    assert told.headroom == pytest.approx(-1.0)
    assert told.drain_s is None


def test_without_load_it_is_at_least_the_best_that_was_seen() -> None:
    told = report(facts(done=[*done(60, 5, ago=300), *done(1, 10)]))
    assert told.basis == "best_seen"
    assert told.capability_per_s == pytest.approx(1.0)


def test_a_rush_that_just_came_is_not_taken_for_slowness() -> None:
    """A thousand arrived this minute; the quiet minutes before say nothing about the pace."""
    told = report(facts(done=[*done(60, 5, ago=300), *done(1, 1)], waiting=1000, oldest_s=20.0))
    assert (told.basis, told.capability_per_s) == ("best_seen", pytest.approx(1.0))


def test_the_running_minute_is_left_out() -> None:
    told = report(facts(arrivals={MINUTE: 1000}, done=[Completed(MINUTE, "q", 1, 1.0)]))
    assert told.arrivals_per_s == {"5m": 0.0, "1h": 0.0}


@pytest.mark.parametrize("stage", ["parse", "embed", "store"])
def test_the_bottleneck_is_where_documents_spend_their_time(stage: str) -> None:
    spent = {"parse": 10.0, "embed": 10.0, "store": 10.0} | {stage: 100.0}
    told = report(facts(samples=[Sample(spent, 5)], done=done(60, 10)))
    assert told.bottleneck == stage
    assert sum(told.shares.values()) == pytest.approx(1.0, abs=0.01)


def test_workers_help_up_to_the_cores() -> None:
    house = House(workers=1, cores=2)
    told = report(facts(house=house, done=done(60, 10)), [(2, 0), (8, 0)])
    by_workers = {w.workers: w for w in told.what_if}
    assert by_workers[1].per_s == pytest.approx(1.0)
    assert by_workers[2].per_s == pytest.approx(2.0)
    assert by_workers[8].per_s == pytest.approx(2.0)
    assert by_workers[8].limit == "embed"


def test_nothing_helps_against_the_stores_one_writer() -> None:
    told = report(
        facts(
            house=House(workers=1, cores=8),
            samples=[Sample({"parse": 1, "embed": 9, "store": 90}, 35)],
            arrivals={MINUTE - n: 120 for n in range(1, 61)},
            done=done(60, 10),
            waiting=999,
            oldest_s=900.0,
        )
    )
    assert {w.per_s for w in told.what_if} == {1.0}
    assert told.enough_workers is None


def test_enough_workers_carry_what_comes_and_a_fifth_more() -> None:
    told = report(
        facts(
            house=House(workers=1, cores=16),
            arrivals={MINUTE - n: 180 for n in range(1, 61)},
            done=done(60, 10),
            waiting=999,
            oldest_s=900.0,
        )
    )
    assert told.enough_workers == 4  # 3 a second, times 1.2, at one a second each


def test_an_endpoints_limit_is_raised_by_key_groups_only() -> None:
    # 60 requests a minute × 32 texts / 35 chunks = 0.914 documents a second
    told = report(
        facts(house=ENDPOINT, done=done(54, 10), waiting=99, oldest_s=900.0),
        [(8, 1), (2, 2), (4, 2)],
    )
    assert told.bottleneck == "endpoint_limit"
    judged = {(w.workers, w.key_groups): w for w in told.what_if}
    assert judged[8, 1].per_s == pytest.approx(0.914, abs=0.001)
    assert judged[8, 1].limit == "endpoint_limit"
    assert judged[4, 2].per_s == pytest.approx(1.8, abs=0.03)


def test_the_trend_of_the_days() -> None:
    days = [Day(f"202611{n:02}", 1000 + 100 * n, 900) for n in range(1, 11)]
    told = report(facts(days=days, done=done(60, 10)))
    assert told.trend is not None
    assert told.trend.growth_per_day == pytest.approx(100)
    assert told.trend.jobs_per_day == pytest.approx(2100)
    assert told.trend.in_30_days == pytest.approx(5100)
    assert told.trend.full_in_days == (86_400 - 2100) // 100  # one a second at best


def test_the_day_on_which_it_is_full() -> None:
    days = [Day(f"202611{n:02}", 8000 + 100 * n, 900) for n in range(1, 11)]
    # five documents in the best five minutes: 1,440 a day, so it is full already
    small = report(facts(days=days, done=done(1, 5)))
    assert small.trend is not None and small.trend.full_in_days == 0
    shrinking = report(facts(days=list(reversed(days)), done=done(600, 10)))
    assert shrinking.trend is not None and shrinking.trend.full_in_days is None
    assert report(facts(days=days[:2])).trend is None
