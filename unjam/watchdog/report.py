"""The post-mortem of an incident: eight fields, timeline, actions, chart. Pure: texts out of facts.

Field names are those of the runbook's template, and stay as they are in every language.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from unjam.core.causes import CAUSES
from unjam.core.incident import Incident, IncidentEvent

FIELDS = (
    "stagnation_start_time",
    "duration_minutes",
    "max_queue_length",
    "affected_users",
    "failed_jobs",
    "root_cause",
    "solution_applied",
    "prevention_measures",
)

_LABELS_KO = {
    "stagnation_start_time": "정체 발생 시각",
    "duration_minutes": "정체 지속 시간(분)",
    "max_queue_length": "최대 큐 길이",
    "affected_users": "영향받은 사용자 수",
    "failed_jobs": "실패한 작업 수",
    "root_cause": "근본 원인",
    "solution_applied": "적용한 해결책",
    "prevention_measures": "재발 방지 조치",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the timeline. *at*: RFC 3339 UTC."""

    at: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """The eight fields first. *points*: (seconds since the start, in line, made searchable)."""

    stagnation_start_time: str
    duration_minutes: float
    max_queue_length: int
    affected_users: int
    failed_jobs: int
    root_cause: str
    solution_applied: str
    prevention_measures: str
    affected_anonymous: int
    incident_id: int
    state: str
    severity: str
    noticed_after_s: float
    local_start_time: str
    evidence: tuple[str, ...]
    effects: tuple[str, ...]
    timeline: tuple[Line, ...]
    points: tuple[tuple[float, int, int], ...]
    lang: str


def make_report(
    incident: Incident,
    events: Sequence[IncidentEvent],
    now: float,
    *,
    lang: str = "en",
    zone: tzinfo | None = None,
) -> Report:
    """Of an open incident: as far as it has come at *now* (Unix seconds)."""
    end = incident.closed_at or now
    cause = CAUSES.get(incident.cause)
    title = cause.said_in("title", lang) if cause else incident.cause
    meaning = cause.said_in("meaning", lang) if cause else ""
    subject = f" ({incident.subject})" if incident.subject else ""
    first = min((e.data["completed"] for e in events if e.kind == "sample"), default=0)
    return Report(
        stagnation_start_time=_rfc3339(incident.started_at),
        duration_minutes=round(max(0.0, end - incident.started_at) / 60, 1),
        max_queue_length=incident.max_queue_length,
        affected_users=incident.affected_users,
        failed_jobs=incident.failed_jobs,
        root_cause=f"{incident.cause}: {title}{subject}. {meaning}".strip(),
        solution_applied=_solution(incident, lang),
        prevention_measures=cause.said_in("advice", lang) if cause else "",
        affected_anonymous=incident.affected_anonymous,
        incident_id=incident.id,
        state=incident.state,
        severity=incident.severity,
        noticed_after_s=round(max(0.0, incident.noticed_at - incident.started_at), 1),
        local_start_time=_local(incident.started_at, zone),
        evidence=tuple(s.said_in(lang) for s in incident.evidence),
        effects=incident.effects,
        timeline=_timeline(incident, events, lang),
        points=tuple(
            (e.at - incident.started_at, int(e.data["queue"]), int(e.data["completed"]) - first)
            for e in events
            if e.kind == "sample"
        ),
        lang=lang,
    )


def _solution(incident: Incident, lang: str) -> str:
    """What was done, each once, with how often and what came of it; else what healed it."""
    ko = lang == "ko"
    done = [a for a in incident.actions if a.outcome in ("done", "failed", "refused")]
    if done:
        words = {"done": ("done", "완료"), "failed": ("failed", "실패")}
        said = [
            f"{a.detail.said_in(lang)} ({words.get(a.outcome, ('refused', '보류'))[ko]}, {a.by})"
            for a in done
        ]
        counted = dict.fromkeys(said)
        return "; ".join(f"{s} ×{said.count(s)}" if said.count(s) > 1 else s for s in counted)
    cause = CAUSES.get(incident.cause)
    by_itself = cause.said_in("repair", lang) if cause else ""
    if incident.state == "closed":
        healed = ("It healed without a remedy. ", "별도 조치 없이 회복되었습니다. ")[ko]
        return (healed + by_itself).strip()
    return by_itself or ("Nothing yet.", "아직 없습니다.")[ko]


