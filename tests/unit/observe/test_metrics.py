"""The exposition: exact names, zero from the first scrape, one label set, no dead-letter lane."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from unjam.core.breaker import Breaker
from unjam.core.document import RUNNING, State, Ticket
from unjam.core.errors import DependencyDown
from unjam.core.lease import LEASE_S
from unjam.core.ports import Equation, Ledger, Page, WorkerRef
from unjam.observe.metrics import BUCKETS_S, LANES, OUTCOMES, render_metrics
from unjam.queue.memory import MemoryQueue
from unjam.watchdog.remedies import REMEDIES

BY_QUEUE = {
    "rag_queue_length",
    "rag_queue_oldest_job_age_seconds",
    "rag_queue_paused",
    "rag_worker_active_jobs",
    "rag_workers_live",
    "rag_jobs_started_total",
    "rag_jobs_completed_total",
    "rag_jobs_failed_total",
}
OTHERS = {
    "rag_dlq_length",
    "rag_documents",
    "rag_documents_missing",
    "rag_embedding_requests_total",
    "rag_embedding_keys_ready",
    "rag_embedding_keys",
    "rag_watchdogs_live",
    "rag_incidents",
    "rag_redis_unsafe",
    "rag_vector_store_errors_total",
    "rag_recovery_actions_total",
    "rag_ingest_slo_total",
    "rag_ingest_slo_late_total",
}
HISTOGRAM = {f"rag_job_duration_seconds_{part}" for part in ("bucket", "sum", "count")}


class OneDocument:
    """As much of a document as the collector reads."""

    def __init__(self, lane: str, updated_at: float) -> None:
        self.lane = lane
        self.updated_at = updated_at


class StandingLedger:
    """A ledger that stands still at what the test says."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], float] = {}
        self.states: dict[State, int] = dict.fromkeys(State, 0)
        self.workers: list[tuple[WorkerRef, float]] = []
        self.queued: dict[str, OneDocument] = {}
        self.running: dict[State, list[OneDocument]] = {}
        self.missing = 0
        self.now = time.time

    async def counters(self) -> dict[tuple[str, str], float]:
        return self.counts

    async def dependency_states(self) -> dict[str, Breaker]:
        return {}

    async def state_counts(self) -> dict[State, int]:
        return self.states

    async def equation(self) -> Equation:
        return Equation(0, 0, 0, 0, 0, 0, 0, 0, self.missing)

    async def processes(self) -> list[tuple[WorkerRef, float]]:
        return self.workers

    async def in_line_since(self, lanes: Sequence[str]) -> dict[str, float]:
        since: dict[str, float] = {}
        for document in self.queued.values():
            if document.lane in lanes:
                at = since.setdefault(document.lane, document.updated_at)
                since[document.lane] = min(at, document.updated_at)
        return since

    async def list(self, *, state: State, cursor: str | None = None, limit: int = 50) -> Page:
        first = int(cursor or 0)
        rows = self.running.get(state, [])
        more = str(first + limit) if len(rows) > first + limit else None
        return Page(cast(Any, rows[first : first + limit]), more)


async def scrape(
    ledger: StandingLedger, queue: MemoryQueue | None = None, extra: Any = None
) -> dict[str, dict[str, float]]:
    """metric → "label values" → value."""
    body = await render_metrics(cast(Ledger, ledger), queue or MemoryQueue(), extra=extra)
    out: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            out.setdefault(sample.name, {})[",".join(sample.labels.values())] = sample.value
    return out


async def test_exactly_the_promised_names_all_at_zero() -> None:
    seen = await scrape(StandingLedger())
    assert set(seen) == BY_QUEUE | OTHERS | HISTOGRAM
    assert all(value == 0 for series in seen.values() for value in series.values())
    for name in BY_QUEUE | {"rag_job_duration_seconds_count"}:
        assert set(seen[name]) == set(LANES), name
    assert set(seen["rag_documents"]) == set(State)
    assert set(seen["rag_redis_unsafe"]) == {"eviction_policy", "appendonly_off"}
    assert set(seen["rag_recovery_actions_total"]) == {
        f"{remedy},{outcome}" for remedy in REMEDIES for outcome in OUTCOMES
    }


