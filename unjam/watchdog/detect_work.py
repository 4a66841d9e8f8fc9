"""Symptoms of those who work and of what is in line: workers, lanes, documents, users."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from math import ceil

from unjam.core.document import State
from unjam.core.incident import Saying
from unjam.core.vitals import Running, Standing, WorkerDeath
from unjam.queue.lanes import DEAD, LARGE
from unjam.watchdog.facts import Facts, History, Process
from unjam.watchdog.symptom import Symptom, apart, began, lasted, size, span, within

GRACE_S = 20.0
"""A house that has just begun: a worker boots in 1–2 s, on a starved host in ten times that."""

NONE_S = 3.0
"""The supervisor replaces a dead worker within a second: two looks without any, nobody does."""

LOOP_DEATHS = 3
LOOP_S = 60.0
"""Deaths at three moments within a minute. One is a restart, two may be a deploy."""

HUNG_S = 90.0
"""Nothing at all of what a live worker holds moved for so long, while others move: thrice the
time-out of a vector store call (``core.lease.UPSERT_TIMEOUT_S``), the longest single wait."""

STAGNANT_S = 60.0
"""Work in line or in hand, nothing in the way, and not one step of any document for so long."""

UNSERVED_S = 8.0
"""Workers enter RQ's books anew every 5 s after Redis lost them."""

MEMORY_SHARE = 0.05
MEMORY_LEAST = 268_435_456
"""Available memory under 5 % of all, and at least 256 MiB (a parsing child's smallest cap): the
kernel reclaims page cache for every allocation by then, and its next step is the OOM killer."""
OOM_S = 60.0

POISON_DEATHS = 2
"""Workers that died alone with the same document in a quiet house (``core.backoff``): one may be
chance, the second one at 10 s distance is the document."""

LINE_OLD_S = 30.0
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
    yield from _workers(facts, history)
    yield from _hung(facts, history)
    yield from _deaths(facts, history)
    yield from _versions(facts)
    yield from _unserved(facts, history)
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

    since = lasted(facts, history, short, 4.0)
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


# -- workers --------------------------------------------------------------------------------
def _nobody(facts: Facts) -> bool:
    if facts.vitals is None or any(p.works and p.frozen for p in facts.processes):
        return False
    return not facts.workers and facts.stock_workers == 0


def _workers(facts: Facts, history: History) -> Iterator[Symptom]:
    begun = any(f.workers for f in history) or facts.one_off
    if not begun and (not history or apart(history[0], facts) < GRACE_S):
        return
    if not begun and facts.in_line == 0:  # `--workers 0`, and nothing to do
        return
    since = lasted(facts, history, _nobody, NONE_S)
    if since is not None:
        what = Saying(
            f"No worker has a heartbeat; {facts.in_line} documents are in line",
            f"살아 있는 워커가 없습니다. 대기 문서 {facts.in_line}건",
        )
        yield Symptom("workers_none", what, since=since)


def _hung(facts: Facts, history: History) -> Iterator[Symptom]:
    for process in facts.processes:
        if process.works and process.frozen:
            stopped = process.state in ("T", "t")
            en = "is stopped (SIGSTOP)" if stopped else f"has been silent for {process.age_s:.0f} s"
            ko = (
                "정지 상태입니다(SIGSTOP)"
                if stopped
                else f"{process.age_s:.0f}초째 응답이 없습니다"
            )
            yield Symptom(
                "workers_hung",
                Saying(
                    f"Process {process.ref.pid} lives and {en}",
                    f"{process.ref.pid}번 프로세스가 {ko}",
                ),
                process.ref.id,
                facts.at - process.age_s,
            )
    for process in facts.workers:
        if not process.frozen:
            yield from _still(process, facts, history)


def _still(process: Process, facts: Facts, history: History) -> Iterator[Symptom]:
    """It beats, holds documents, and none of them moves, while others' do."""
    mine = _held_by(facts, process.ref.id)
    if not mine or any(r.state is State.PARSING for r in mine) or _holding(facts):
        return  # a child may parse for minutes; its own limits end it
    marks = _marks(mine)
    first = _first_same(facts, history, lambda f: _marks(_held_by(f, process.ref.id)) == marks)
    if apart(first, facts) < HUNG_S or facts.completed <= first.completed:
        return
    seconds = apart(first, facts)
    yield Symptom(
        "workers_hung",
        Saying(
            f"Process {process.ref.pid} holds {len(mine)} documents, still for {seconds:.0f} s",
            f"{process.ref.pid}번 프로세스의 문서 {len(mine)}건이 {seconds:.0f}초째 그대로입니다",
        ),
        process.ref.id,
        first.at,
    )


