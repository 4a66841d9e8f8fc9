"""The post-mortem: exact fields, both languages, one file that stands alone."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from unjam.core.incident import Action, Incident, IncidentEvent, Saying
from unjam.watchdog.report import FIELDS, FORMATS, as_html, as_json, as_markdown, make_report

START = 1_800_000_000.0


def incident(**more: object) -> Incident:
    values: dict[str, object] = {
        "id": 7,
        "cause": "chroma_down",
        "subject": "",
        "severity": "critical",
        "state": "closed",
        "started_at": START,
        "noticed_at": START + 3.2,
        "closed_at": START + 90.0,
        "evidence": (Saying("no answer at <b>127.0.0.1</b>", "응답 없음"),),
        "effects": ("workers_hung",),
        "actions": (
            Action(START + 20, "restart_chroma", "asked", Saying("r", "r")),
            Action(START + 25, "restart_chroma", "done", Saying("Restart", "재시작")),
        ),
        "max_queue_length": 812,
        "affected_users": 12,
        "affected_anonymous": 3,
        "failed_jobs": 0,
    }
    return Incident(**{**values, **more})  # type: ignore[arg-type]


EVENTS = [
    IncidentEvent(1, 7, START + 3.2, "opened"),
    *(
        IncidentEvent(
            2 + n, 7, START + 4 + n, "sample", {"queue": 100 * n, "working": 1, "completed": 50 + n}
        )
        for n in range(40)
    ),
    IncidentEvent(
        60,
        7,
        START + 25,
        "action",
        {
            "remedy": "restart_chroma",
            "outcome": "done",
            "en": "Restart",
            "ko": "재시작",
            "by": "watchdog",
        },
    ),
    IncidentEvent(61, 7, START + 90, "closed"),
]


def test_the_eight_fields_under_their_names() -> None:
    report = make_report(incident(), EVENTS, START + 500)
    fields = json.loads(as_json(report))
    assert list(fields)[:8] == list(FIELDS)
    assert fields["stagnation_start_time"] == "2027-01-15T08:00:00Z"
    assert fields["duration_minutes"] == 1.5
    assert fields["max_queue_length"] == 812
    assert fields["affected_users"] == 12 and fields["affected_anonymous"] == 3
    assert fields["failed_jobs"] == 0
    assert fields["root_cause"].startswith("chroma_down: ")
    assert "Restart (done, watchdog)" in fields["solution_applied"]
    assert fields["prevention_measures"] is not None
    assert fields["noticed_after_s"] == 3.2
    assert fields["points"][0] == [4.0, 0, 0] and fields["points"][-1][2] == 39


def test_markdown_names_every_field_and_tells_the_story() -> None:
    text = as_markdown(make_report(incident(), EVENTS, START))
    for name in FIELDS:
        assert f"`{name}`" in text
    assert "<b>" not in text and "&lt;b>" in text
    assert "workers_hung" in text and "restart_chroma – done" in text and "█" in text


def test_korean_is_korean_under_the_same_field_names() -> None:
    text = as_markdown(make_report(incident(), EVENTS, START, lang="ko"))
    for name in FIELDS:
        assert f"`{name}`" in text
    assert "사후 분석 보고서" in text and "응답 없음" in text and "감지" in text


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_html_stands_alone(lang: str) -> None:
    page = as_html(make_report(incident(), EVENTS, START, lang=lang))
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs)))

    Reader().feed(page)
    names = {tag for tag, _ in tags}
    assert {"svg", "polyline", "table", "ol"} <= names
    assert not names & {"script", "link", "img", "iframe", "b"}
    assert not re.search(r"https?://|url\(|@import", page)
    assert all("onload" not in attrs and "src" not in attrs for _, attrs in tags)
    for name in FIELDS:
        assert f"<code>{name}</code>" in page


def test_an_open_one_is_told_as_far_as_it_has_come() -> None:
    report = make_report(
        incident(state="open", closed_at=None, actions=()), EVENTS[:1], START + 120
    )
    assert report.duration_minutes == 2.0 and report.points == ()
    assert report.solution_applied
    assert set(FORMATS) == {"md", "json", "html"}
    assert "<svg" not in as_html(report)


def test_repeated_actions_are_counted() -> None:
    twice = tuple(
        Action(START + n, "restart_worker", "done", Saying("Restart", "재시작")) for n in range(2)
    )
    assert "×2" in make_report(incident(actions=twice), [], START).solution_applied
    healed = make_report(incident(actions=()), [], START).solution_applied
    assert "without a remedy" in healed
