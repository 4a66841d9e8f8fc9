"""One collector for all processes: the ledger's counters and the lanes → Prometheus text.

Nothing is counted in process memory: a forked worker would lose it. All series stand at zero
from the first scrape, carry one label at most, and never a worker's name or a document's id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from unjam.core.breaker import paused_lanes
from unjam.core.document import RUNNING, State
from unjam.core.errors import DependencyDown
from unjam.core.lease import LEASE_S
from unjam.core.ports import LaneFacts, Ledger, Queue, WorkerRef

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LANES = ("rag_high", "rag_low", "rag_large_docs", "rag_processing")
DEAD_LETTERS = "rag_dlq"
MAIN = "rag_processing"
BUCKETS_S = ("1", "2", "5", "10", "30", "60", "120", "300", "600", "1800", "3600", "+Inf")
Kind = Literal["gauge", "counter", "histogram"]
RECOVERY = "recovery:"
"""Ledger counters ``recovery:<action>:<outcome>`` are the recovery actions."""
ACTIONS = (
    "restart_worker",
    "start_worker",
    "restart_redis",
    "restart_chroma",
    "redis_noeviction",
    "redis_appendonly",
    "audit_everything",
    "separate_large",
    "fair_order",
    "lower_load",
    "drain_old_workers",
)
"""The remedies of ``watchdog.remedies``, which this room cannot see; a test holds them alike."""

OUTCOMES = ("asked", "done", "failed", "refused")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. *source* is the ledger's counter; *label* "" means a single series."""

    name: str
    kind: Kind
    help: str
    help_ko: str
    label: str = ""
    source: str = ""
    known: tuple[str, ...] = ()  # label values that stand at zero from the start


FAMILIES: Sequence[Family] = (
    Family(
        "rag_queue_length",
        "gauge",
        "Documents waiting in the lane.",
        "레인에서 대기 중인 문서 수입니다.",
        "queue",
    ),
    Family(
        "rag_queue_oldest_job_age_seconds",
        "gauge",
        "How long the lane's oldest document has waited for a worker.",
        "레인에서 가장 오래 워커를 기다린 문서의 대기 시간(초)입니다.",
        "queue",
    ),
    Family(
        "rag_queue_paused",
        "gauge",
        "1 while an operator holds the lane.",
        "운영자가 레인을 멈춘 동안 1입니다.",
        "queue",
    ),
    Family(
        "rag_worker_active_jobs",
        "gauge",
        "Documents of the lane that workers hold right now.",
        "현재 워커가 처리 중인 레인의 문서 수입니다.",
        "queue",
    ),
    Family(
        "rag_workers_live",
        "gauge",
        "Live workers that serve the lane, stock RQ workers among them.",
        "레인을 담당하는 살아 있는 워커 수이며 기본 RQ 워커도 포함합니다.",
        "queue",
    ),
    Family(
        "rag_jobs_started_total",
        "counter",
        "Generations that were claimed for the first time; retries and waits never count again.",
        "처음 점유된 세대 수입니다. 재시도와 대기는 다시 세지 않습니다.",
        "queue",
        "jobs_started",
    ),
    Family(
        "rag_jobs_completed_total",
        "counter",
        "Generations that became searchable.",
        "검색 가능해진 세대 수입니다.",
        "queue",
        "jobs_completed",
    ),
    Family(
        "rag_jobs_failed_total",
        "counter",
        "Documents that were parked as dead letters.",
        "데드레터로 보관된 문서 수입니다.",
        "queue",
        "jobs_failed",
    ),
    Family(
        "rag_job_duration_seconds",
        "histogram",
        "Time of work on a document, from claim to searchable; waiting excluded.",
        "점유부터 검색 가능까지의 처리 시간(초)이며 대기 시간은 제외합니다.",
        "queue",
        "duration",
    ),
    Family(
        "rag_dlq_length",
        "gauge",
        "Dead letters: parked documents.",
        "데드레터(보관된 문서) 수입니다.",
    ),
    Family(
        "rag_documents",
        "gauge",
        "Documents by state.",
        "상태별 문서 수입니다.",
        "state",
        known=tuple(State),
    ),
    Family(
        "rag_documents_missing",
        "gauge",
        "Accepted documents without a row, and searchable ones with chunks absent. Always 0.",
        "접수되었으나 행이 없는 문서와 청크가 빠진 검색 가능 문서 수입니다. 항상 0이어야 합니다.",
    ),
    Family(
        "rag_embedding_requests_total",
        "counter",
        "Requests to the embedding endpoint by outcome.",
        "결과별 임베딩 요청 수입니다.",
        "outcome",
        "embedding_requests",
        ("ok", "throttled", "failed"),
    ),
    Family(
        "rag_embedding_keys_ready",
        "gauge",
        "Embedding keys that may be used now.",
        "지금 사용할 수 있는 임베딩 키 수입니다.",
        source="embedding_keys_ready",
    ),
    Family(
        "rag_embedding_keys",
        "gauge",
        "Embedding keys that are configured; 0 with the local model.",
        "설정된 임베딩 키 수입니다. 로컬 모델이면 0입니다.",
        source="embedding_keys",
    ),
    Family(
        "rag_redis_unsafe",
        "gauge",
        "1 while Redis may lose jobs for this reason.",
        "해당 사유로 Redis가 작업을 잃을 수 있는 동안 1입니다.",
        "reason",
        "redis_unsafe",
        ("eviction_policy", "appendonly_off"),
    ),
    Family(
        "rag_vector_store_errors_total",
        "counter",
        "Calls of the vector store that failed.",
        "실패한 벡터 저장소 호출 수입니다.",
        source="vector_store_errors",
    ),
    Family(
        "rag_recovery_actions_total",
        "counter",
        "Recovery actions by kind and outcome.",
        "종류와 결과별 복구 조치 수입니다.",
        "action,outcome",
        RECOVERY,
        tuple(f"{action},{outcome}" for action in ACTIONS for outcome in OUTCOMES),
    ),
    Family(
        "rag_watchdogs_live",
        "gauge",
        "Live watchdogs; one leads, the others stand by.",
        "살아 있는 워치독 수입니다. 하나가 이끌고 나머지는 대기합니다.",
    ),
    Family(
        "rag_incidents",
        "gauge",
        "Open incidents; handed_over ones need a person.",
        "진행 중인 장애 수입니다. handed_over는 사람이 필요합니다.",
        "state",
        known=("open", "handed_over"),
    ),
    Family(
        "rag_ingest_slo_total",
        "counter",
        "Documents whose timeliness was decided.",
        "적시 처리 여부가 판정된 문서 수입니다.",
        source="slo_total",
    ),
    Family(
        "rag_ingest_slo_late_total",
        "counter",
        "Documents that missed their deadline, counted when it passed.",
        "기한을 넘긴 문서 수이며 기한이 지난 시점에 셉니다.",
        source="slo_late",
    ),
)

