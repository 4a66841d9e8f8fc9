"""Verdict: is anything wrong, why, what is being done, when will it be over? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from unjam.core.breaker import DEPENDENCIES, Breaker
from unjam.core.causes import CAUSES
from unjam.core.incident import Incident
from unjam.core.reasons import REASONS
from unjam.web.dashboard.board import Snapshot
from unjam.web.dashboard.words import about, count
from unjam.web.health import BEAT_S

Level = Literal["ok", "busy", "warning", "critical", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """*headline* is one sentence; *why* the evidence; *doing* what happens about it by itself;
    *advice* what a person may do; *since* Unix seconds; *over* when it will be over, in words."""

    level: Level
    headline: str
    why: tuple[str, ...] = ()
    doing: str = ""
    advice: str = ""
    command: str = "unjam doctor"
    since: float | None = None
    over: str = ""
    incident: int | None = None


def rank_of(incident: Incident) -> tuple[int, float]:
    """Of two incidents the one of lower rank explains more (``core.causes``)."""
    cause = CAUSES.get(incident.cause)
    return (cause.rank if cause else 99, incident.started_at)


def judge(snap: Snapshot, lang: str) -> Verdict:
    """The worst thing that is known, named by what explains it; else how the work goes."""
    if snap.ledger.stale:
        return _ledger_away(snap, lang)
    incidents = sorted(snap.watch.value.incidents, key=rank_of)
    serious = [i for i in incidents if i.severity != "info"]
    if serious:
        return _of_incident(serious[0], snap, lang)
    held = [b for b in snap.ledger.value.breakers.values() if b.holds and b.name in DEPENDENCIES]
    if held:
        return _of_breaker(min(held, key=lambda b: b.place), snap, lang)
    found = _of_facts(snap, lang)
    if found is not None:
        return found
    if incidents:
        return _of_incident(incidents[0], snap, lang)
    return _in_order(snap, lang)


def _t(lang: str, en: str, ko: str) -> str:
    return ko if lang == "ko" else en


def _ledger_away(snap: Snapshot, lang: str) -> Verdict:
    return Verdict(
        "unknown",
        _t(lang, "The ledger cannot be read", "원장을 읽을 수 없습니다"),
        (snap.ledger.error,),
        _t(
            lang,
            "Figures below are the last that were read. Nothing that was accepted is lost.",
            "아래 수치는 마지막으로 읽은 값입니다. 접수된 문서는 유실되지 않습니다.",
        ),
        since=snap.ledger.at or None,
    )


def _of_incident(incident: Incident, snap: Snapshot, lang: str) -> Verdict:
    cause = CAUSES.get(incident.cause)
    title = cause.said_in("title", lang) if cause else incident.cause
    subject = f" · {incident.subject}" if incident.subject else ""
    last = incident.actions[-1].detail.said_in(lang) if incident.actions else ""
    repair = cause.said_in("repair", lang) if cause else ""
    if snap.watch.value.paused:
        doing = _t(
            lang,
            "Remedies are paused by a person: the watchdog looks on and does nothing.",
            "복구 조치가 일시 중지되어 있어 워치독은 지켜보기만 합니다.",
        )
    else:
        doing = last or repair
    level: Level = "busy" if incident.severity == "info" else incident.severity
    handed = incident.state == "handed_over"
    over = "" if handed else _over(snap, lang)
    return Verdict(
        level,
        title + subject,
        tuple(e.said_in(lang) for e in incident.evidence),
        doing,
        cause.said_in("advice", lang) if cause else "",
        cause.command if cause else "unjam doctor",
        incident.started_at,
        over,
        incident.id,
    )


def _of_breaker(held: Breaker, snap: Snapshot, lang: str) -> Verdict:
    reason = REASONS.get(held.reason)
    hint = reason.hint_in(lang) if reason else ""
    return Verdict(
        "warning",
        reason.what_in(lang).rstrip(".") if reason else held.reason,
        (held.detail,) if held.detail else (),
        _t(
            lang,
            "Documents wait and lose nothing; it is asked again every few seconds.",
            "문서는 손실 없이 대기하며, 몇 초마다 다시 확인합니다.",
        ),
        hint,
        since=held.changed_at or None,
    )


def _of_facts(snap: Snapshot, lang: str) -> Verdict | None:
    facts = snap.ledger.value
    if facts.equation.missing:
        return Verdict(
            "critical",
            _t(lang, "Documents are missing", "유실된 문서가 있습니다"),
            (
                _t(
                    lang,
                    f"{count(facts.equation.missing)} accepted or searchable documents are not "
                    "where they should be.",
                    f"{count(facts.equation.missing)}건이 있어야 할 곳에 없습니다.",
                ),
            ),
            command="unjam doctor",
        )
    workers = live_workers(snap)
    line = facts.equation.queued + facts.equation.running
    if not workers:
        return Verdict(
            "critical" if line else "warning",
            _t(lang, "No worker is running", "실행 중인 워커가 없습니다"),
            (
                _t(
                    lang,
                    f"No worker has sent a heartbeat for {BEAT_S:.0f} s.",
                    f"{BEAT_S:.0f}초 동안 하트비트를 보낸 워커가 없습니다.",
                ),
            ),
            _t(lang, "Documents are taken and wait.", "문서는 접수되어 대기합니다."),
            _t(
                lang,
                "Start one: unjam up, or unjam worker.",
                "unjam up 또는 unjam worker로 시작하세요.",
            ),
            "unjam worker",
        )
    if snap.lanes.stale:
        return Verdict(
            "warning",
            _t(lang, "Redis cannot be asked", "Redis에 물어볼 수 없습니다"),
            (snap.lanes.error,),
            _t(
                lang,
                "The ledger's figures are live; those of the queue are the last known.",
                "원장 수치는 실시간이고, 큐 수치는 마지막으로 확인된 값입니다.",
            ),
            since=snap.lanes.at or None,
        )
    return None


def _in_order(snap: Snapshot, lang: str) -> Verdict:
    equation = snap.ledger.value.equation
    line = equation.queued + equation.running
    parked = _parked(equation.dead, lang)
    if line:
        headline = _t(
            lang,
            f"Work is moving: {count(line)} to go",
            f"정상 처리 중: {count(line)}건 남음",
        )
        return Verdict("busy", headline, parked, command="unjam status", over=_over(snap, lang))
    if equation.waiting:
        headline = _t(
            lang,
            f"{count(equation.waiting)} documents wait for their next step",
            f"문서 {count(equation.waiting)}건이 다음 단계를 기다립니다",
        )
        return Verdict("busy", headline, parked, command="unjam status")
    if equation.accepted == 0:
        headline = _t(lang, "Ready for the first document", "첫 문서를 기다리고 있습니다")
        return Verdict("ok", headline, command="unjam add FILE")
    headline = _t(lang, "All is well; nothing waits", "이상 없음, 대기 중인 문서가 없습니다")
    return Verdict("ok", headline, parked, command="unjam status")


def _parked(dead: int, lang: str) -> tuple[str, ...]:
    if not dead:
        return ()
    return (
        _t(
            lang,
            f"{count(dead)} dead letters are parked and wait for a decision.",
            f"데드레터 {count(dead)}건이 판단을 기다립니다.",
        ),
    )


def _over(snap: Snapshot, lang: str) -> str:
    return about(snap.line_s, lang)


def live_workers(snap: Snapshot) -> int:
    """Processes that can work and beat lately."""
    return sum(
        1
        for ref, age_s in snap.ledger.value.processes
        if ref.kind in ("worker", "stock") and age_s < BEAT_S
    )


def level_word(level: Level, lang: str) -> str:
    """Never colour alone: the level in one word."""
    words: Mapping[Level, tuple[str, str]] = {
        "ok": ("All well", "정상"),
        "busy": ("Moving", "가동 중"),
        "warning": ("Attention", "주의"),
        "critical": ("Trouble", "장애"),
        "unknown": ("Unknown", "확인 불가"),
    }
    return words[level][lang == "ko"]
