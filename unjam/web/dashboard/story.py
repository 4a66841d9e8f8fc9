"""A document's story in plain words, from its events: where the time went, and each attempt. Pure.

Events are the ledger's, oldest first; times are Unix seconds, spans seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from unjam.core.breaker import OF_REASON
from unjam.core.document import ENDED, Document
from unjam.core.events import Event, EventKind
from unjam.core.reasons import REASONS
from unjam.web.dashboard.words import STATES, said

MANY = 24
"""Above so many spans the turns of a streamed document (embed, store, embed …) become one."""

_BEGINS = frozenset({EventKind.ACCEPTED, EventKind.UPDATED, EventKind.RETRIED})
_ENDS = frozenset({EventKind.SEARCHABLE, EventKind.DEAD, EventKind.CANCELLED, EventKind.DELETED})
_FREE = frozenset(OF_REASON) | {
    *("worker_died", "worker_unfit", "setup_incomplete", "handed_back", "queue_full")
}
"""Reasons that cost the document none of its attempts."""


@dataclass(frozen=True, slots=True)
class Span:
    """One stretch of time. *label* is a state or a waiting reason; *end* None: it goes on."""

    kind: Literal["wait", "work"]
    label: str
    begin: float
    end: float | None = None

    def took_s(self, now: float) -> float:
        return max(0.0, (self.end if self.end is not None else now) - self.begin)

    def said_in(self, lang: str) -> str:
        if self.label == "streaming":
            return "임베딩·저장" if lang == "ko" else "embedding and storing"
        reason = REASONS.get(self.label) if self.kind == "wait" else None
        if reason is not None:
            return reason.what_in(lang).rstrip(".")
        return said(STATES, self.label, lang)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim by a worker. *tone*: ok, warning, critical, busy."""

    number: int
    at: float
    worker: str
    took_s: float | None
    tone: str
    result: str


@dataclass(frozen=True, slots=True)
class Story:
    spans: Sequence[Span]
    waiting_s: float
    working_s: float
    attempts: Sequence[Attempt]

    @property
    def total_s(self) -> float:
        return self.waiting_s + self.working_s


def tell(document: Document, events: Sequence[Event], now: float, lang: str) -> Story:
    """The story of the document's newest generation."""
    own = [e for e in events if e.generation == document.generation]
    spans = _spans(own)
    if document.state in ENDED and spans and spans[-1].end is None:
        spans[-1] = replace(spans[-1], end=document.updated_at)
    if len(spans) > MANY:
        spans = _merged(spans)
    waiting = sum(s.took_s(now) for s in spans if s.kind == "wait")
    working = sum(s.took_s(now) for s in spans if s.kind == "work")
    return Story(spans, waiting, working, _attempts(own, lang))


def _spans(events: Sequence[Event]) -> list[Span]:
    spans: list[Span] = []

    def go(kind: Literal["wait", "work"], label: str, at: float) -> None:
        if spans and spans[-1].end is None:
            if (spans[-1].kind, spans[-1].label) == (kind, label):
                return
            spans[-1] = replace(spans[-1], end=at)
        spans.append(Span(kind, label, at))

    for event in events:
        if (
            event.kind in _BEGINS
            or event.kind is EventKind.REQUEUED
            or (event.kind is EventKind.QUEUED and not spans)
        ):
            go("wait", "queued", event.at)
        elif event.kind is EventKind.CLAIMED:
            go("work", "parsing", event.at)
        elif event.kind is EventKind.STAGE:
            go("work", str(event.data.get("to", "")), event.at)
        elif event.kind is EventKind.WAITING:
            go("wait", str(event.data.get("reason", "")), event.at)
        elif event.kind in _ENDS and spans and spans[-1].end is None:
            spans[-1] = replace(spans[-1], end=event.at)
    return spans