Extra = Mapping[tuple[str, str], float]
"""(metric, label value; "" for none) → value: what the caller knows and the ledger does not."""


@dataclass(slots=True)
class _Facts:
    """Everything one scrape shows: metric → label value → number; histograms apart."""

    values: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    buckets: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    sums: dict[str, float] = field(default_factory=dict[str, float])


async def render_metrics(ledger: Ledger, queue: Queue, *, extra: Extra | None = None) -> bytes:
    """The body of ``/metrics``.

    Redis away: lane lengths come from the ledger, under ``rag_processing``, so that alerts stay
    awake. *extra* overrides single values, e.g. ``{("rag_queue_paused", "rag_low"): 1}``.

    Raises:
        DependencyDown: the ledger cannot be read.
        KeyError: *extra* names a metric that does not exist.
    """
    counters = await ledger.counters()
    states = await ledger.state_counts()
    processes = await ledger.processes()
    counted = sorted(_counted_lanes(counters))
    books = await _books(queue, counted, states, _live(processes, "worker", "stock"))
    lanes = dict.fromkeys((*LANES, *books, *counted))
    facts = _Facts()
    values = facts.values
    for family in FAMILIES:
        known = tuple(lanes) if family.label == "queue" else family.known or ("",)
        if family.kind != "histogram":
            values[family.name] = dict.fromkeys(known, 0.0)
    values["rag_queue_length"].update({k: float(b.count) for k, b in books.items()})
    values["rag_queue_paused"].update({k: float(b.paused) for k, b in books.items()})
    held = paused_lanes(await ledger.dependency_states())
    lanes_held = lanes if "*" in held else held & set(lanes)
    values["rag_queue_paused"].update(dict.fromkeys(lanes_held, 1.0))
    values["rag_workers_live"].update({k: float(b.workers) for k, b in books.items()})
    now = ledger.now()
    since = await ledger.in_line_since(list(lanes))
    values["rag_queue_oldest_job_age_seconds"].update(
        {lane: max(0.0, now - at) for lane, at in since.items()}
    )
    values["rag_worker_active_jobs"].update(await _active(ledger, states))
    values["rag_documents"].update({str(s): float(n) for s, n in states.items()})
    values["rag_dlq_length"][""] = float(states.get(State.DEAD, 0))
    values["rag_watchdogs_live"][""] = float(_live(processes, "watchdog"))
    values["rag_documents_missing"][""] = float((await ledger.equation()).missing)
    _count(facts, counters, lanes)
    for (name, label), value in (extra or {}).items():
        values[name][label] = value
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(facts))
    return generate_latest(registry)


