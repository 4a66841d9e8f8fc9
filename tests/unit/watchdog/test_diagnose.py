"""From facts to the first cause: one table of faults, and houses in which nothing is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.facts import (
    GIB,
    MIB,
    NOW,
    Change,
    chroma,
    death,
    embedding,
    healthy,
    held,
    host,
    lane,
    nobody,
    process,
    redis,
    rounds,
    running,
    standing,
    vitals,
    workers,
)
from unjam.core.causes import CAUSES
from unjam.core.document import State
from unjam.core.incident import Diagnosis
from unjam.watchdog.detect import detect
from unjam.watchdog.diagnose import EXPLAINS, diagnose
from unjam.watchdog.facts import Facts


def found(looks: Sequence[Facts]) -> list[Diagnosis]:
    return diagnose(detect(looks[-1], looks[:-1]), looks[-1])


def broken(change: Change, *, after: int = 2, n: int = 4, **values: int) -> list[Facts]:
    """*n* looks, 2 s apart; the last *after* of them changed."""
    looks = rounds(n=n, **values)
    return looks[:-after] + [change(f) for f in looks[-after:]]


SUSPENDED: Change = lambda f: redis(f, suspended=True)  # noqa: E731
QUICK: dict[str, tuple[str, Change]] = {
    "disk of the originals": ("disk_full", lambda f: _disk(f, free_bytes=MIB)),
    "no inodes": ("disk_full", lambda f: _disk(f, free_inodes=3)),
    "read-only disk": ("disk_full", lambda f: _disk(f, writable=False)),
    "ledger silent": (
        "ledger_down",
        lambda f: replace(
            f, ledger=replace(f.ledger, answers=False, vitals=None), processes=(), sample=()
        ),
    ),
    "ledger refuses": (
        "ledger_down",
        lambda f: replace(f, ledger=replace(f.ledger, writable=False)),
    ),
    "originals away": ("originals_down", lambda f: held(f, "blob_store_down")),
    "database's clock": ("clock_jump", lambda f: vitals(f, now=f.at + 60)),
    "rq suspend": ("stopped_by_person", SUSPENDED),
    "a lane paused": ("stopped_by_person", lambda f: replace(f, paused_lanes=("rag_low",))),
    "redis away": ("redis_down", lambda f: redis(f, answers=False, lanes={}, detail="refused")),
    "redis a replica": ("redis_down", lambda f: redis(f, read_only=True)),
    "another house": ("redis_wrong_database", lambda f: redis(f, house="theirs")),
    "redis full": ("redis_full", lambda f: redis(f, used_bytes=99 * MIB, max_bytes=100 * MIB)),
    "outbox refused": ("redis_full", lambda f: held(f, "queue_full", "outbox")),
    "allkeys-lru": ("redis_unsafe", lambda f: redis(f, policy="allkeys-lru")),
    "no aof": ("redis_unsafe", lambda f: redis(f, aof=False)),
    "evictions": ("redis_unsafe", lambda f: redis(f, evicted=7)),
    "flushed": ("redis_lost_data", lambda f: vitals(f, meta={"redis_lost_at": str(f.at - 1)})),
    "chroma away": ("chroma_down", lambda f: chroma(f, answers=False, detail="refused")),
    "chroma refuses": ("chroma_refuses_writes", lambda f: held(f, "vector_store_down")),
    "vectors gone": ("chroma_index_short", lambda f: vitals(f, missing=12)),
    "key refused": (
        "embedding_key_bad",
        lambda f: embedding(f, keys_ready=1, barred={"embedding_unauthorised": 1}),
    ),
    "all keys refused": ("embedding_key_bad", lambda f: held(f, "embedding_unauthorised")),
    "no quota": ("embedding_quota", lambda f: held(f, "embedding_quota")),
    "dimension": (
        "embedding_dimension_changed",
        lambda f: held(f, "embedding_dimension_changed"),
    ),
    "endpoint away": ("embedding_down", lambda f: held(f, "embedding_down")),
    "endpoint throttles": ("embedding_throttled", lambda f: held(f, "embedding_throttled")),
    "workers gone": ("workers_none", nobody),
    "worker stopped": ("workers_hung", lambda f: workers(f, process(1), process(2, state="T"))),
    "worker silent": ("workers_hung", lambda f: workers(f, process(1), process(2, age_s=8.0))),
    "two versions": (
        "version_mismatch",
        lambda f: workers(f, process(1), process(2, version="0.0.9")),
    ),
    "oom kill": ("memory_short", lambda f: host(f, oom_kills=1)),
}


def _disk(facts: Facts, **values: int | bool) -> Facts:
    first, *rest = facts.disks
    return replace(facts, disks=(replace(first, **values), *rest))  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", QUICK)
def test_a_fault_is_named_first_within_two_looks(fault: str) -> None:
    cause, change = QUICK[fault]
    looks = broken(change, after=3 if cause == "workers_none" else 2, n=6)
    first = found(looks)[0]
    assert first.cause == cause
    assert first.evidence
    assert first.since >= looks[0].at - 10


@pytest.mark.parametrize("fault", QUICK)
def test_a_fault_with_a_backlog_is_still_the_first_cause(fault: str) -> None:
    """Nothing moves meanwhile, and nobody calls that a finding of its own."""
    cause, change = QUICK[fault]
    looks = broken(change, after=28, n=60, in_line=9000)
    causes = [d.cause for d in found(looks)]
    assert causes[0] == cause or CAUSES[causes[0]].rank < CAUSES[cause].rank
    if cause in EXPLAINS and "unknown_stagnation" in EXPLAINS[cause]:
        assert "unknown_stagnation" not in causes


@pytest.mark.parametrize("fault", ["redis away", "chroma away", "ledger silent", "ledger refuses"])
def test_a_single_lost_answer_is_no_outage(fault: str) -> None:
    assert found(broken(QUICK[fault][1], after=1)) == []


def test_chroma_down_is_not_hung_workers() -> None:
    def change(f: Facts) -> Facts:
        stuck = tuple(running(n, worker=1 + n % 2, state=State.STORING) for n in range(50))
        away = chroma(f, answers=False, detail="refused")
        return held(vitals(away, running=stuck, running_count=50), "vector_store_down")

    diagnoses = found(broken(change, after=55, n=58, in_line=5000))
    assert [d.cause for d in diagnoses] == ["chroma_down"]
    assert {"unknown_stagnation"} <= set(diagnoses[0].effects)


def test_a_full_disk_explains_what_it_breaks() -> None:
    def change(f: Facts) -> Facts:
        full = _disk(f, free_bytes=0)
        full = redis(full, aof_ok=False)
        return replace(full, ledger=replace(full.ledger, writable=False))

    (only,) = found(broken(change))
    assert only.cause == "disk_full"
    assert {"ledger_down", "redis_unsafe"} <= set(only.effects)


def test_two_troubles_that_have_nothing_to_do_with_each_other_are_two() -> None:
    def change(f: Facts) -> Facts:
        return chroma(redis(f, answers=False, lanes={}, detail="x"), answers=False, detail="y")

    assert [d.cause for d in found(broken(change))] == ["redis_down", "chroma_down"]


def test_a_clock_that_jumps_is_noticed_and_nothing_else() -> None:
    looks = rounds(n=8)
    jumped = [replace(f, at=f.at + 3600) for f in looks[-2:]]
    jumped = [vitals(f, now=f.at) for f in jumped]
    assert [d.cause for d in found(looks[:-2] + jumped)] == ["clock_jump"]


def test_a_standing_difference_of_clocks_hides_nothing_and_a_new_one_what_it_brings_about() -> None:
    """A watchdog on a host whose clock is minutes off must still see that no worker is left."""

    wrong = [replace(f, clock=f.at - 300) for f in rounds(n=20)]
    assert [d.cause for d in found([*wrong[:10], *map(nobody, wrong[10:])])] == [
        "clock_jump",
        "workers_none",
    ]
    looks = rounds(n=20)
    leapt = [vitals(f, now=f.at + 300) for f in looks[10:]]
    leapt = [replace(nobody(f), clock=f.at) for f in leapt]
    assert [d.cause for d in found(looks[:10] + leapt)] == ["clock_jump"]


# -- workers --------------------------------------------------------------------------------
def _dying(f: Facts, *, codes: dict[str, int] | None = None) -> Facts:
    """One worker died six seconds ago, one three, one now."""
    died = {f"host.{50 + n}.1": 3.0 * n for n in range(3)}
    return vitals(f, died=died, exits=codes or {})


def test_three_deaths_at_three_moments_are_a_loop_and_say_how() -> None:
    codes = {f"host.{50 + n}.1": -11 for n in range(3)}
    (only,) = found(broken(lambda f: _dying(f, codes=codes), after=1))
    assert only.cause == "workers_crash_looping"
    assert "SIGSEGV" in only.evidence[0].en and "SIGSEGV" in only.evidence[0].ko


def test_a_loop_is_over_a_minute_after_its_deaths() -> None:
    """However the ledger goes on to tell of them."""
    looks = rounds(n=40)
    began = looks[0].at

    def change(f: Facts) -> Facts:
        return vitals(f, died={f"host.{50 + n}.1": f.at - began + 3.0 * n for n in range(3)})

    assert [d.cause for d in found([change(f) for f in looks[:20]])] == ["workers_crash_looping"]
    assert found([change(f) for f in looks]) == []


def test_a_loop_for_want_of_memory_says_so() -> None:
    (only,) = found(broken(lambda f: host(_dying(f), oom_kills=3), after=1))
    assert only.cause == "workers_crash_looping"
    assert "OOM" in only.evidence[0].en
    assert "memory_short" in only.effects


def test_all_workers_killed_at_once_are_no_loop() -> None:
    died = {f"host.{n}.1": 0.1 for n in range(20)}
    assert found(broken(lambda f: vitals(f, died=died), after=1)) == []


def test_a_poison_document_explains_the_loop_that_it_makes() -> None:
    def change(f: Facts) -> Facts:
        deaths = tuple(death(n, f.at - 20 + 10 * n, n, alone=True) for n in range(3))
        return vitals(f, deaths=deaths)

    (only,) = found(broken(change, after=1, n=30))
    assert (only.cause, only.subject) == ("poison_document", "d1")
    assert "workers_crash_looping" in only.effects


def test_deaths_in_a_storm_make_no_poison() -> None:
    def change(f: Facts) -> Facts:
        deaths = tuple(death(n, f.at - n, n, alone=True, others_died=4) for n in range(2))
        return vitals(f, deaths=deaths)

    assert "poison_document" not in [d.cause for d in found(broken(change, after=1))]


def test_a_worker_whose_documents_do_not_move_while_others_do_is_hung() -> None:
    looks = [
        vitals(
            f,
            running=(running(1, worker=1), running(n + 10, worker=2)),
            running_count=2,
            counters={("jobs_completed", "rag_processing"): 1000.0 + n},
        )
        for n, f in enumerate(rounds(n=50))
    ]
    (only,) = found(looks)
    assert (only.cause, only.subject) == ("workers_hung", "host.1.1")


def test_a_long_parse_is_no_hang() -> None:
    stuck = (running(1, worker=1, state=State.PARSING),)
    looks = [
        vitals(
            f,
            running=stuck,
            running_count=1,
            counters={("jobs_completed", "rag_processing"): 1000.0 + n},
        )
        for n, f in enumerate(rounds(n=58))
    ]
    assert found(looks) == []


def test_a_house_that_has_just_begun_has_no_missing_workers() -> None:
    assert found([nobody(f) for f in rounds(n=5)]) == []
    assert found([nobody(f) for f in rounds(n=15, in_line=3)])[0].cause == "workers_none"


def test_a_house_that_was_begun_without_workers_misses_none_while_there_is_no_work() -> None:
    """``unjam up --workers 0``: stock workers come and go as their owner likes."""
    assert found([nobody(f) for f in rounds(n=15)]) == []


def test_stock_workers_are_workers() -> None:
    """They are in RQ's books only while they have nothing to do."""
    looks = [workers(f) for f in rounds(n=20)]
    assert found(looks) == []