def _held_by(facts: Facts, worker: str) -> tuple[Running, ...]:
    return tuple(r for r in facts.vitals.running if r.worker == worker) if facts.vitals else ()


def _marks(running: tuple[Running, ...]) -> frozenset[tuple[str, int, State, int]]:
    return frozenset((r.document_id, r.token, r.state, r.done) for r in running)


def _first_same(facts: Facts, history: History, same: Callable[[Facts], bool]) -> Facts:
    first = facts
    for look in reversed(history):
        if not same(look):
            break
        first = look
    return first


def _deaths(facts: Facts, history: History) -> Iterator[Symptom]:
    looks = [f for f in (*history, facts) if apart(f, facts) <= LOOP_S and f.vitals]
    moments: dict[str, float] = {}
    exits: dict[str, int] = {}
    told: dict[int, WorkerDeath] = {}
    for f in looks:
        assert f.vitals is not None
        for worker, age_s in f.vitals.died.items():
            moments.setdefault(worker, f.at - age_s)
        for death in f.vitals.deaths:
            if facts.at - death.at <= LOOP_S:
                told[death.seq] = death
                moments.setdefault(str(death.evidence.get("worker")), death.at)
        exits |= f.vitals.exits
    times = sorted(at for at in moments.values() if facts.at - at <= LOOP_S)
    apart_enough = [t for n, t in enumerate(times) if n == 0 or t - times[n - 1] > 1.0]
    if len(apart_enough) >= LOOP_DEATHS:
        how = _how(facts, history, [exits[w] for w in moments if w in exits])
        n = len(times)
        what = Saying(
            f"{n} workers died within {LOOP_S:.0f} s{how.en}",
            f"{LOOP_S:.0f}초 동안 워커 {n}개가 종료되었습니다{how.ko}",
        )
        yield Symptom("workers_crash_looping", what, since=times[0])
    yield from _poison(told.values())


_SIGNALS = {-9: "SIGKILL", -11: "SIGSEGV", -6: "SIGABRT", -7: "SIGBUS", -15: "SIGTERM"}


def _how(facts: Facts, history: History, codes: list[int]) -> Saying:
    before = within(history, facts, LOOP_S)
    if before is not None and facts.host.oom_kills > before.host.oom_kills:
        return Saying(": out of memory (OOM)", ": 메모리 부족(OOM)")
    if not codes:
        return Saying("", "")
    code, _ = Counter(codes).most_common(1)[0]
    if code < 0:
        name = _SIGNALS.get(code, f"signal {-code}")
        return Saying(f": {name}", f": {name}")
    return Saying(
        f": exit code {code} (an exception; see its log)", f": 종료 코드 {code}(예외, 로그 참고)"
    )


def _poison(deaths: Iterable[WorkerDeath]) -> Iterator[Symptom]:
    alone: dict[str, list[WorkerDeath]] = {}
    for death in deaths:
        if death.evidence.get("alone") and not death.evidence.get("others_died"):
            alone.setdefault(death.document_id, []).append(death)
    for document, some in sorted(alone.items()):
        if len(some) >= POISON_DEATHS:
            step = some[-1].evidence.get("step", "")
            what = Saying(
                f"{len(some)} workers died while they held only {document}, at {step}",
                f"{document}만 처리하던 워커 {len(some)}개가 {step} 단계에서 종료되었습니다",
            )
            yield Symptom("poison_document", what, document, some[0].at)


def _versions(facts: Facts) -> Iterator[Symptom]:
    found = Counter(p.ref.version for p in facts.processes if p.beats)
    if len(found) > 1:
        listed = ", ".join(f"{version} × {n}" for version, n in sorted(found.items()))
        yield Symptom("version_mismatch", Saying(listed, listed), since=facts.at)


def _unserved(facts: Facts, history: History) -> Iterator[Symptom]:
    for name, lane in sorted(facts.redis.lanes.items()):
        if name == DEAD or not lane.count or lane.workers:
            continue

        def bad(f: Facts, name: str = name) -> bool:
            there = f.redis.lanes.get(name)
            return there is not None and there.count > 0 and there.workers == 0

        since = lasted(facts, history, bad, UNSERVED_S)
        if since is not None:
            what = Saying(
                f"{lane.count} documents in {name}, and no worker serves it",
                f"{name}에 문서 {lane.count}건이 있으나 담당 워커가 없습니다",
            )
            yield Symptom("lane_unserved", what, name, since)


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
    first = _first_same(
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
    return ended, _marks(facts.vitals.running)


def _holding(facts: Facts) -> bool:
    return bool(facts.vitals) and any(b.holds for b in facts.vitals.breakers.values())
