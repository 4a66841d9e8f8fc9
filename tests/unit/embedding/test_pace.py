"""The arithmetic of one key group, and that its twin in Redis computes the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unjam.embedding import pace
from unjam.embedding.pace import Pace, Rates
from unjam.embedding.shared_limiter import _CONSTANTS, GROUP, _lua

NONE = Rates(0, 0)


def grants(state: Pace, start: float, seconds: float, rates: Rates, step: float = 0.05) -> int:
    granted, now = 0, start
    while now < start + seconds:
        while not state.take(now, 1, rates).wait_s:
            granted += 1
        now += step
    return granted


def test_leaves_are_spread_over_the_minute_after_a_burst():
    state, rates = Pace(), Rates(600, 0)
    assert grants(state, 1000.0, 0.01, rates) == 150
    assert grants(state, 1000.05, 60.0, rates) == pytest.approx(600, abs=2)
    assert grants(state, 1060.05, 60.0, rates) == pytest.approx(600, abs=2)


def test_a_refusal_cuts_the_rate_and_it_comes_back_slowly_then_fast():
    state, rates = Pace(), Rates(1200, 0)
    grants(state, 1000.0, 30.0, rates)
    sent = state.take(1030.0, 1, rates).at
    assert state.refused(1030.1, sent, 0.1, rates) == pytest.approx(0.1)
    after = grants(state, 1030.2, 10.0, rates)
    assert 150 <= after <= 190  # 85 % of 20 a second
    # After a calm: the knob's rate again, and the burst.
    assert grants(state, 1090.0, 10.0, rates) == pytest.approx(500, abs=5)


def test_a_limit_far_below_the_knob_is_found_and_rarely_met():
    """An endpoint with 600 a minute and full credit, behind a knob of 1200."""
    state, rates = Pace(), Rates(1200, 0)
    level, level_at, now = 600.0, 0.0, 0.0
    refused: list[float] = []
    served: list[float] = []
    while now < 600:
        leave = state.take(now, 1, rates)
        if leave.wait_s:
            now += leave.wait_s
            continue
        level = min(600.0, level + (now - level_at) * 10)
        level_at = now
        if level >= 1:
            level -= 1
            served.append(now)
            if leave.refusals:
                state.calm(NONE)
        else:
            refused.append(now)
            state.refused(now, leave.at, (1 - level) / 10, rates)
    late = [t for t in refused if t > 60]
    good = [t for t in served if t > 60]
    assert len(late) / (len(late) + len(good)) < 0.01
    assert len(good) >= 0.97 * 5400


def test_what_was_under_way_at_a_cut_teaches_nothing_but_pauses():
    state, rates = Pace(), Rates(600, 0)
    leaves = [state.take(1000.0, 1, rates) for _ in range(5)]
    state.refused(1000.1, leaves[0].at, 0.1, rates)
    cut = state.cut_rate
    for leave in leaves[1:]:
        state.refused(1000.1, leave.at, 3.0, rates)
    assert state.cut_rate == cut
    assert state.refusals == 1
    assert state.take(1001.0, 1, rates).wait_s == pytest.approx(2.1)


def test_a_search_may_run_ahead_and_ingestion_pays():
    state, rates = Pace(), Rates(60, 0)
    assert grants(state, 1000.0, 0.01, rates) == 15
    assert not state.take(1000.0, 1, rates, grace_s=2.0).wait_s
    assert not state.take(1000.0, 1, rates, grace_s=2.0).wait_s
    assert state.take(1000.0, 1, rates, grace_s=2.0).why == "pace"
    assert state.take(1000.0, 1, rates).wait_s == pytest.approx(3.0)


def test_the_tighter_of_knob_and_told_limit_holds():
    state = Pace()
    state.calm(Rates(60, 0))
    assert grants(state, 1000.0, 0.01, Rates(600, 0)) == 15


@dataclass(frozen=True)
class Step:
    after_s: float
    name: str
    tokens: int
    pause_s: float | None
    flag: bool


steps = st.lists(
    st.builds(
        Step,
        after_s=st.sampled_from([0.0, 0.001, 0.05, 0.5, 3.0, 20.0, 200.0]),
        name=st.sampled_from(["take", "take", "take", "take", "refused", "calm", "rest", "back"]),
        tokens=st.integers(1, 5000),
        pause_s=st.sampled_from([None, 0.0, 0.2, 5.0, 100.0]),
        flag=st.booleans(),
    ),
    max_size=60,
)
limits = st.sampled_from([0, 1, 10, 600, 100_000])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=steps, requests=limits, tokens=limits, minute_s=st.sampled_from([2, 60]))
def test_redis_computes_the_same(
    redis_url: str, steps: list[Step], requests: int, tokens: int, minute_s: int
):
    rates = Rates(requests, tokens)
    state = Pace(minute_s)
    with redis.Redis.from_url(redis_url) as client:
        client.delete(GROUP + "twin")
        script = client.register_script(_lua())

        def run(operation: str, now: float, *more: object) -> Any:
            head = [operation, f"{now:.6f}", minute_s, requests, tokens, _CONSTANTS]
            return script([GROUP + "twin"], [*head, *more])

        now, sent = 1000.0, 0.0
        for step in steps:
            now = round(now + step.after_s, 6)
            if step.name == "take":
                grace_s = 2.0 if step.flag else 0.0
                leave = state.take(now, step.tokens, rates, grace_s)
                wait, at, why, refusals, rate, *_ = run("take", now, step.tokens, grace_s)
                assert (why.decode(), float(at)) == (leave.why, pytest.approx(now))
                assert float(wait) == pytest.approx(leave.wait_s, rel=1e-4, abs=1e-3)
                assert round(float(refusals)) == leave.refusals
                assert float(rate) == pytest.approx(leave.rate, rel=1e-4, abs=1e-5)
                sent = now if not leave.wait_s else sent
            elif step.name == "refused":
                pause_s = state.refused(now, sent, step.pause_s, rates)
                told = "" if step.pause_s is None else step.pause_s
                assert float(run("refused", now, sent, told)[0]) == pytest.approx(pause_s, abs=1e-3)
            elif step.name == "calm":
                told = Rates(300, 0) if step.flag else NONE
                state.calm(told)
                run("calm", now, told.requests, told.tokens)
            elif step.name == "rest":
                state.rest(now, step.pause_s or 0.0)
                run("rest", now, step.pause_s or 0.0)
            else:
                state.give_back(now, step.tokens, rates)
                run("give_back", now, step.tokens)


def test_growth_is_as_documented():
    state = Pace(cut_rate=1.0, grows_from=0.0)
    assert state._rate(0.0, 0.0) == pytest.approx(pace.BACK_OFF)
    assert state._rate(28.0, 0.0) == pytest.approx(1.0, abs=0.02)
    assert state._rate(50.0, 0.0) == pytest.approx(1.15, abs=0.03)
    assert 10 < state._rate(300.0, 0.0) < 14