# -- the line -------------------------------------------------------------------------------
def test_a_lane_that_nobody_serves() -> None:
    (only,) = found(broken(lambda f: lane(f, "rag_pdf", count=5), after=6, n=8))
    assert (only.cause, only.subject) == ("lane_unserved", "rag_pdf")


def test_large_ones_at_the_head_are_named() -> None:
    def change(f: Facts) -> Facts:
        heads = [standing(n, size=300 * MIB, since=f.at - 60) for n in range(6)]
        small = [standing(n, since=f.at - 50) for n in range(10, 15)]
        hands = tuple(running(n, size_bytes=300 * MIB, state=State.PARSING) for n in range(3))
        return vitals(f, heads=(*heads, *small), running=hands, running_count=3)

    (only,) = found(broken(change, in_line=11))
    assert (only.cause, only.subject) == ("large_documents_block", "rag_processing")


def test_large_ones_alone_hold_up_nobody() -> None:
    heads = tuple(standing(n, size=300 * MIB, since=NOW - 60) for n in range(6))
    assert found(broken(lambda f: vitals(f, heads=heads), in_line=6)) == []


def test_a_flood_of_one_user_is_named_and_explains_the_wait() -> None:
    def change(f: Facts) -> Facts:
        sample = tuple(standing(n, user="bob" if n else "ann") for n in range(32))
        return replace(f, sample=sample)

    (only,) = found(broken(change, in_line=10_000))
    assert (only.cause, only.subject) == ("user_flood", "bob")
    assert "too_much_work" in only.effects
    assert CAUSES[only.cause].severity == "info"


