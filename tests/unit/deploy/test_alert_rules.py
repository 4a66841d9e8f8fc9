"""Each alert fires when it should, also where the runbook's own expressions stay silent, and
stays silent when it should, also where they cry wolf."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fixtures.promtool import Case, needs_promtool, promtool, run_cases
from unjam.observe.alert_table import ALERTS
from unjam.observe.metrics import LANES

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "deploy" / "prometheus" / "unjam-rules.yml"
pytestmark = needs_promtool

CALM: Mapping[str, str] = {
    **{
        f'{metric}{{queue="{lane}"}}': "0x400"
        for lane in LANES
        for metric in (
            "rag_queue_length",
            "rag_queue_oldest_job_age_seconds",
            "rag_queue_paused",
            "rag_worker_active_jobs",
            "rag_jobs_started_total",
            "rag_jobs_completed_total",
            "rag_jobs_failed_total",
        )
    },
    **{f'rag_workers_live{{queue="{lane}"}}': "2x400" for lane in LANES},
    "rag_dlq_length": "0x400",
    "rag_documents_missing": "0x400",
    "rag_embedding_keys": "0x400",
    "rag_embedding_keys_ready": "0x400",
    'rag_embedding_requests_total{outcome="ok"}': "0x400",
    'rag_embedding_requests_total{outcome="throttled"}': "0x400",
    'rag_embedding_requests_total{outcome="failed"}': "0x400",
    'rag_redis_unsafe{reason="eviction_policy"}': "0x400",
    'rag_redis_unsafe{reason="appendonly_off"}': "0x400",
    "rag_vector_store_errors_total": "0x400",
    'rag_recovery_actions_total{action="restart_worker",outcome="done"}': "0x400",
    'rag_recovery_actions_total{action="restart_worker",outcome="asked"}': "0x400",
    'rag_incidents{state="open"}': "0x400",
    'rag_incidents{state="handed_over"}': "0x400",
    "rag_watchdogs_live": "1x400",
    "rag_ingest_slo_total": "0x400",
    "rag_ingest_slo_late_total": "0x400",
}
"""A house in which nothing happens, minute by minute."""


def but(**changed: str) -> dict[str, str]:
    """The calm house, but: metric (its series of the main lane) = other values."""
    series = dict(CALM)
    for name, values in changed.items():
        metric = name if name in series else f'{name}{{queue="rag_processing"}}'
        assert metric in series, name
        series[metric] = values
    return series


def lane(metric: str, name: str) -> str:
    return f'{metric}{{queue="{name}"}}'


def action(outcome: str) -> str:
    return f'rag_recovery_actions_total{{action="restart_worker",outcome="{outcome}"}}'


def without(series: Mapping[str, str], *metrics: str) -> dict[str, str]:
    return {k: v for k, v in series.items() if k.partition("{")[0] not in metrics}


def bucket(
    minutes: int, counts: Mapping[str, int], queue: str = "rag_processing"
) -> dict[str, str]:
    """A histogram that grows by *counts* (edge → per minute, cumulative)."""
    return {
        f'rag_job_duration_seconds_bucket{{le="{edge}",queue="{queue}"}}': f"0+{n}x{minutes}"
        for edge, n in counts.items()
    }


BUSY = but(
    rag_queue_length="500x400",
    rag_worker_active_jobs="50x400",
    rag_jobs_started_total="0+60x400",
    rag_jobs_completed_total="0+60x400",
    rag_ingest_slo_total="0+60x400",
    rag_queue_oldest_job_age_seconds="200x400",
)
STUCK = but(
    rag_queue_length="60x400", rag_worker_active_jobs="2x400", rag_jobs_completed_total="9x400"
)
DEAD_WORKER = but(
    rag_queue_length="3x400",
    rag_jobs_completed_total="0+5x10 50x390",
    rag_worker_active_jobs="2x10 0x390",
    rag_workers_live="1x10 0x390",
)
NAMES = [alert.name for alert in ALERTS]

CASES = [
    Case("nothing happens", CALM, silent=NAMES, at="6h"),
    Case("full load is no fault", BUSY, silent=NAMES, at="3h"),
    # -- the runbook's four
    Case("stagnation", STUCK, {"RAGQueueStagnation": 1}, at="16m"),
    Case("not yet", but(rag_queue_length="0x10 60x390"), silent=["RAGQueueStagnation"], at="14m"),
    Case(
        "stagnation although the counter never existed",
        without(STUCK, "rag_jobs_completed_total"),
        {"RAGQueueStagnation": 1},
    ),
    Case(
        "stagnation although the counter has other labels",
        {
            **without(STUCK, "rag_jobs_completed_total"),
            'rag_jobs_completed_total{queue="rag_processing",worker="w1"}': "9x400",
        },
        {"RAGQueueStagnation": 1},
    ),
    Case(
        "several API processes export one stagnation",
        {
            (key[:-1] + f',instance="{i}"}}' if "{" in key else f'{key}{{instance="{i}"}}'): v
            for key, v in STUCK.items()
            for i in "ab"
        },
        {"RAGQueueStagnation": 1},
        silent=["RAGDocumentsMissing", "RAGMetricsAbsent"],
    ),
    Case(
        "a paused lane is not stuck",
        {**STUCK, lane("rag_queue_paused", "rag_processing"): "1x400"},
        {"RAGLanePaused": 1},
        silent=["RAGQueueStagnation", "NoActiveRAGWorkers", "RAGIdleWorkersWithBacklog"],
        at="2h",
    ),
    Case(
        "large documents take their time",
        {
            **CALM,
            lane("rag_queue_length", "rag_large_docs"): "80x400",
            lane("rag_worker_active_jobs", "rag_large_docs"): "1x400",
            lane("rag_jobs_completed_total", "rag_large_docs"): "0x24 1x25 2x25 3x25 4x300",
        },
        silent=["RAGQueueStagnation"],
        at="80m",
    ),
    Case(
        "another lane is stuck while the main lane works",
        {**BUSY, lane("rag_queue_length", "rag_high"): "60x400"},
        {"RAGQueueStagnation": 1},
    ),
    Case(
        "the only worker dies",
        DEAD_WORKER,
        {"NoActiveRAGWorkers": 1},
        silent=["RAGQueueStagnation"],  # three documents are not fifty
        at="13m",
    ),
    Case(
        "the workers' gauges vanish with them",
        without(DEAD_WORKER, "rag_worker_active_jobs", "rag_workers_live"),
        {"NoActiveRAGWorkers": 1},
        at="13m",
    ),
    Case(
        "a short gap between documents",
        but(rag_queue_length="1 0 1 0 1 0 1 0 1 0x391", rag_jobs_completed_total="0+1x400"),
        silent=["NoActiveRAGWorkers", "RAGIdleWorkersWithBacklog"],
        at="9m",
    ),
    Case(
        "a lane that waits its turn behind a busy one",
        {**BUSY, lane("rag_queue_length", "rag_low"): "20x400"},
        silent=["NoActiveRAGWorkers", "RAGIdleWorkersWithBacklog"],
    ),
    Case("no worker lives", DEAD_WORKER | {lane("rag_workers_live", q): "0x400" for q in LANES},
         {"RAGNoLiveWorkers": 1, "NoActiveRAGWorkers": 1},
         silent=["RAGIdleWorkersWithBacklog"], at="14m"),
    Case(
        "live workers take nothing",
        but(rag_queue_length="7x400"),
        {"RAGIdleWorkersWithBacklog": 1, "NoActiveRAGWorkers": 1},
        at="5m",
    ),
    Case(
        "slow documents",
        {**BUSY, **bucket(400, {"60": 10, "300": 90, "600": 95, "1800": 100, "+Inf": 100})},
        {"RAGProcessingTimeHigh": 1},
        at="45m",
    ),
    Case(
        "slow now, fast for a year: what a lifetime's quantile cannot see",
        {
            **BUSY,
            'rag_job_duration_seconds_bucket{le="60",queue="rag_processing"}': "1000000x400",
            'rag_job_duration_seconds_bucket{le="300",queue="rag_processing"}': "1000000x400",
            'rag_job_duration_seconds_bucket{le="1800",queue="rag_processing"}': "1000000+10x400",
            'rag_job_duration_seconds_bucket{le="+Inf",queue="rag_processing"}': "1000000+10x400",
        },
        {"RAGProcessingTimeHigh": 1},
        at="45m",
    ),
    Case(
        "fast ones, and slow large ones",
        {
            **BUSY,
            **bucket(400, {"60": 100, "300": 100, "1800": 100, "+Inf": 100}),
            **bucket(400, {"60": 0, "300": 1, "1800": 100, "+Inf": 100}, "rag_large_docs"),
        },
        silent=["RAGProcessingTimeHigh"],
        at="2h",
    ),
    Case(
        "one in five is parked",
        {**BUSY, lane("rag_jobs_failed_total", "rag_processing"): "0+15x400"},
        {"RAGSuccessRateLow": 1, "RAGDeadLettersGrow": 1},
        at="60m",
    ),
    Case(
        "all are parked, none was ever completed",
        without(but(rag_jobs_failed_total="0+2x400"), "rag_jobs_completed_total"),
        {"RAGSuccessRateLow": 1},
        at="60m",
    ),
    Case(
        "fifty were started and are in work: no failure",
        but(
            rag_jobs_started_total="0x5 50x395",
            rag_worker_active_jobs="0x5 50x395",
            rag_jobs_completed_total="0x400",
        ),
        silent=["RAGSuccessRateLow"],
        at="40m",
    ),
    Case(
        "one bad file at night",
        but(rag_jobs_failed_total="0x10 1x390", rag_dlq_length="0x10 1x390"),
        silent=["RAGSuccessRateLow", "RAGDeadLettersGrow"],
        at="30m",
    ),
    # -- the others
    Case(
        "an old document",
        but(rag_queue_length="2x400", rag_queue_oldest_job_age_seconds="600+60x400",
            rag_worker_active_jobs="1x400"),
        {"RAGOldestDocumentWaits": 1},
        at="20m",
    ),
    Case(
        "the low lane may wait longer",
        {**BUSY, lane("rag_queue_oldest_job_age_seconds", "rag_low"): "3000x400"},
        silent=["RAGOldestDocumentWaits"],
    ),
    Case(
        "every third is late",
        but(rag_ingest_slo_total="0+30x400", rag_ingest_slo_late_total="0+10x400"),
        {"RAGIngestSLOBurnFast": 1},
        at="70m",
    ),
    Case(
        "one in twelve is late, for hours",
        but(rag_ingest_slo_total="0+24x400", rag_ingest_slo_late_total="0+2x400"),
        {"RAGIngestSLOBurnSlow": 1},
        silent=["RAGIngestSLOBurnFast"],
        at="6h",
    ),
    Case(
        "two late ones at night",
        but(rag_ingest_slo_total="0x100 4x300", rag_ingest_slo_late_total="0x100 2x300"),
        silent=["RAGIngestSLOBurnFast", "RAGIngestSLOBurnSlow"],
        at="104m",
    ),
    Case(
        "late an hour ago, well now",
        but(
            rag_ingest_slo_total="0+30x400",
            rag_ingest_slo_late_total="0+20x60 1200x340",
        ),
        silent=["RAGIngestSLOBurnFast"],
        at="80m",
    ),
    Case(
        "dead letters grow",
        but(rag_jobs_failed_total="0x10 9x390", rag_dlq_length="0x10 9x390"),
        {"RAGDeadLettersGrow": 1},
        at="15m",
    ),
    Case(
        "old dead letters are no news",
        but(rag_jobs_failed_total="900x400", rag_dlq_length="900x400"),
        silent=["RAGDeadLettersGrow"],
    ),
    Case("documents are missing", but(rag_documents_missing="3x400"), {"RAGDocumentsMissing": 1}),
    Case(
        "missing for a moment, restored from the cache",
        but(rag_documents_missing="0x5 3x3 0x390"),
        silent=["RAGDocumentsMissing"],
        at="9m",
    ),
    Case(
        "the endpoint throttles",
        CALM
        | {
            'rag_embedding_requests_total{outcome="ok"}': "0+10x400",
            'rag_embedding_requests_total{outcome="throttled"}': "0+10x400",
        },
        {"RAGEmbeddingThrottled": 1},
        silent=["RAGEmbeddingFailing"],
        at="30m",
    ),
    Case(
        "a 429 now and then",
        CALM
        | {
            'rag_embedding_requests_total{outcome="ok"}': "0+100x400",
            'rag_embedding_requests_total{outcome="throttled"}': "0+2x400",
        },
        silent=["RAGEmbeddingThrottled"],
        at="30m",
    ),
    Case(
        "the endpoint fails",
        CALM | {'rag_embedding_requests_total{outcome="failed"}': "0+10x400"},
        {"RAGEmbeddingFailing": 1},
        at="30m",
    ),
    Case(
        "no key is left",
        but(rag_embedding_keys="2x400", rag_embedding_keys_ready="2x5 0x395"),
        {"RAGEmbeddingKeysExhausted": 1},
        at="9m",
    ),
    Case("the local model has no keys", CALM, silent=["RAGEmbeddingKeysExhausted"]),
    Case(
        "Redis would evict",
        CALM | {'rag_redis_unsafe{reason="eviction_policy"}': "0x5 1x395"},
        {"RAGRedisUnsafe": 1},
        silent=["RAGRedisNotDurable"],
        at="6m",
    ),
    Case(
        "Redis without AOF",
        CALM | {'rag_redis_unsafe{reason="appendonly_off"}': "1x400"},
        {"RAGRedisNotDurable": 1},
        silent=["RAGRedisUnsafe"],
        at="40m",
    ),
    Case("Chroma fails", but(rag_vector_store_errors_total="0+5x400"), {"RAGVectorStoreErrors": 1}),
    Case(
        "one failed call",
        but(rag_vector_store_errors_total="0x10 1x390"),
        silent=["RAGVectorStoreErrors"],
        at="13m",
    ),
    Case(
        "workers come and go",
        but(rag_workers_live="2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2 1 2"),
        {"RAGWorkerChurn": 1},
        at="30m",
    ),
    Case(
        "one restart",
        but(rag_workers_live="2x10 1x1 2x390"),
        silent=["RAGWorkerChurn", "RAGNoLiveWorkers"],
        at="15m",
    ),
    Case(
        "a remedy in a loop",
        CALM
        | {
            action("done"): "0x10 1x10 2x10 3x360",
            action("asked"): "0x10 1x10 2x10 3x360",
        },
        {"RAGRecoveryLoop": 1},
        at="40m",
    ),
    Case(
        "two remedies, and then rest",
        CALM
        | {
            action("done"): "0x10 1x10 2x370",
            action("asked"): "0x10 1x10 2x370",
        },
        silent=["RAGRecoveryLoop"],
        at="60m",
    ),
    Case(
        "an incident is handed over",
        CALM | {'rag_incidents{state="handed_over"}': "0x5 1x395"},
        {"RAGIncidentNeedsPerson": 1},
        at="6m",
    ),
    Case(
        "an incident that the watchdog treats",
        CALM | {'rag_incidents{state="open"}': "0x5 1x395"},
        silent=["RAGIncidentNeedsPerson"],
    ),
    Case("no watchdog", but(rag_watchdogs_live="1x5 0x395"), {"RAGWatchdogAbsent": 1}, at="8m"),
    Case("a watchdog is replaced", but(rag_watchdogs_live="1x5 0 1x390"),
         silent=["RAGWatchdogAbsent"], at="7m"),
    Case("no figures", {"up": "0x400"}, {"RAGMetricsAbsent": 1},
         silent=["RAGWatchdogAbsent", "RAGNoLiveWorkers"], at="5m"),
    Case("a pause of minutes", but(rag_queue_paused="0x5 1x30 0x360"), silent=["RAGLanePaused"],
         at="34m"),
]  # fmt: skip


def test_the_rules_are_sound() -> None:
    done = promtool("check", "rules", str(RULES), cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


@pytest.mark.thorough
def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    run_cases(RULES, CASES, tmp_path)


def test_each_alert_is_seen_firing_and_silent() -> None:
    assert {alert for case in CASES for alert in case.fires} == set(NAMES)
    assert {alert for case in CASES for alert in case.silent} == set(NAMES)


def test_the_cases_can_fail(tmp_path: Path) -> None:
    """promtool really compares: the same case with the opposite expectation is refused."""
    wrong = Case("stagnation", STUCK, {"RAGQueueStagnation": 2})
    with pytest.raises(AssertionError, match="RAGQueueStagnation"):
        run_cases(RULES, [wrong], tmp_path)


RUNBOOK = {
    "RAGQueueStagnation": (
        "rag_queue_length > 50 and increase(rag_jobs_completed_total[10m]) == 0",
        "5m",
    ),
    "NoActiveRAGWorkers": ("rag_worker_active_jobs == 0 and rag_queue_length > 0", "2m"),
    "RAGProcessingTimeHigh": (
        "histogram_quantile(0.95, rag_job_duration_seconds_bucket) > 300",
        "10m",
    ),
    "RAGSuccessRateLow": (
        "rate(rag_jobs_completed_total[30m]) / rate(rag_jobs_started_total[30m]) < 0.9",
        "15m",
    ),
}


def test_the_runbooks_literal_expressions_work_on_our_metrics(tmp_path: Path) -> None:
    """One label set and zeros from the start make them fire, where other exporters leave them
    silent: without the counter the first one never fires."""
    rules = tmp_path / "runbook.yml"
    entries = [{"alert": n, "expr": e, "for": f} for n, (e, f) in RUNBOOK.items()]
    rules.write_text(json.dumps({"groups": [{"name": "runbook", "rules": entries}]}))
    slow = bucket(400, {"60": 0, "300": 0, "600": 0, "1800": 100, "+Inf": 100})
    cases = [
        Case("calm", CALM, silent=list(RUNBOOK), at="2h"),
        Case("stagnation", STUCK, {"RAGQueueStagnation": 1}),
        Case("dead worker", DEAD_WORKER, {"NoActiveRAGWorkers": 1}, at="13m"),
        Case("slow", {**BUSY, **slow}, {"RAGProcessingTimeHigh": 1}, at="45m"),
        Case(
            "half is parked",
            but(rag_jobs_started_total="0+10x400", rag_jobs_completed_total="0+5x400"),
            {"RAGSuccessRateLow": 1},
            at="60m",
        ),
        Case(
            "other exporters: silent",
            without(STUCK, "rag_jobs_completed_total"),
            silent=["RAGQueueStagnation"],
        ),
    ]
    run_cases(rules, cases, tmp_path)


def test_severities_and_times_are_the_runbooks() -> None:
    table = {alert.name: alert for alert in ALERTS}
    for name, (_, hold) in RUNBOOK.items():
        assert table[name].hold == hold
    assert table["RAGQueueStagnation"].severity == "critical"
    assert table["NoActiveRAGWorkers"].severity == "warning"
