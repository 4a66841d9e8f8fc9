"""The breaker's decisions: one outage is one, one probe at a time, longer waits when it flaps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unjam.core import breaker as b
from unjam.core.errors import LedgerVersionError
from unjam.core.reasons import REASONS

DOWN = ("vector_store_down", "away")


def dice() -> float:
    return 1.0


def test_every_reason_of_a_dependency_is_known() -> None:
    assert set(b.OF_REASON.values()) == set(b.DEPENDENCIES)
    # No document waits for the one: whoever meets it may not write.
    reasons = set(b.OF_REASON) - {LedgerVersionError.code}
    assert all(REASONS[reason].kind == "waiting" for reason in reasons)
    assert b.reasons_of(b.CHROMA) == ("vector_store_down",)


def test_it_opens_is_probed_once_and_closes() -> None:
    opened = b.trip(b.Breaker(b.CHROMA), *DOWN, 100.0, dice=dice)
    assert (opened.state, opened.reason, opened.until) == ("open", "vector_store_down", 100.5)
    assert opened.holds
    assert b.probe(opened, 100.4) is None
    probing = b.probe(opened, 100.5)
    assert probing is not None and probing.state == "half_open" and probing.holds
    assert b.probe(probing, 100.6) is None  # one at a time
    assert b.probe(probing, 100.5 + b.PROBING_S) is not None  # its prober died
    closed = b.passed(probing, 101.0)
    assert not closed.holds and not closed.reason and closed.until is None
    assert b.probe(closed, 200.0) is None


def test_fifty_reports_are_one_outage() -> None:
    opened = b.trip(b.Breaker(b.CHROMA), *DOWN, 100.0, dice=dice)
    for n in range(50):
        assert b.trip(opened, *DOWN, 100.0 + n / 1000) is opened


def test_a_failed_probe_comes_again_soon_however_long_the_outage() -> None:
    now = b.trip(b.Breaker(b.CHROMA), *DOWN, 0.0, dice=dice)
    at = 0.0
    for _ in range(20):
        at = now.until or 0.0
        probing = b.probe(now, at)
        assert probing is not None
        now = b.trip(probing, *DOWN, at, dice=dice)
        assert (now.until or 0.0) - at == b.PROBE_EVERY_S
    assert now.failures == 1


def test_a_breaker_that_flaps_is_closed_less_often() -> None:
    now, at, waits = b.Breaker(b.CHROMA, changed_at=-1000.0), 0.0, list[float]()
    for _ in range(9):
        now = b.trip(now, *DOWN, at, dice=dice)
        waits.append((now.until or 0.0) - at)
        at = now.until or 0.0
        probing = b.probe(now, at)
        assert probing is not None
        now = b.passed(probing, at)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    calm = b.trip(now, *DOWN, at + b.FLAP_S, dice=dice)
    assert calm.failures == 1


def test_restarts_that_the_check_sees_are_no_flapping() -> None:
    now, at = b.Breaker(b.REDIS, changed_at=-1000.0), 0.0
    for _ in range(9):  # a restart every twelve seconds
        now = b.trip(now, "queue_down", "away", at, dice=dice, checked=True)
        assert (now.until or 0.0) - at == b.FIRST_PROBE_S
        probing = b.probe(now, now.until or 0.0)
        assert probing is not None
        now = b.passed(probing, now.until or 0.0)
        at += 12.0


def test_what_the_dependency_says_itself_is_obeyed() -> None:
    throttled = ("embedding_throttled", "429")
    now = b.trip(b.Breaker(b.EMBEDDING), *throttled, 100.0, 20.0, dice)
    assert now.until == 120.0
    assert b.trip(now, *throttled, 101.0, 5.0) is now
    assert b.trip(now, *throttled, 101.0, 60.0).until == 161.0


@given(st.lists(st.tuples(st.sampled_from(["trip", "probe", "pass"]), st.floats(0, 30))))
def test_an_open_one_always_has_a_reason_and_a_next_probe(steps: list[tuple[str, float]]) -> None:
    now, at = b.Breaker(b.REDIS), 1000.0
    for what, later in steps:
        at += later
        if what == "trip":
            now = b.trip(now, "queue_down", "away", at)
        elif what == "probe":
            now = b.probe(now, at) or now
        elif now.state == "half_open":
            now = b.passed(now, at)
        if now.holds:
            assert now.reason == "queue_down"
            assert now.until is not None and now.until <= at + max(b.FLAP_CAP_S, b.PROBING_S)
