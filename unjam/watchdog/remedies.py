"""Remedies: what may be done about a cause, in which order, how often. Pure: a table and a choice.

Each is bounded (law 12): a limit per hour over all incidents, a time by which the facts must be
better, and at most three in one incident; then a person is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from unjam.core.incident import Action, Incident, Saying


@dataclass(frozen=True, slots=True)
class Remedy:
    """*verify_s*: by then the cause must be gone, else the next remedy's turn comes. *back*: how
    it is taken back."""

    code: str
    title: Saying
    verify_s: float
    per_hour: int
    back: Saying


def _remedy(
    code: str, verify_s: float, per_hour: int, title: str, ko: str, back: str, back_ko: str
) -> Remedy:
    return Remedy(code, Saying(title, ko), verify_s, per_hour, Saying(back, back_ko))


_NOTHING = (
    "Nothing to take back: no document is lost.",
    "되돌릴 것이 없습니다. 문서는 그대로입니다.",
)

REMEDIES: Mapping[str, Remedy] = {
    r.code: r
    for r in (
        _remedy(
            "restart_worker",
            30.0,
            6,
            "Restart the worker that hangs (drain, then kill)",
            "멈춘 워커를 다시 시작합니다(정리 후 종료)",
            *_NOTHING,
        ),
        _remedy(
            "start_worker",
            20.0,
            3,
            "Start workers",
            "워커를 시작합니다",
            "Stop `unjam up`, or start it with fewer --workers.",
            "`unjam up`을 멈추거나 --workers를 줄여 다시 시작하세요.",
        ),
        _remedy(
            "restart_redis",
            20.0,
            3,
            "Restart our Redis that hangs",
            "멈춘 내장 Redis를 다시 시작합니다",
            *_NOTHING,
        ),
        _remedy(
            "restart_chroma",
            40.0,
            3,
            "Restart our Chroma that hangs",
            "멈춘 내장 Chroma를 다시 시작합니다",
            *_NOTHING,
        ),
        _remedy(
            "redis_noeviction",
            10.0,
            6,
            "Put maxmemory-policy back to noeviction",
            "maxmemory-policy를 noeviction으로 되돌립니다",
            "CONFIG SET maxmemory-policy, with the value that the action names.",
            "조치에 적힌 이전 값으로 CONFIG SET maxmemory-policy를 실행하세요.",
        ),
        _remedy(
            "redis_appendonly",
            10.0,
            6,
            "Turn the append-only file on",
            "AOF(appendonly)를 켭니다",
            "CONFIG SET appendonly no",
            "CONFIG SET appendonly no",
        ),
        _remedy(
            "audit_everything",
            30.0,
            6,
            "Compare every waiting document with the lanes, and ring again",
            "대기 중인 모든 문서를 큐와 대조하고 다시 넣습니다",
            *_NOTHING,
        ),
        _remedy(
            "separate_large",
            60.0,
            4,
            "Move large documents to their own lane",
            "대형 문서를 전용 큐로 옮깁니다",
            "unjam queue prioritize brings them back.",
            "unjam queue prioritize로 되돌릴 수 있습니다.",
        ),
        _remedy(
            "fair_order",
            60.0,
            4,
            "Serve users in turn",
            "사용자별로 번갈아 처리합니다",
            "unjam queue reorder oldest_first",
            "unjam queue reorder oldest_first",
        ),
        _remedy(
            "lower_load",
            60.0,
            4,
            "Fewer documents at once, smaller batches",
            "동시 처리 문서 수와 배치 크기를 줄입니다",
            "Put back by itself when it is over.",
            "상황이 끝나면 자동으로 되돌립니다.",
        ),
        _remedy(
            "drain_old_workers",
            60.0,
            6,
            "Drain workers of an older version; their supervisor starts them anew",
            "버전이 더 낮은 워커를 비우고 새 버전으로 다시 시작합니다",
            *_NOTHING,
        ),
    )
}

LADDERS: Mapping[str, tuple[str, ...]] = {
    "workers_hung": ("restart_worker", "restart_worker", "restart_worker"),
    "workers_none": ("start_worker", "start_worker"),
    "redis_down": ("restart_redis", "restart_redis"),
    "redis_unsafe:policy": ("redis_noeviction", "redis_noeviction"),
    "redis_unsafe:aof": ("redis_appendonly", "redis_appendonly"),
    "redis_unsafe:eviction": ("audit_everything",),
    "redis_lost_data": ("audit_everything",),
    "chroma_down": ("restart_chroma", "restart_chroma"),
    "chroma_refuses_writes": ("restart_chroma",),
    "large_documents_block": ("separate_large",),
    "user_flood": ("fair_order",),
    "memory_short": ("lower_load", "lower_load", "lower_load"),
    "version_mismatch": ("drain_old_workers",),
    "unknown_stagnation": ("audit_everything", "restart_worker", "restart_worker"),
}
"""Cause, or ``cause:subject``, → what is tried, in order. Causes that are absent heal by themselves
(breakers, budgets, the reconciler, the governor), or only a person can help."""

FIRST_AFTER_S: Mapping[str, float] = {
    "redis_down": 6.0,  # a restart that somebody else began is over by then
    "chroma_down": 10.0,  # it is slow to come up
    "chroma_refuses_writes": 20.0,
    "version_mismatch": 300.0,  # each host is updated in turn, which drains its workers anyway
    "workers_none": 4.0,  # a supervisor of ours brings them back within a second or two
}
"""Seconds after it was noticed that a cause gets to heal by itself."""

PATIENCE_S = 60.0
"""Without a remedy a person is told after this long."""

PATIENT: Mapping[str, float] = {
    "embedding_throttled": 900.0,  # the governor is at it, and documents only wait
    "embedding_slow": 900.0,
    "chroma_slow": 600.0,
    "redis_slow": 600.0,
    "redis_lost_data": 300.0,
    "chroma_index_short": 600.0,  # vectors come back from the cache in slices
    "poison_document": 600.0,  # parked with evidence after its third death
    "lane_unserved": 120.0,
    "large_documents_block": 900.0,
    "user_flood": 3600.0,
    "disk_full": 5.0,  # nothing here frees a disk
    "embedding_key_bad": 5.0,
    "embedding_quota": 30.0,
    "redis_wrong_database": 5.0,
    "stopped_by_person": 600.0,
    "version_mismatch": 900.0,  # an update of many hosts, one after the other
}
"""The same, where it is known to take longer, or to be in vain."""

MOST_TRIES = 3
"""After three remedies that did not help a person is told (law 12)."""

UNANSWERED_S = 90.0
"""An action that was asked for and never answered (its watchdog died) counts as failed."""

Verdict = Literal["wait", "act", "hand_over"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What comes next for an incident; *why* tells a person."""

    verdict: Verdict
    remedy: Remedy | None = None
    why: str = ""


