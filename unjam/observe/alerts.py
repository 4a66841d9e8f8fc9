"""Alerts: when a person is called, what they read, and what they type first.

One table (``alert_table``) makes ``deploy/prometheus/unjam-rules.yml``, the generated reference
page and ``unjam alerts``. Several API processes export the same figures, so every expression takes
the maximum over them before it adds anything up. Everything here is pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from unjam.core.incident import Severity

Scrape = Mapping[str, Mapping[tuple[str, ...], float]]
"""One answer of ``/metrics``: sample name → values of its labels (sorted by name) → number."""

Now = Callable[[Scrape], Sequence[str]]
"""What an alert's condition holds for at one moment: lanes, reasons, or "" for all of it."""


@dataclass(frozen=True, slots=True)
class Alert:
    """*now* is None where the condition speaks of a stretch of time: one scrape cannot tell."""

    name: str
    severity: Severity
    hold: str  # Prometheus' ``for``
    expr: str
    summary: str
    summary_ko: str
    meaning: str
    meaning_ko: str
    command: str  # what to run first
    now: Now | None = None

    def said_in(self, part: str, lang: str) -> str:
        """*part*: summary or meaning."""
        return getattr(self, f"{part}_ko" if lang == "ko" else part)


def rules_yaml(alerts: Iterable[Alert]) -> str:
    """The rules file. Strings are written as JSON, which YAML reads as they are."""
    lines = [
        "# Written by scripts/deploy.py from unjam/observe/alert_table.py.",
        "groups:",
        "  - name: unjam",
        "    interval: 15s",
        "    rules:",
    ]
    for alert in alerts:
        annotations = {
            "summary": alert.summary,
            "summary_ko": alert.summary_ko,
            "description": alert.meaning,
            "description_ko": alert.meaning_ko,
            "command": alert.command,
            "runbook": f"docs/en/reference/alerts.md#{alert.name.lower()}",
        }
        lines += [f"      - alert: {alert.name}", "        expr: |-"]
        lines += [f"          {row}" for row in alert.expr.strip().splitlines()]
        lines += [f"        for: {alert.hold}"] if alert.hold != "0m" else []
        lines += ["        labels:", f"          severity: {alert.severity}"]
        lines += ["        annotations:"]
        lines += [
            f"          {key}: {json.dumps(text, ensure_ascii=False)}"
            for key, text in annotations.items()
        ]
    return "\n".join(lines) + "\n"


def read_scrape(text: str) -> Scrape:
    """Prometheus' text format → numbers; comments and what is no sample are left out."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for line in text.splitlines():
        head, _, number = line.rpartition(" ")
        if not head or line.startswith("#"):
            continue
        name, _, rest = head.partition("{")
        labels = dict(pair.split("=", 1) for pair in rest.rstrip("}").split(",") if "=" in pair)
        values = tuple(labels[key].strip('"') for key in sorted(labels))
        try:
            found.setdefault(name, {})[values] = float(number)
        except ValueError:
            continue
    return found


# -- what one scrape can tell -----------------------------------------------------------------
def by_label(scrape: Scrape, metric: str) -> dict[str, float]:
    """Label value → number, of a metric with one label or none ("")."""
    return {labels[0] if labels else "": n for labels, n in scrape.get(metric, {}).items()}


def total(scrape: Scrape, metric: str) -> float:
    return sum(scrape.get(metric, {}).values())


def backlog(scrape: Scrape) -> list[str]:
    """Lanes in which something waits and that nobody paused."""
    paused = by_label(scrape, "rag_queue_paused")
    lengths = by_label(scrape, "rag_queue_length").items()
    return [lane for lane, n in lengths if n > 0 and not paused.get(lane)]


def unserved(scrape: Scrape) -> list[str]:
    """Lanes of the backlog that nobody works on."""
    active, live = (by_label(scrape, f"rag_worker{m}") for m in ("_active_jobs", "s_live"))
    working = sum(active.values()) > 0
    lanes = backlog(scrape)
    return [q for q in lanes if not active.get(q) and not (live.get(q) and working)]


def idle(scrape: Scrape) -> list[str]:
    """Lanes of the backlog whose live workers do nothing, as all others."""
    live = by_label(scrape, "rag_workers_live")
    if total(scrape, "rag_worker_active_jobs"):
        return []
    return [lane for lane in backlog(scrape) if live.get(lane)]


def above(metric: str, bound: float = 0.0) -> Now:
    """Holds for each label value of *metric* that is above *bound*."""
    return lambda scrape: [k for k, n in by_label(scrape, metric).items() if n > bound]


def none_of(metric: str) -> Now:
    """Holds when *metric* is 0 everywhere."""
    return lambda scrape: [] if total(scrape, metric) else [""]