def test_a_house_of_one_user_is_not_flooded() -> None:
    sample = tuple(standing(n, user="ann") for n in range(32))
    looks = broken(lambda f: replace(f, sample=sample), in_line=500)
    assert found(looks) == []


def test_too_much_work_has_an_eta_and_a_number_of_workers() -> None:
    looks = [healthy(2.0 * n, in_line=60_000, completed=1000 + 20 * n) for n in range(20)]
    (only,) = found(looks)
    assert only.cause == "too_much_work"
    assert CAUSES[only.cause].severity == "info"
    assert "10.0 a second" in only.evidence[0].en and "2 h" in only.evidence[0].en.replace(
        "1.7", "2"
    )
    assert "40 workers instead of 2" in only.evidence[0].en


def test_nothing_moves_and_nothing_is_known() -> None:
    (only,) = found([healthy(2.0 * n, in_line=100) for n in range(45)])
    assert only.cause == "unknown_stagnation"
    assert only.since == pytest.approx(NOW, abs=3)


@pytest.mark.parametrize("looks_at_work", [1, 20])
def test_the_first_document_after_a_long_rest_is_no_stagnation(looks_at_work: int) -> None:
    rest = [healthy(2.0 * n) for n in range(60)]
    assert (
        found([*rest, *(healthy(120.0 + 2.0 * n, in_line=1) for n in range(looks_at_work))]) == []
    )


