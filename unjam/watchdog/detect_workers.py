"""Symptoms of those who work: nobody, hung, dying, of another version, serving other lanes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from unjam.core.document import State
from unjam.core.incident import Saying
from unjam.core.vitals import Running, WorkerDeath
from unjam.queue.lanes import DEAD
from unjam.watchdog.facts import Facts, History, Process
from unjam.watchdog.symptom import Symptom, apart, lasted, within

GRACE_S = 20.0
"""A house that has just begun: a worker boots in 1–2 s, on a starved host in ten times that."""

NONE_S = 3.0
"""The supervisor replaces a dead worker within a second: two looks without any, nobody does."""

COMING_S = 10.0
"""Workers that end before their first heartbeat are not missing: either the next one lives, or
they crash in a loop, which is named by then."""

LOOP_DEATHS = 3
LOOP_S = 60.0
"""Deaths at three moments within a minute. One is a restart, two may be a deploy."""

BOOT_S = 0.3
"""Those that end before their first heartbeat follow each other quickly: an interpreter starts and
fails in half a second."""

HUNG_S = 90.0
"""Nothing at all of what a live worker holds moved for so long, while others move: thrice the
time-out of a vector store call (``core.lease.UPSERT_TIMEOUT_S``), the longest single wait."""

HOSTS_NAMED = 3

UNSERVED_S = 3.0
"""As for workers that are missing. (After Redis lost its books workers enter them within 5 s; that
is ``redis_lost_data``, which explains it.)"""

POISON_DEATHS = 2
"""Workers that died alone with the same document in a quiet house (``core.backoff``): one may be
chance, the second one at 10 s distance is the document."""


def detect_workers(facts: Facts, history: History) -> Iterator[Symptom]:
    if facts.vitals is None:
        return
    yield from _workers(facts, history)
    yield from _hung(facts, history)
    yield from _deaths(facts, history)
    yield from _versions(facts)
    yield from _unserved(facts, history)


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
    coming = any(age_s < COMING_S for age_s, _ in _unborn(facts, history).values())
    since = lasted(facts, history, _nobody, COMING_S if coming else NONE_S)
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
    now = marks(mine)
    first = first_same(facts, history, lambda f: marks(_held_by(f, process.ref.id)) == now)
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


def marks(running: tuple[Running, ...]) -> frozenset[tuple[str, int, State, int]]:
    return frozenset((r.document_id, r.token, r.state, r.done) for r in running)


def first_same(facts: Facts, history: History, same: Callable[[Facts], bool]) -> Facts:
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
    unborn = _unborn(facts, history)
    told: dict[int, WorkerDeath] = {}
    for f in looks:
        assert f.vitals is not None
        for worker, age_s in f.vitals.died.items():
            moments.setdefault(worker, f.at - age_s)
        for worker, (age_s, code) in f.vitals.ended.items():
            if worker in unborn:
                moments.setdefault(worker, f.at - age_s)
                exits[worker] = code
        for death in f.vitals.deaths:
            if facts.at - death.at <= LOOP_S:
                told[death.seq] = death
                moments.setdefault(str(death.evidence.get("worker")), death.at)
        exits |= f.vitals.exits
    at_boot = [at for worker, at in moments.items() if worker in unborn]
    times = sorted(at for w, at in moments.items() if w not in unborn and facts.at - at <= LOOP_S)
    moments_of = _moments(times, 1.0) + _moments(sorted(at_boot), BOOT_S)
    times = sorted([*times, *at_boot])
    if moments_of >= LOOP_DEATHS:
        how = _how(facts, history, [exits[w] for w in moments if w in exits])
        n = len(times)
        what = Saying(
            f"{n} workers died within {LOOP_S:.0f} s{how.en}",
            f"{LOOP_S:.0f}초 동안 워커 {n}개가 종료되었습니다{how.ko}",
        )
        yield Symptom("workers_crash_looping", what, since=times[0])
    yield from _poison(told.values())


def _moments(times: Sequence[float], gap_s: float) -> int:
    return sum(n == 0 or t - times[n - 1] > gap_s for n, t in enumerate(times))


_ASKED = (0, -15)
"""Ends that somebody asked for."""


def _unborn(facts: Facts, history: History) -> dict[str, tuple[float, int]]:
    """Workers that ended before their first heartbeat: process id → (age of the end, exit code)."""
    ended = facts.vitals.ended if facts.vitals else {}
    beat = {p.ref.id for f in (*history, facts) for p in f.processes}
    died = {w for f in (*history, facts) if f.vitals for w in f.vitals.died}
    return {w: end for w, end in ended.items() if end[1] not in _ASKED and w not in beat | died}


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
    hosts: dict[str, Counter[str]] = {}
    for p in facts.processes:
        if p.beats:
            hosts.setdefault(p.ref.version, Counter())[p.ref.host.rpartition("-")[0]] += 1
    if len(hosts) > 1:
        listed = "; ".join(f"{version} × {_where(on)}" for version, on in sorted(hosts.items()))
        yield Symptom("version_mismatch", Saying(listed, listed), since=facts.at)


def _where(hosts: Counter[str]) -> str:
    """How many, and on which hosts; of many hosts the first."""
    names = sorted(filter(None, hosts))
    more = ", …" if len(names) > HOSTS_NAMED else ""
    return f"{hosts.total()} ({', '.join(names[:HOSTS_NAMED])}{more})"


def _unserved(facts: Facts, history: History) -> Iterator[Symptom]:
    for name, lane in sorted(facts.redis.lanes.items()):
        if name == DEAD or not lane.count or lane.workers:
            continue
        if not facts.workers and facts.stock_workers == 0:
            continue  # nobody serves any lane, which is another cause, or a house that boots

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


def _holding(facts: Facts) -> bool:
    return bool(facts.vitals) and any(b.holds for b in facts.vitals.breakers.values())
