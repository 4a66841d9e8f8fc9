"""Verify: the runbook's checklist after a recovery, judged from looks. Pure.

Windows of 2, 10 and 30 minutes, each with the checks of the runbook; besides, what must hold at
every moment: the ledger equation, and a canary document that becomes searchable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unjam.core.incident import Saying
from unjam.core.ports import Equation
from unjam.watchdog.facts import Facts

Level = Literal["ok", "warning", "critical", "unknown"]

WINDOWS_MIN = (2, 10, 30)
MEMORY_MOST = 0.8
"""The runbook's bound of memory in use."""

THROUGHPUT_S = 600.0
"""The runbook counts the jobs of the last ten minutes."""

_RANK: dict[Level, int] = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}


@dataclass(frozen=True, slots=True)
class Check:
    """*minutes*: the window it belongs to; 0: of every moment."""

    minutes: int
    code: str
    level: Level
    said: Saying


@dataclass(frozen=True, slots=True)
class Canary:
    """A document of our own: added, found by its unique token, deleted. *seconds* until found."""

    found: bool
    seconds: float = 0.0
    detail: str = ""
    asked: bool = True  # False: nobody answered, so nobody can tell


def verdict(checks: Sequence[Check]) -> Level:
    """Critical is worse than not knowing; not knowing is worse than a warning."""
    levels = {c.level for c in checks}
    for level in ("critical", "unknown", "warning"):
        if level in levels:
            return level
    return "ok"


def exit_code(checks: Sequence[Check]) -> int:
    """0 ok, 1 warning, 2 critical, 3 could not tell."""
    return _RANK[verdict(checks)]


def judge(minutes: int, looks: Sequence[Facts]) -> list[Check]:
    """The checks of the window *minutes* (2, 10 or 30) over the looks within it, oldest first."""
    if not looks or looks[-1].vitals is None or looks[0].vitals is None:
        said = Saying("the ledger does not answer", "원장이 응답하지 않습니다")
        return [Check(minutes, "ledger", "unknown", said)]
    first, last = looks[0], looks[-1]
    if minutes == 2:
        return [_workers(last), _shrinking(2, first, last), _started(first, last)]
    if minutes == 10:
        return [
            _shrinking(10, first, last),
            _stable(first, last),
            _errors(looks),
            _memory(last),
        ]
    return [_throughput(last), _mean_time(last)]


def _workers(last: Facts) -> Check:
    count = max(len(last.workers), last.rq_workers)
    level: Level = "ok" if count else "critical"
    return Check(2, "workers", level, Saying(f"{count} workers live", f"활성 워커 {count}개"))


def _shrinking(minutes: int, first: Facts, last: Facts) -> Check:
    done = int(last.completed - first.completed)
    text = f"in line {first.in_line} → {last.in_line}, {done} became searchable"
    ko = f"대기 {first.in_line} → {last.in_line}, 완료 {done}건"
    if last.in_line == 0 or last.in_line < first.in_line:
        level: Level = "ok"
    elif last.paused_lanes:
        level, text = "warning", f"{text}; paused: {', '.join(last.paused_lanes)}"
        ko = f"{ko}; 일시 정지: {', '.join(last.paused_lanes)}"
    else:
        level = "warning" if done or last.running else "critical"
    return Check(minutes, "queue_shrinks", level, Saying(text, ko))


def _started(first: Facts, last: Facts) -> Check:
    begun = int(last.counter("jobs_started") - first.counter("jobs_started"))
    if begun:
        level: Level = "ok"
    elif last.in_line == 0 and last.running == 0:
        said = Saying("nothing waits to be started", "시작을 기다리는 문서가 없습니다")
        return Check(2, "work_starts", "ok", said)
    else:
        level = "warning" if last.running else "critical"
    return Check(
        2, "work_starts", level, Saying(f"{begun} documents begun", f"새로 시작한 문서 {begun}건")
    )