# -- slowness -------------------------------------------------------------------------------
SLOW: dict[str, tuple[str, Change]] = {
    "redis": ("redis_slow", lambda f: redis(f, ping_s=0.4)),
    "chroma": ("chroma_slow", lambda f: chroma(f, read_s=1.5)),
    "ledger": ("ledger_slow", lambda f: replace(f, ledger=replace(f.ledger, write_s=1.4))),
}


@pytest.mark.parametrize("what", SLOW)
def test_slowness_is_named_within_half_a_minute_and_not_for_one_slow_answer(what: str) -> None:
    cause, change = SLOW[what]
    assert found(broken(change, after=2, n=16)) == []
    assert [d.cause for d in found(broken(change, after=15, n=20))] == [cause]


def test_an_endpoint_that_refuses_a_fifth_is_throttling() -> None:
    looks = [
        embedding(f, outcomes={"ok": 100 + 4 * n, "throttled": 2 * n})
        for n, f in enumerate(rounds(n=15))
    ]
    assert [d.cause for d in found(looks)] == ["embedding_throttled"]


def test_a_governor_that_feels_for_the_limit_is_not() -> None:
    looks = [
        embedding(f, outcomes={"ok": 100 + 30 * n, "throttled": n}) for n, f in enumerate(rounds())
    ]
    assert found(looks) == []


