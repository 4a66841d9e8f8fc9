from __future__ import annotations

import itertools
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from unjam.embedding.adapt import REMEMBER_S, SAMPLES, Adaptive

BOUNDS = {"concurrency": 8, "batch": 32}


def good(made: Adaptive, now: float, *, took_s: float = 0.1, texts: int = 32) -> None:
    made.answered(texts, 1000, now - took_s, now, **BOUNDS)


def test_the_knobs_are_the_start_and_hold_at_once():
    made = Adaptive()
    assert made.concurrency(8) == 8
    assert made.concurrency(64) == 64
    assert made.batch_size(32, 0.0) == 32
    good(made, 1.0)
    assert made.concurrency(64) == 64


def test_a_429_halves_once_a_round_and_answers_bring_it_back_one_by_one():
    made = Adaptive()
    for _ in range(8):  # all of them were under way together
        made.throttled(10.0, 10.1, concurrency=8)
    assert made.concurrency(8) == 4
    made.throttled(10.2, 10.3, concurrency=8)
    assert made.concurrency(8) == 2
    seen: list[int] = []
    for n in range(40):
        good(made, 11.0 + n)
        seen.append(made.concurrency(8))
    assert seen[-1] == 8
    assert all(later - earlier in (0, 1) for earlier, later in itertools.pairwise(seen))
    assert seen.count(3) >= 3  # one more after a round, not after each answer


def test_a_time_out_makes_requests_fewer_and_smaller():
    made = Adaptive()
    made.timed_out(0.0, 60.0, **BOUNDS)
    assert (made.concurrency(8), made.batch_size(32, 60.0)) == (4, 16)
    for n in range(20):
        good(made, 61.0 + n, texts=16 + n)
    assert made.batch_size(32, 100.0) > 16


def test_an_endpoint_that_only_queues_is_given_fewer():
    """One text at a time behind the endpoint: latency grows with what is in flight."""
    made = Adaptive()
    bounds = {"concurrency": 32, "batch": 32}
    waiting: deque[float] = deque()  # when each request in flight was sent
    now, seen = 0.0, list[int]()
    for _ in range(1000):
        while len(waiting) < made.concurrency(32):
            waiting.append(now)
        now += 0.1
        made.answered(32, 1000, waiting.popleft(), now, **bounds)
        seen.append(made.concurrency(32))
    settled = seen[300:]
    assert sum(settled) / len(settled) <= 10


def test_a_slow_request_now_and_then_changes_nothing():
    made = Adaptive()
    for n in range(200):
        good(made, float(n), took_s=2.0 if n % 5 == 0 else 0.1)
    assert made.concurrency(8) == 8


def test_large_requests_are_not_compared_with_small_ones():
    made = Adaptive()
    for n in range(50):
        made.answered(1, 30, n - 0.02, float(n), **BOUNDS)
        made.answered(32, 30_000, n - 1.0, float(n), **BOUNDS)
    assert made.concurrency(8) == 8


def test_too_many_texts_is_remembered_and_forgotten_in_the_end():
    made = Adaptive()
    for texts in (8, 16, 32):  # the order in which halving learns it
        made.too_large(texts, 0.0)
    assert made.batch_size(32, 1.0) == 4
    for n in range(20):
        good(made, 1.0 + n, texts=made.batch_size(32, 1.0))
    assert made.batch_size(32, 21.0) == 7  # never again what was refused
    assert made.batch_size(32, REMEMBER_S + 1) == 32


def test_one_text_is_never_too_many():
    made = Adaptive()
    made.too_large(1, 0.0)
    assert made.batch_size(32, 0.0) == 32


events = st.lists(
    st.tuples(
        st.sampled_from(["good", "throttled", "timed_out", "too_large"]),
        st.floats(0.001, 100.0),
        st.integers(1, 64),
    ),
    max_size=100,
)


@given(events=events, concurrency=st.integers(1, 64), batch=st.integers(1, 2048))
def test_always_within_the_knobs(
    events: list[tuple[str, float, int]], concurrency: int, batch: int
):
    made, now = Adaptive(), 0.0
    for name, took_s, texts in events:
        now += took_s
        if name == "good":
            made.answered(
                texts, texts * 30, now - took_s, now, concurrency=concurrency, batch=batch
            )
        elif name == "throttled":
            before = made.concurrency(concurrency)
            made.throttled(now, now, concurrency=concurrency)
            assert made.concurrency(concurrency) <= before
        elif name == "timed_out":
            made.timed_out(now - took_s, now, concurrency=concurrency, batch=batch)
        else:
            made.too_large(texts, now)
            assert made.batch_size(batch, now) <= max(1, texts - 1) or texts == 1
        assert 1 <= made.concurrency(concurrency) <= concurrency
        assert 1 <= made.batch_size(batch, now) <= batch


@given(events=events)
def test_calm_brings_everything_back(events: list[tuple[str, float, int]]):
    made, now = Adaptive(), 0.0
    for name, took_s, texts in events:
        now += took_s
        if name == "throttled":
            made.throttled(now, now, concurrency=8)
        elif name == "timed_out":
            made.timed_out(now, now, **BOUNDS)
        elif name == "too_large":
            made.too_large(texts, now)
    now += REMEMBER_S
    for _ in range(SAMPLES + 200):
        now += 1.0
        good(made, now, texts=made.batch_size(32, now))
    assert (made.concurrency(8), made.batch_size(32, now)) == (8, 32)