def ladder_of(cause: str, subject: str) -> tuple[str, ...]:
    return LADDERS.get(f"{cause}:{subject}") or LADDERS.get(cause, ())


def choose(incident: Incident, now: float) -> Choice:
    """The next remedy for an incident whose cause is still there at *now* (Unix seconds)."""
    ladder = ladder_of(incident.cause, incident.subject)
    tries = [a for a in incident.actions if a.outcome in ("done", "failed", "refused")]
    begun = sum(a.outcome == "asked" for a in incident.actions)
    under_way = _under_way(incident, now)
    if under_way is not None:
        return Choice("wait", REMEDIES.get(under_way.remedy), "under way")
    if incident.state == "handed_over":
        return Choice("wait", None, "a person has it")
    last = tries[-1] if tries else None
    if last is not None and last.outcome == "done":
        known = REMEDIES.get(last.remedy)
        if known is not None and now - last.at < known.verify_s:
            return Choice("wait", known, "to be verified")
    refused = sum(a.outcome == "refused" for a in tries)
    if begun - refused >= MOST_TRIES or (ladder and begun >= len(ladder)):
        if refused == begun:  # nothing here that we may touch
            return _patience(incident, now)
        return Choice("hand_over", None, "the remedies did not help")
    if not ladder:
        return _patience(incident, now)
    if not begun and now - incident.noticed_at < FIRST_AFTER_S.get(incident.cause, 0.0):
        return Choice("wait", REMEDIES[ladder[0]], "it may heal by itself")
    return Choice("act", REMEDIES[ladder[begun]])


def _under_way(incident: Incident, now: float) -> Action | None:
    """The last action, when it was begun and has no answer yet."""
    real = [a for a in incident.actions if a.outcome != "planned"]
    last = real[-1] if real else None
    if last is None or last.outcome != "asked" or now - last.at > UNANSWERED_S:
        return None
    return last


def _patience(incident: Incident, now: float) -> Choice:
    if incident.severity == "info":
        return Choice("wait", None, "nothing to be done")
    patience_s = PATIENT.get(incident.cause, PATIENCE_S)
    if now - incident.noticed_at < patience_s:
        return Choice("wait", None, "it may heal by itself")
    return Choice("hand_over", None, "no remedy")
