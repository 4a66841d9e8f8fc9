"""The Grafana dashboard, as data. ``scripts/deploy.py`` writes it to ``deploy/grafana``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Panel:
    """*queries*: (PromQL, legend). *unit* is one of Grafana's. *bad*: from here on it is red."""

    title: str
    about: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    bad: float | None = None


def _rate(counter: str, by: str, window: str = "$__rate_interval") -> str:
    """Several API processes export the same counter: the greatest, not the sum."""
    return f"max by ({by}) (rate({counter}[{window}]))"


PANELS: Sequence[Panel] = (
    Panel(
        "Waiting · 대기",
        "Documents in all lanes",
        [("sum(max by (queue) (rag_queue_length))", "waiting")],
        kind="stat",
        width=4,
        height=4,
    ),
    Panel(
        "In work · 처리 중",
        "Documents that workers hold",
        [("sum(max by (queue) (rag_worker_active_jobs))", "in work")],
        kind="stat",
        width=4,
        height=4,
    ),
    Panel(
        "Workers · 워커",
        "Live workers of the main lane",
        [('max(rag_workers_live{queue="rag_processing"})', "workers")],
        kind="stat",
        width=4,
        height=4,
    ),
    Panel(
        "Missing · 누락",
        "Always 0",
        [("max(rag_documents_missing)", "missing")],
        kind="stat",
        width=4,
        height=4,
        bad=1,
    ),
    Panel(
        "Dead letters · 데드레터",
        "Parked with a reason",
        [("max(rag_dlq_length)", "dead")],
        kind="stat",
        width=4,
        height=4,
        bad=1,
    ),
    Panel(
        "Late · 지연",
        "Share that missed its five minutes, last hour",
        [
            (
                "max(increase(rag_ingest_slo_late_total[1h])) "
                "/ max(increase(rag_ingest_slo_total[1h]))",
                "late",
            )
        ],
        unit="percentunit",
        kind="stat",
        width=4,
        height=4,
        bad=0.01,
    ),
    Panel(
        "Queue length by lane · 레인별 대기 문서",
        "rag_queue_length",
        [("max by (queue) (rag_queue_length)", "{{queue}}")],
    ),
    Panel(
        "Oldest document by lane · 레인별 최장 대기",
        "How long the oldest has waited for a worker",
        [("max by (queue) (rag_queue_oldest_job_age_seconds)", "{{queue}}")],
        unit="s",
        bad=900,
    ),
    Panel(
        "Completed per second · 초당 완료",
        "Documents that became searchable",
        [(_rate("rag_jobs_completed_total", "queue"), "{{queue}}")],
        unit="ops",
    ),
    Panel(
        "Started, completed, parked per minute · 분당 시작·완료·보관",
        "Over all lanes",
        [
            (f"60 * sum({_rate(f'rag_jobs_{what}_total', 'queue', '5m')})", what)
            for what in ("started", "completed", "failed")
        ],
    ),
    Panel(
        "Working time, p50 and p95 · 처리 시간",
        "From claim to searchable; waiting excluded",
        [
            (
                f"histogram_quantile({q}, max by (queue, le) "
                "(rate(rag_job_duration_seconds_bucket[30m])))",
                f"p{q * 100:.0f} {{{{queue}}}}",
            )
            for q in (0.5, 0.95)
        ],
        unit="s",
        bad=300,
    ),
    Panel(
        "Documents by state · 상태별 문서",
        "Searchable ones are left out: they would dwarf the rest",
        [('max by (state) (rag_documents{state!~"searchable|deleted"})', "{{state}}")],
    ),
    Panel(
        "Embedding requests · 임베딩 요청",
        "Per second by outcome",
        [(_rate("rag_embedding_requests_total", "outcome"), "{{outcome}}")],
        unit="reqps",
    ),
    Panel(
        "Embedding keys · 임베딩 키",
        "Ready of all",
        [("max(rag_embedding_keys_ready)", "ready"), ("max(rag_embedding_keys)", "all")],
        width=4,
    ),
    Panel(
        "Vector store errors · 벡터 저장소 오류",
        "Per minute",
        [("60 * max(rate(rag_vector_store_errors_total[5m]))", "errors")],
        width=4,
    ),
    Panel(
        "Workers, watchdogs · 워커와 워치독",
        "Live processes",
        [
            ("max by (queue) (rag_workers_live)", "{{queue}}"),
            ("max(rag_watchdogs_live)", "watchdogs"),
        ],
        width=4,
    ),
    Panel(
        "Paused, unsafe · 정지와 위험",
        "1 while it holds",
        [
            ("max by (queue) (rag_queue_paused)", "paused {{queue}}"),
            ("max by (reason) (rag_redis_unsafe)", "redis {{reason}}"),
        ],
        width=4,
        bad=1,
    ),
    Panel(
        "Recovery actions · 복구 조치",
        "Within the last hour",
        [
            (
                "max by (action, outcome) (increase(rag_recovery_actions_total[1h])) > 0",
                "{{action}} {{outcome}}",
            )
        ],
        width=16,
        height=5,
    ),
    Panel(
        "Incidents · 장애",
        "Open ones; handed_over needs a person",
        [("max by (state) (rag_incidents)", "{{state}}")],
        height=5,
        bad=1,
    ),
)


def dashboard_json() -> str:
    """The dashboard as Grafana imports it (schema 39); it asks for its Prometheus itself."""
    board: dict[str, Any] = {
        "uid": "unjam",
        "title": "unjam",
        "tags": ["unjam", "rag"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
        },
        "annotations": {"list": [_alerts()]},
        "panels": _laid_out(),
    }
    return json.dumps(board, ensure_ascii=False, indent=1) + "\n"


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing", alertname=~"RAG.*|NoActiveRAGWorkers"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{queue}}",
    }


def _laid_out() -> list[dict[str, Any]]:
    """Left to right, a new row where the width is used up."""
    out: list[dict[str, Any]] = []
    x = y = row = 0
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > _WIDTH:
            x, y, row = 0, y + row, 0
        out.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": panel.height}))
        x, row = x + panel.width, max(row, panel.height)
    return out


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.bad is not None:
        steps.append({"color": "red", "value": panel.bad})
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(65 + n), "expr": expr, "legendFormat": legend, "datasource": _SOURCE}
            for n, (expr, legend) in enumerate(panel.queries)
        ],
    }
