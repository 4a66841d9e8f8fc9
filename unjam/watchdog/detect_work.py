"""Symptoms of what is in line and of what holds it up: people, memory, large documents, users."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import ceil

from unjam.core.document import State
from unjam.core.incident import Saying
from unjam.core.vitals import Standing
from unjam.queue.lanes import LARGE
from unjam.watchdog.detect_workers import first_same, marks
from unjam.watchdog.facts import Facts, History
from unjam.watchdog.symptom import Symptom, apart, began, lasted, size, span, within

STAGNANT_S = 60.0
"""Work in line or in hand, nothing in the way, and not one step of any document for so long."""

MEMORY_S = 3.0
MEMORY_SHARE = 0.05
MEMORY_LEAST = 268_435_456
"""Available memory under 5 % of all, and at least 256 MiB (a parsing child's smallest cap): the
kernel reclaims page cache for every allocation by then, and its next step is the OOM killer."""
OOM_S = 60.0

LINE_OLD_S = 20.0
"""A small document takes a second or two when it is its turn."""
FLOOD_SHARE = 0.8
FLOOD_LEAST = 200
SAMPLE_LEAST = 16
"""Of 16 evenly spaced places, 13 of one user mean at least 60 % of the backlog (95 % confidence,
exact binomial)."""

LATE_S = 300.0
"""The promise: searchable within five minutes (the ledger's SLO)."""

FEW_S = 20.0


def detect_work(facts: Facts, history: History) -> Iterator[Symptom]:
    yield from _paused(facts, history)
    yield from _memory(facts, history)
    if facts.vitals is None:
        return
    yield from _large(facts)
    yield from _flood(facts)
    yield from _much(facts, history)
    yield from _stagnant(facts, history)


def _paused(facts: Facts, history: History) -> Iterator[Symptom]:
    if facts.redis.suspended:
        since = began(facts, history, lambda f: f.redis.suspended) or facts.at
        what = Saying("`rq suspend` holds all workers", "`rq suspend`로 모든 워커가 멈췄습니다")
        yield Symptom("stopped_by_person", what, since=since)
    elif "*" in facts.paused_lanes:
        what = Saying("All lanes are paused", "모든 큐가 일시 정지되었습니다")
        yield Symptom("stopped_by_person", what, since=facts.at)
    for lane in facts.paused_lanes:
        if lane != "*":
            what = Saying(f"Lane {lane} is paused", f"큐 {lane}이(가) 일시 정지되었습니다")
            yield Symptom("stopped_by_person", what, lane, facts.at)


def _memory(facts: Facts, history: History) -> Iterator[Symptom]:
    def short(f: Facts) -> bool:
        needed = max(MEMORY_LEAST, MEMORY_SHARE * f.host.memory_bytes)
        return f.host.memory_bytes > 0 and f.host.memory_free_bytes < needed

    since = lasted(facts, history, short, MEMORY_S)
    if since is not None:
        free, whole = size(facts.host.memory_free_bytes), size(facts.host.memory_bytes)
        what = Saying(f"{free} of {whole} available", f"{whole} 중 {free} 사용 가능")
        yield Symptom("memory_short", what, since=since)
    before = within(history, facts, OOM_S)
    killed = facts.host.oom_kills - before.host.oom_kills if before else 0
    if before is not None and killed > 0:
        what = Saying(
            f"The kernel killed {killed} processes for want of memory",
            f"메모리 부족으로 커널이 프로세스 {killed}개를 종료했습니다",
        )
        yield Symptom("memory_short", what, since=before.at)


# -- the line -------------------------------------------------------------------------------
def _large(facts: Facts) -> Iterator[Symptom]:
    """Large documents have the hands, or the head, of a lane in which small ones grow old."""
    assert facts.vitals is not None
    lanes = {s.lane for s in facts.vitals.heads} - {LARGE}
    for lane in sorted(lanes):
        heads = [s for s in facts.vitals.heads if s.lane == lane]
        line = [s for s in facts.sample if s.lane == lane] or heads
        small = [s for s in (*heads, *line) if not _is_large(s, facts)]
        old_s = max((facts.vitals.now - s.since for s in small), default=0.0)
        hands = [r for r in facts.vitals.running if r.lane == lane]
        big = [r for r in hands if r.size_bytes >= facts.large_bytes]
        ahead = sum(_is_large(s, facts) for s in heads[:8])
        blocked = (hands and 2 * len(big) >= len(hands)) or (ahead >= 4 and ahead * 2 >= len(heads))
        if len(small) >= 3 and old_s >= LINE_OLD_S and blocked:
            waits, waits_ko = span(old_s)
            what = Saying(
                f"{lane}: {len(big)} of {len(hands)} in work and {ahead} at its head are large; "
                f"small ones have waited {waits}",
                f"{lane}: 처리 중 {len(hands)}건 가운데 {len(big)}건, 맨 앞 {ahead}건이 대형이며 "
                f"작은 문서가 {waits_ko} 기다렸습니다",
            )
            yield Symptom("large_documents_block", what, lane, facts.at - old_s)


def _is_large(standing: Standing, facts: Facts) -> bool:
    return standing.size_bytes >= facts.large_bytes


def _flood(facts: Facts) -> Iterator[Symptom]:
    if facts.in_line < FLOOD_LEAST or len(facts.sample) < SAMPLE_LEAST:
        return
    users = Counter(s.user_id for s in facts.sample)
    user, n = users.most_common(1)[0]
    assert facts.vitals is not None
    others = {s.user_id for s in (*facts.sample, *facts.vitals.heads)} - {user}
    if others and n >= FLOOD_SHARE * len(facts.sample):
        percent = 100 * n / len(facts.sample)
        what = Saying(
            f"About {percent:.0f} % of {facts.in_line} documents are of {user or 'no user'}",
            f"대기 문서 {facts.in_line}건의 약 {percent:.0f}%가 {user or '익명'} 사용자의 것입니다",
        )
        yield Symptom("user_flood", what, user or "(anonymous)", facts.at)


def pace_per_s(facts: Facts, history: History) -> float | None:
    """Documents a second that become searchable: of the last minute, else of ten; None: none."""
    before = within(history, facts, 60.0)
    if before is not None and before.vitals and apart(before, facts) >= FEW_S:
        done = facts.completed - before.completed
        return done / apart(before, facts) if done > 0 else None
    if facts.vitals is None or not facts.vitals.completions:
        return None
    rows = facts.vitals.completions
    seconds = max(FEW_S, facts.vitals.now - rows[0].minute * 60.0)
    return sum(row.jobs for row in rows) / seconds


def _much(facts: Facts, history: History) -> Iterator[Symptom]:
    pace = pace_per_s(facts, history)
    if pace is None or facts.in_line == 0:
        return
    eta_s = facts.in_line / pace
    if eta_s <= LATE_S:
        return
    workers = max(1, len(facts.workers))
    helpful = ceil(workers * eta_s / LATE_S)
    done, done_ko = span(eta_s)
    what = Saying(
        f"{facts.in_line} documents in line at {pace:.1f} a second: done in about {done}; "
        f"{helpful} workers instead of {workers} would be done in 5 min",
        f"대기 {facts.in_line}건, 초당 {pace:.1f}건 처리: 약 {done_ko} 후 완료. 워커를 {workers}개"
        f"에서 {helpful}개로 늘리면 5분 안에 끝납니다",
    )
    yield Symptom("too_much_work", what, since=facts.at)


def _stagnant(facts: Facts, history: History) -> Iterator[Symptom]:
    assert facts.vitals is not None
    if not facts.in_line and not facts.running:
        return
    if any(r.state is State.PARSING for r in facts.vitals.running):
        return  # a child's own limits end it
    mark = _progress(facts)
    # A rest without work is no stagnation: its looks do not count.
    first = first_same(
        facts, history, lambda f: _progress(f) == mark and bool(f.in_line or f.running)
    )
    still_s = apart(first, facts)
    if facts.one_off:  # as the runbook's alert has it: a backlog, and ten minutes without any
        stuck = facts.in_line > 50 and not facts.vitals.completions
        still_s = 600.0 if stuck else 0.0
    if still_s < STAGNANT_S:
        return
    what = Saying(
        f"{facts.in_line} in line, {facts.running} in work: no step for {still_s:.0f} s",
        f"대기 {facts.in_line}건, 처리 중 {facts.running}건: {still_s:.0f}초째 진행이 없습니다",
    )
    yield Symptom("unknown_stagnation", what, since=facts.at - still_s)


def _progress(facts: Facts) -> object:
    if facts.vitals is None:
        return None
    ended = facts.completed, facts.counter("jobs_failed")
    return ended, marks(facts.vitals.running)