def _merged(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        if span.label in ("embedding", "storing"):
            span = replace(span, label="streaming")
        if merged and (merged[-1].kind, merged[-1].label) == (span.kind, span.label):
            merged[-1] = replace(merged[-1], end=span.end)
        else:
            merged.append(span)
    return merged


def _attempts(events: Sequence[Event], lang: str) -> list[Attempt]:
    attempts: list[Attempt] = []
    at_work: Event | None = None
    step = "parsing"
    for event in events:
        if event.kind is EventKind.CLAIMED:
            at_work, step = event, "parsing"
            worker = str(event.data.get("worker", ""))
            attempts.append(_open(len(attempts) + 1, event.at, worker, step, lang))
        elif at_work is not None and event.kind is EventKind.STAGE:
            step = str(event.data.get("to", step))
            attempts[-1] = replace(attempts[-1], result=_at_it(step, lang))
        elif at_work is not None:
            ended = _ending(event, step, lang)
            if ended is not None:
                tone, result = ended
                took_s = event.at - at_work.at
                attempts[-1] = replace(attempts[-1], took_s=took_s, tone=tone, result=result)
                at_work = None
    return attempts


def _open(number: int, at: float, worker: str, step: str, lang: str) -> Attempt:
    return Attempt(number, at, worker, None, "busy", _at_it(step, lang))


def _at_it(step: str, lang: str) -> str:
    word = said(STATES, step, lang)
    return f"{word} 단계를 진행하고 있습니다." if lang == "ko" else f"It is {word} now."


def _ending(event: Event, step: str, lang: str) -> tuple[str, str] | None:
    ko = lang == "ko"
    word = said(STATES, step, lang)
    data = event.data
    match event.kind:
        case EventKind.SEARCHABLE:
            n = int(data.get("chunks", 0))
            return "ok", (f"청크 {n:,}개를 검색할 수 있게 했습니다." if ko else _chunks(n))
        case EventKind.WAITING:
            return "warning", _waits(data, word, ko)
        case EventKind.DEAD:
            reason = REASONS.get(str(data.get("reason", "")))
            what = reason.what_in(lang) if reason else str(data.get("reason", ""))
            gave_up = f"{word} 단계에서 중단: {what}" if ko else f"It ended while {word}. {what}"
            return "critical", _with_detail(gave_up, data)
        case EventKind.WORKER_DIED:
            return "warning", (
                f"{word} 중에 워커가 종료되었습니다. 저장된 지점부터 다시 시작합니다."
                if ko
                else f"The worker died while {word}. It goes on from what was stored."
            )
        case EventKind.REQUEUED:
            return "busy", (
                "워커가 종료 요청을 받아 문서를 반납했습니다. 시도 횟수에 포함되지 않습니다."
                if ko
                else "The worker was asked to stop and handed it back. This costs no attempt."
            )
        case EventKind.CANCELLED:
            return "quiet", "사람이 취소했습니다." if ko else "A person cancelled it."
        case EventKind.DELETED:
            return "quiet", "삭제되었습니다." if ko else "It was deleted."
        case EventKind.UPDATED | EventKind.RETRIED:
            return "quiet", "새로 시작되었습니다." if ko else "It was started anew."
        case _:
            return None


def _chunks(n: int) -> str:
    return f"{n:,} chunk{'' if n == 1 else 's'} became searchable."


def _waits(data: Mapping[str, Any], word: str, ko: bool) -> str:
    code = str(data.get("reason", ""))
    reason = REASONS.get(code)
    what = reason.what_in("ko" if ko else "en") if reason else code
    text = f"{word} 중 멈춤: {what}" if ko else f"It stopped while {word}. {what}"
    text = _with_detail(text, data)
    if code in _FREE:
        text += " 시도 횟수에 포함되지 않습니다." if ko else " This costs no attempt."
    return text


def _with_detail(text: str, data: Mapping[str, Any]) -> str:
    detail = str(data.get("detail", "") or "")
    return f"{text} ({detail})" if detail else text