def test_a_slow_endpoint_is_named() -> None:
    looks = [
        embedding(f, outcomes={"ok": 10 + n}, answered_ms=10 + 20_000 * n)
        for n, f in enumerate(rounds(n=15))
    ]
    assert [d.cause for d in found(looks)] == ["embedding_slow"]


# -- nothing is wrong -----------------------------------------------------------------------
def test_a_quiet_house_has_no_diagnosis() -> None:
    assert found(rounds(n=60)) == []
    assert found([replace(healthy(), one_off=True, api="")]) == []


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "ping_s": st.floats(0.0, 0.05),
                "read_s": st.floats(0.0, 0.5),
                "write_s": st.floats(0.0, 0.5),
                "beat": st.floats(0.0, 4.5),
                "in_line": st.integers(0, 2000),
                "done": st.integers(1, 60),
                "free": st.floats(0.1, 1.0),
                "load": st.floats(0.0, 50.0),
                "gap_s": st.floats(1.5, 6.0),
                "count": st.integers(0, 3000),
                "held": st.integers(0, 50),
            }
        ),
        min_size=1,
        max_size=40,
    )
)
def test_no_diagnosis_from_healthy_facts(steps: list[dict[str, float]]) -> None:
    """Full load or none, slow looks, jittery answers: as long as it moves, nothing is wrong."""
    looks: list[Facts] = []
    at, completed = 0.0, 1000
    for step in steps:
        at += step["gap_s"]
        completed += int(step["done"])
        f = healthy(at, in_line=int(step["in_line"]), completed=completed)
        f = redis(f, ping_s=step["ping_s"], connections=completed, clients=int(step["load"]))
        f = chroma(f, read_s=step["read_s"])
        f = replace(f, ledger=replace(f.ledger, write_s=step["write_s"]))
        f = workers(f, process(1, age_s=step["beat"]), process(2, age_s=0.1))
        f = host(f, memory_free_bytes=int(step["free"] * 16 * GIB), load=step["load"])
        f = lane(f, "rag_processing", count=int(step["count"]))
        hands = tuple(running(completed + n, worker=1 + n % 2) for n in range(int(step["held"])))
        looks.append(vitals(f, running=hands, running_count=len(hands)))
    assert [d.cause for d in found(looks) if d.cause != "too_much_work"] == []


# -- the tables -----------------------------------------------------------------------------
def test_causes_and_effects_are_known_and_no_two_explain_each_other() -> None:
    named = set(EXPLAINS) | {e for effects in EXPLAINS.values() for e in effects}
    assert named <= set(CAUSES)
    for a, b in product(EXPLAINS, EXPLAINS):
        assert not (b in EXPLAINS[a] and a in EXPLAINS[b]), (a, b)


@pytest.mark.parametrize("code", CAUSES)
def test_every_cause_says_what_it_is_and_what_to_do_in_both_languages(code: str) -> None:
    cause = CAUSES[code]
    for part in ("title", "meaning", "repair", "advice"):
        en, ko = cause.said_in(part, "en"), cause.said_in(part, "ko")
        assert en and any("가" <= c <= "힣" for c in ko), (part, ko)
        assert not any("가" <= c <= "힣" for c in en)
    assert cause.command
    assert len({c.rank for c in CAUSES.values()}) == len(CAUSES)
