"""What people and programs are told of incidents: Slack, signed webhooks, and one log file.

Once per change: opened, a remedy's outcome, handed over, closed, come back. Never per look.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unjam.core.causes import CAUSES
from unjam.core.incident import Incident, IncidentEvent
from unjam.core.ports import IncidentBook, Ledger
from unjam.observe.courier import Translate
from unjam.observe.notify import Message

EXECUTED = "RAG queue auto-recovery executed"
"""Operators' filters in Slack match this sentence."""

DETECTED = "RAG queue stagnation detected, auto-recovery starting"
LOG_NAME = "rag-auto-recovery.log"
TOLD = frozenset({"done", "failed", "refused"})


@dataclass(frozen=True, slots=True)
class IncidentTape:
    """Incident events, as a courier reads them; bookmarks stay with the ledger."""

    ledger: Ledger
    book: IncidentBook

    async def bookmark(self, name: str) -> int | None:
        return await self.ledger.bookmark(name)

    async def set_bookmark(self, name: str, seq: int) -> None:
        await self.ledger.set_bookmark(name, seq)

    async def last_event(self) -> int:
        return await self.book.last_incident_event()

    async def events(
        self, document_id: str | None, after: int = 0, limit: int = 200
    ) -> list[IncidentEvent]:
        del document_id
        return await self.book.incident_events(None, after, limit)


def incident_messages(
    book: IncidentBook, ledger_id: str, lang: str = "en"
) -> Translate[IncidentEvent]:
    """Events of incidents as messages: *data* for programs, *text* for people."""

    async def translate(event: IncidentEvent) -> Message | None:
        if event.kind == "sample":
            return None
        if event.kind == "action" and event.data.get("outcome") not in TOLD:
            return None
        incident = await book.incident(event.incident_id)
        data: dict[str, Any] = {
            "incident_id": incident.id,
            "cause": incident.cause,
            "subject": incident.subject,
            "severity": incident.severity,
            "title": title_of(incident, lang),
            "started_at": _rfc3339(incident.started_at),
            "evidence": [s.said_in(lang) for s in incident.evidence],
        }
        if event.kind == "action":
            data |= {
                "remedy": event.data["remedy"],
                "outcome": event.data["outcome"],
                "detail": event.data.get("ko" if lang == "ko" else "en", ""),
            }
        text = slack_text(incident, event, lang)
        kind = f"incident.{event.kind}"
        return Message(f"inc_{ledger_id[:8]}_{event.seq}", kind, event.at, data, text)

    return translate


def title_of(incident: Incident, lang: str) -> str:
    cause = CAUSES.get(incident.cause)
    title = cause.said_in("title", lang) if cause else incident.cause
    return f"{title} ({incident.subject})" if incident.subject else title


def slack_text(incident: Incident, event: IncidentEvent, lang: str) -> str:
    """One message in Slack's mrkdwn, which takes &, < and > as its own."""
    ko = lang == "ko"
    title = _plain(title_of(incident, lang))
    head = f"#{incident.id} *{title}*"
    match event.kind:
        case "opened" | "reopened":
            mark = {"critical": ":red_circle:", "warning": ":large_orange_circle:"}
            word = {"opened": ("noticed", "감지"), "reopened": ("is back", "재발")}[event.kind][ko]
            lines = [f"{mark.get(incident.severity, ':information_source:')} {head} – {word}"]
            lines += [f"• {_plain(s.said_in(lang))}" for s in incident.evidence[:3]]
        case "action":
            outcome = str(event.data["outcome"])
            detail = str(event.data.get("ko" if ko else "en", ""))
            said = {"done": ("done", "완료"), "failed": ("failed", "실패")}
            word = said.get(outcome, ("not ours to do", "직접 조치 필요"))[ko]
            sentence = EXECUTED if outcome != "refused" else ("remedy refused", "조치 보류")[ko]
            lines = [f":wrench: {head} – {sentence}", f"• {_plain(detail)} – {word}"]
        case "handed_over":
            word = ("a person is needed", "사람의 조치가 필요합니다")[ko]
            lines = [f":raised_hand: {head} – {word}"]
            cause = CAUSES.get(incident.cause)
            if cause is not None:
                lines.append(f"• {_plain(cause.said_in('advice', lang))} `{cause.command}`")
        case _:
            minutes = max(0.0, (incident.closed_at or event.at) - incident.started_at) / 60
            word = (f"over after {minutes:.1f} min", f"{minutes:.1f}분 만에 종료")[ko]
            lines = [f":white_check_mark: {head} – {word}"]
    return "\n".join([*lines, f"`unjam postmortem {incident.id}`"])


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").strip()


def _rfc3339(at: float) -> str:
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def recovery_log(log_dir: Path) -> Callable[[Incident, str, str], None]:
    """Appends a line per change to ``rag-auto-recovery.log``; a full disk costs lines only."""
    file = log_dir / LOG_NAME

    def write(incident: Incident, what: str, detail: str) -> None:
        level = "INFO"
        if what in ("opened", "reopened", "begun"):
            sentence = DETECTED
        elif what == "refused":
            sentence, level = "RAG queue auto-recovery has nothing that it may touch", "WARNING"
        elif what in TOLD:
            sentence = EXECUTED
            level = "INFO" if what == "done" else "WARNING"
        elif what == "handed_over":
            sentence, level = "RAG queue auto-recovery needs a person", "WARNING"
        else:
            sentence = "RAG queue recovered"
        subject = f" subject={incident.subject}" if incident.subject else ""
        line = (
            f"{_rfc3339(time.time())} {level}: {sentence} incident={incident.id} "
            f"cause={incident.cause}{subject} change={what}"
        )
        if detail:
            line += f' detail="{" ".join(detail.split())[:300]}"'
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "a") as out:
                out.write(line + "\n")

    return write