def _counted_lanes(counters: Mapping[tuple[str, str], float]) -> set[str]:
    ours = {f.source for f in FAMILIES if f.label == "queue" and f.source}
    found = {q for name, q in counters if name in ours or name.startswith("duration_")}
    return found - {DEAD_LETTERS, ""}


def _count(facts: _Facts, counters: Mapping[tuple[str, str], float], lanes: Iterable[str]) -> None:
    plain = {f.source: f for f in FAMILIES if f.source and f.kind != "histogram"}
    facts.buckets = {lane: dict.fromkeys(BUCKETS_S, 0.0) for lane in lanes}
    facts.sums = dict.fromkeys(facts.buckets, 0.0)
    actions = facts.values["rag_recovery_actions_total"]
    for (name, key), value in counters.items():
        if name.startswith(RECOVERY):
            action, _, outcome = name.removeprefix(RECOVERY).partition(":")
            series = f"{action},{outcome or 'done'}"
            actions[series] = actions.get(series, 0.0) + value
        elif name in plain:
            family = plain[name]
            series = facts.values[family.name]
            label = key if family.label else ""
            if label != DEAD_LETTERS:
                series[label] = series.get(label, 0.0) + value
        elif name == "duration_sum" and key in facts.sums:
            facts.sums[key] = value
        elif name.startswith("duration_le:") and key in facts.buckets:
            facts.buckets[key][name.removeprefix("duration_le:")] = value


async def _active(ledger: Ledger, states: Mapping[State, int]) -> dict[str, float]:
    """Documents in work, by lane; as many rows as are in flight, at most the system's cap."""
    found: dict[str, float] = {}
    for state in RUNNING:
        cursor: str | None = None
        while states.get(state, 0):
            page = await ledger.list(state=state, cursor=cursor, limit=200)
            for document in page.items:
                found[document.lane] = found.get(document.lane, 0.0) + 1
            cursor = page.next_cursor
            if cursor is None:
                break
    found.pop(DEAD_LETTERS, None)
    return found


def _live(processes: Iterable[tuple[WorkerRef, float]], *kinds: str) -> int:
    return sum(ref.kind in kinds and age <= LEASE_S for ref, age in processes)


async def _books(
    queue: Queue, lanes: Sequence[str], states: Mapping[State, int], live: int
) -> dict[str, LaneFacts]:
    """The lanes as RQ's books have them, or, while Redis is away, as much as the ledger knows:
    all that waits stands in the main lane, and *live* workers serve every lane."""
    try:
        books = await queue.lane_facts(lanes)
    except DependencyDown:
        waiting = states.get(State.QUEUED, 0) + states.get(State.RECEIVED, 0)
        books = {name: LaneFacts(name, 0, workers=live) for name in (*LANES, *lanes)}
        books[MAIN] = LaneFacts(MAIN, waiting, workers=live)
    return {name: facts for name, facts in books.items() if name != DEAD_LETTERS}


class _Collected(Collector):
    def __init__(self, facts: _Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            labels = family.label.split(",") if family.label else []
            if family.kind == "histogram":
                yield self._histogram(family)
                continue
            kind = GaugeMetricFamily if family.kind == "gauge" else CounterMetricFamily
            metric = kind(family.name, family.help, labels=labels)
            for label, value in self._facts.values[family.name].items():
                metric.add_metric(label.split(",") if labels else [], value)
            yield metric

    def _histogram(self, family: Family) -> Metric:
        metric = HistogramMetricFamily(family.name, family.help, labels=[family.label])
        for lane, buckets in self._facts.buckets.items():
            rows = [(edge, buckets[edge]) for edge in BUCKETS_S]
            metric.add_metric([lane], buckets=rows, sum_value=self._facts.sums[lane])
        return metric