def _timeline(incident: Incident, events: Sequence[IncidentEvent], lang: str) -> tuple[Line, ...]:
    ko = lang == "ko"
    began = ("First sign", "첫 징후")[ko]
    lines = [Line(_rfc3339(incident.started_at), "started", began)]
    words = {
        "opened": ("Noticed", "감지"),
        "reopened": ("It came back", "재발"),
        "handed_over": ("Handed over to a person", "사람에게 인계"),
        "closed": ("Over", "종료"),
    }
    outcomes = {
        "planned": ("would be done", "예정"),
        "asked": ("begun", "시작"),
        "done": ("done", "완료"),
        "failed": ("failed", "실패"),
        "refused": ("refused", "보류"),
    }
    for event in events:
        if event.kind == "sample":
            continue
        if event.kind == "action":
            outcome = outcomes.get(str(event.data["outcome"]), ("?", "?"))[ko]
            detail = str(event.data.get("ko" if ko else "en", ""))
            text = f"{event.data['remedy']} – {outcome}: {detail} ({event.data.get('by', '')})"
        else:
            text = words[event.kind][ko]
        lines.append(Line(_rfc3339(event.at), event.kind, text))
    return tuple(lines)


# -- formats --------------------------------------------------------------------------------
def as_json(report: Report) -> str:
    return json.dumps(_plain(report), ensure_ascii=False, indent=2) + "\n"


def _plain(report: Report) -> dict[str, Any]:
    return asdict(report)


def _rows(report: Report) -> list[tuple[str, str, str]]:
    """(Field, label, value)"""
    ko = report.lang == "ko"
    values = _plain(report)
    rows: list[tuple[str, str, str]] = []
    for name in FIELDS:
        value = str(values[name])
        if name == "stagnation_start_time" and report.local_start_time:
            value += f" ({report.local_start_time})"
        if name == "affected_users" and report.affected_anonymous:
            n = report.affected_anonymous
            value += f" (+{n} 익명 문서)" if ko else f" (+{n} anonymous documents)"
        rows.append((name, _LABELS_KO[name] if ko else name.replace("_", " "), value or "–"))
    return rows


def as_markdown(report: Report) -> str:
    ko = report.lang == "ko"
    title = "사후 분석 보고서" if ko else "Post-mortem"
    heads = ("항목", "값") if ko else ("Field", "Value")
    lines = [f"# {title}: #{report.incident_id}", ""]
    lines += [f"| {heads[0]} | {heads[1]} |", "|---|---|"]
    for name, label, value in _rows(report):
        shown = f"{label} `{name}`" if ko else f"`{name}`"
        lines.append(f"| {shown} | {_cell(value)} |")
    lines += ["", f"## {'증거' if ko else 'Evidence'}", ""]
    lines += [f"- {_inline(text)}" for text in report.evidence] or ["–"]
    if report.effects:
        effects = ", ".join(f"`{e}`" for e in report.effects)
        lines += ["", f"{'함께 나타난 현상' if ko else 'What it explains'}: {effects}"]
    lines += ["", f"## {'경과' if ko else 'Timeline'}", ""]
    lines += [f"- {line.at} – {_inline(line.text)}" for line in report.timeline]
    if report.points:
        lines += ["", f"## {'큐 길이' if ko else 'Queue length'}", "", "```"]
        lines += [*_text_chart(report.points), "```"]
    return "\n".join(lines) + "\n"


def _inline(text: str) -> str:
    return " ".join(text.replace("<", "&lt;").split())


def _cell(text: str) -> str:
    return _inline(text).replace("|", "\\|")