def _stable(first: Facts, last: Facts) -> Check:
    before = {p.ref.id: p.ref.pid for p in first.workers}
    now = {p.ref.id for p in last.workers}
    gone = sorted(str(pid) for id_, pid in before.items() if id_ not in now)
    if not gone:
        count = len(before)
        said = Saying(f"the same {count} processes", f"같은 프로세스 {count}개가 유지됩니다")
        return Check(10, "processes_stable", "ok", said)
    which = ", ".join(gone)
    said = Saying(f"ended meanwhile: pid {which}", f"그사이 종료된 pid: {which}")
    return Check(10, "processes_stable", "warning", said)


def _troubles(facts: Facts) -> float:
    """Dead letters and failed calls since the ledger began."""
    return facts.counter("jobs_failed") + facts.counter("vector_store_errors")


def _errors(looks: Sequence[Facts]) -> Check:
    """None in the last third of the window; what an outage left behind may have come before."""
    last = looks[-1]
    late = looks[len(looks) * 2 // 3]
    fresh, whole = _troubles(last) - _troubles(late), _troubles(last) - _troubles(looks[0])
    text = f"{whole:.0f} errors in the window, {fresh:.0f} of them lately"
    ko = f"구간 내 오류 {whole:.0f}건, 최근 {fresh:.0f}건"
    return Check(10, "errors_end", "warning" if fresh > 0 else "ok", Saying(text, ko))


def _memory(last: Facts) -> Check:
    total = last.host.memory_bytes
    if total <= 0:
        said = Saying("memory could not be read", "메모리를 읽을 수 없습니다")
        return Check(10, "memory", "unknown", said)
    used = 1.0 - last.host.memory_free_bytes / total
    level: Level = "ok" if used < MEMORY_MOST else "warning"
    return Check(10, "memory", level, Saying(f"{used:.0%} in use", f"사용률 {used:.0%}"))


def _lately(last: Facts) -> tuple[int, float]:
    """(Documents, seconds of work) of the last ten minutes."""
    vitals = last.vitals
    assert vitals is not None
    since = (last.at - THROUGHPUT_S) // 60
    rows = [row for row in vitals.completions if row.minute >= since]
    return sum(row.jobs for row in rows), sum(row.duration_s for row in rows)


def _throughput(last: Facts) -> Check:
    jobs, _ = _lately(last)
    idle = last.in_line == 0 and last.running == 0
    level: Level = "ok" if jobs or idle else "critical"
    text = f"{jobs} documents in the last 10 minutes"
    return Check(30, "throughput", level, Saying(text, f"최근 10분 처리 {jobs}건"))


def _mean_time(last: Facts) -> Check:
    jobs, seconds = _lately(last)
    if not jobs:
        said = Saying("nothing was processed lately", "최근 처리한 문서가 없습니다")
        return Check(30, "processing_time", "ok", said)
    mean_ms = round(1000 * seconds / jobs)
    return Check(30, "processing_time", "ok", Saying(f"Avg: {mean_ms}ms", f"평균 {mean_ms}ms"))


# -- of every moment ------------------------------------------------------------------------
def judge_equation(equation: Equation | None) -> Check:
    """accepted = the sum of all states + missing, and missing = 0."""
    if equation is None:
        said = Saying("the ledger does not answer", "원장이 응답하지 않습니다")
        return Check(0, "equation", "unknown", said)
    e = equation
    parts = (e.searchable, e.running, e.queued, e.waiting, e.dead, e.cancelled, e.deleted)
    total = sum(parts) + e.missing
    holds = total == e.accepted
    text = f"accepted {e.accepted} = {total}, missing {e.missing}"
    ko = f"접수 {e.accepted} = {total}, 누락 {e.missing}"
    level: Level = "critical" if not holds else "ok" if e.missing == 0 else "warning"
    return Check(0, "equation", level, Saying(text, ko))


def judge_canary(canary: Canary) -> Check:
    if not canary.asked:
        level: Level = "unknown"
    else:
        level = "ok" if canary.found else "critical"
    if canary.found:
        said = Saying(
            f"searchable after {canary.seconds:.1f} s", f"{canary.seconds:.1f}초 만에 검색 가능"
        )
    else:
        said = Saying(canary.detail, canary.detail)
    return Check(0, "canary", level, said)