async def test_the_ledgers_counters_come_through() -> None:
    ledger = StandingLedger()
    ledger.counts = {
        ("jobs_started", "rag_processing"): 7,
        ("jobs_completed", "rag_processing"): 5,
        ("jobs_failed", "rag_high"): 1,
        ("jobs_completed", "rag_pdf"): 2,
        ("slo_total", "rag_processing"): 5,
        ("slo_total", "rag_high"): 1,
        ("slo_late", "rag_high"): 1,
        ("duration_sum", "rag_processing"): 12.5,
        ("duration_le:300", "rag_processing"): 5,
        ("duration_le:+Inf", "rag_processing"): 5,
        ("embedding_requests", "throttled"): 3,
        ("recovery:restart_worker:done", ""): 2,
        ("recovery:a_new_remedy:failed", ""): 1,
        ("vector_store_errors", "rag_processing"): 4,
        ("vector_store_errors", "rag_high"): 1,
    }
    seen = await scrape(ledger)
    assert seen["rag_jobs_started_total"]["rag_processing"] == 7
    assert seen["rag_jobs_completed_total"] == {
        **dict.fromkeys(LANES, 0), "rag_processing": 5, "rag_pdf": 2
    }  # fmt: skip
    assert set(seen["rag_queue_length"]) == {*LANES, "rag_pdf"}  # one label set everywhere
    assert seen["rag_jobs_failed_total"]["rag_high"] == 1
    assert (seen["rag_ingest_slo_total"][""], seen["rag_ingest_slo_late_total"][""]) == (6, 1)
    assert seen["rag_job_duration_seconds_bucket"]["300,rag_processing"] == 5
    assert seen["rag_job_duration_seconds_sum"]["rag_processing"] == 12.5
    assert seen["rag_job_duration_seconds_count"]["rag_processing"] == 5
    assert seen["rag_embedding_requests_total"]["throttled"] == 3
    assert seen["rag_recovery_actions_total"]["restart_worker,done"] == 2
    assert seen["rag_recovery_actions_total"]["a_new_remedy,failed"] == 1
    assert seen["rag_vector_store_errors_total"][""] == 5


async def test_lengths_ages_workers_and_work_in_hand() -> None:
    ledger, queue, now = StandingLedger(), MemoryQueue(), time.time()
    await queue.push([Ticket("d1", 1, "rag_processing"), Ticket("d2", 1, "rag_low")])
    await queue.park([Ticket("d9", 1, "rag_processing")])
    ledger.queued = {
        "d1": OneDocument("rag_processing", now - 90),
        "d2": OneDocument("rag_low", now - 30),
        "d3": OneDocument("rag_processing", now - 10),
    }
    ledger.states = {State.QUEUED: 3, State.EMBEDDING: 250, State.DEAD: 4}
    ledger.running = {State.EMBEDDING: [OneDocument("rag_high", now)] * 250}
    await queue.register_worker("w1", ["rag_high", "rag_processing"], 1)
    await queue.register_worker("w2", ["rag_processing"], 2)
    seen = await scrape(ledger, queue)
    assert seen["rag_queue_length"]["rag_low"] == 1
    assert seen["rag_queue_oldest_job_age_seconds"]["rag_processing"] == pytest.approx(90, abs=5)
    assert seen["rag_queue_oldest_job_age_seconds"]["rag_low"] == pytest.approx(30, abs=5)
    assert seen["rag_worker_active_jobs"]["rag_high"] == 250
    assert seen["rag_workers_live"] == {
        "rag_high": 1, "rag_low": 0, "rag_large_docs": 0, "rag_processing": 2
    }  # fmt: skip
    assert seen["rag_dlq_length"][""] == 4
    assert not any("rag_dlq" in key for series in seen.values() for key in series)


async def test_redis_away_keeps_length_age_and_workers_from_the_ledger() -> None:
    ledger, queue = StandingLedger(), MemoryQueue()
    queue.away = True
    ledger.states = {State.QUEUED: 60, State.RECEIVED: 3}
    ledger.queued = {"d1": OneDocument("rag_pdf", time.time() - 90)}
    ledger.counts = {("jobs_completed", "rag_pdf"): 1}
    ledger.workers = [
        (WorkerRef("w1", "h", 1, "0"), 1.0),
        (WorkerRef("w2", "h", 2, "0", "stock"), 2.0),
        (WorkerRef("w3", "h", 3, "0"), LEASE_S + 1),
        (WorkerRef("w4", "h", 4, "0", "watchdog"), 0.0),
    ]
    seen = await scrape(ledger, queue)
    assert seen["rag_queue_length"]["rag_processing"] == 63
    assert seen["rag_queue_oldest_job_age_seconds"]["rag_pdf"] == pytest.approx(90, abs=5)
    assert seen["rag_workers_live"] == dict.fromkeys((*LANES, "rag_pdf"), 2)
    assert seen["rag_watchdogs_live"][""] == 1


async def test_ledger_away_is_said_so() -> None:
    class Away(StandingLedger):
        async def counters(self) -> dict[tuple[str, str], float]:
            raise DependencyDown("disk full", code="ledger_unwritable")

    with pytest.raises(DependencyDown):
        await scrape(Away())


async def test_extra_values_override_and_must_have_a_name_that_exists() -> None:
    seen = await scrape(
        StandingLedger(),
        extra={("rag_queue_paused", "rag_low"): 1, ("rag_embedding_keys_ready", ""): 2},
    )
    assert seen["rag_queue_paused"]["rag_low"] == 1
    assert seen["rag_embedding_keys_ready"][""] == 2
    with pytest.raises(KeyError):
        await scrape(StandingLedger(), extra={("rag_typo", ""): 1})


def test_edges_are_those_that_the_ledger_counts() -> None:
    from unjam.stores.ledger.claims import DURATION_BUCKETS_S

    assert (*map(str, DURATION_BUCKETS_S), "+Inf") == BUCKETS_S
    assert "300" in BUCKETS_S
    assert {State.PARSING, State.STORING} <= RUNNING