def _text_chart(points: Sequence[tuple[float, int, int]]) -> list[str]:
    """At most twelve bars: seconds since the start, documents in line."""
    step = max(1, -(-len(points) // 12))
    some = points[::step]
    most = max(n for _, n, _ in some) or 1
    return [f"{at:7.0f} s  {'█' * round(30 * n / most):<30} {n}" for at, n, _ in some]


def as_html(report: Report) -> str:
    """One file that stands alone: no script, no font, nothing from elsewhere."""
    ko = report.lang == "ko"
    title = f"{'사후 분석 보고서' if ko else 'Post-mortem'} #{report.incident_id}"
    rows = "".join(
        f"<tr><th scope=row>{_h(label)}<br><code>{name}</code></th><td>{_h(value)}</td></tr>"
        for name, label, value in _rows(report)
    )
    evidence = "".join(f"<li>{_h(text)}</li>" for text in report.evidence)
    timeline = "".join(
        f"<li><time>{_h(line.at)}</time> {_h(line.text)}</li>" for line in report.timeline
    )
    parts = [
        f'<!doctype html><html lang="{report.lang}"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{_h(title)}</title><style>{_CSS}</style></head><body><main><h1>{_h(title)}</h1>",
        f"<table>{rows}</table>",
    ]
    if evidence:
        parts.append(f"<h2>{'증거' if ko else 'Evidence'}</h2><ul>{evidence}</ul>")
    if report.points:
        parts.append(f"<h2>{'큐 길이' if ko else 'Queue length'}</h2>{chart_svg(report)}")
    parts.append(f"<h2>{'경과' if ko else 'Timeline'}</h2><ol>{timeline}</ol></main></body></html>")
    return "".join(parts) + "\n"


def chart_svg(report: Report) -> str:
    """Documents in line over time, as inline SVG."""
    wide, high, left, low = 720.0, 220.0, 48.0, 190.0
    until = max((at for at, _, _ in report.points), default=0.0) or 1.0
    since = min(0.0, min((at for at, _, _ in report.points), default=0.0))
    most = max((n for _, n, _ in report.points), default=0) or 1

    def x(at: float) -> float:
        return left + (at - since) / (until - since) * (wide - left - 12)

    def y(n: float) -> float:
        return low - n / most * (low - 16)

    line = " ".join(f"{x(at):.1f},{y(n):.1f}" for at, n, _ in report.points)
    name = "큐 길이(문서)" if report.lang == "ko" else "documents in line"
    marks = "".join(
        f'<line class="g" x1="{left}" x2="{wide - 12}" y1="{y(n):.1f}" y2="{y(n):.1f}"/>'
        f'<text x="{left - 6}" y="{y(n) + 4:.1f}" text-anchor="end">{n:.0f}</text>'
        for n in sorted({0, most // 2, most})
    )
    ends = f'<text x="{left}" y="{high - 8}">0</text>' + (
        f'<text x="{wide - 12}" y="{high - 8}" text-anchor="end">{until / 60:.1f} min</text>'
    )
    return (
        f'<svg viewBox="0 0 {wide:.0f} {high:.0f}" role="img" aria-label="{name}: 0–{most}">'
        f'{marks}{ends}<polyline points="{line}"/></svg>'
    )


_CSS = (
    ":root{color-scheme:light dark}body{font:16px/1.6 system-ui,'Noto Sans KR','Malgun Gothic',"
    "sans-serif;margin:0}main{max-width:48rem;margin:2rem auto;padding:0 1rem}h1{font-size:1.6rem}"
    "h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;width:100%}th,td{text-align:"
    "left;vertical-align:top;padding:.5rem .75rem;border-bottom:1px solid #8886}th{width:14rem;"
    "font-weight:600}code,time{font-variant-numeric:tabular-nums;opacity:.75;font-size:.85em}svg{width:"
    "100%;height:auto}svg text{font-size:12px;fill:currentColor;opacity:.7}.g{stroke:currentColor;"
    "opacity:.2}polyline{fill:none;stroke:#2f7de1;stroke-width:2}"
)


def _h(text: str) -> str:
    return html.escape(text, quote=True)


def _rfc3339(at: float) -> str:
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return text.replace("+00:00", "Z")


def _local(at: float, zone: tzinfo | None) -> str:
    moment = datetime.fromtimestamp(at, UTC).astimezone(zone)
    return moment.strftime("%Y-%m-%d %H:%M:%S %z")


FORMATS = {
    "md": (as_markdown, "text/markdown; charset=utf-8"),
    "json": (as_json, "application/json"),
    "html": (as_html, "text/html; charset=utf-8"),
}
"""Name → (how it is written, media type)."""
