"""``/metrics`` over a socket: the contract's names and labels, at zero from the first scrape."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from tests.fixtures.web import Web, open_house, run_web
from unjam.core.document import State
from unjam.observe.alert_table import ALERTS
from unjam.observe.alerts import read_scrape
from unjam.observe.metrics import LANES
from unjam.queue.safety import dangers
from unjam.worker.embedded import Server

CONTRACT = {
    "rag_queue_length": "queue",
    "rag_queue_oldest_job_age_seconds": "queue",
    "rag_queue_paused": "queue",
    "rag_worker_active_jobs": "queue",
    "rag_workers_live": "queue",
    "rag_jobs_started_total": "queue",
    "rag_jobs_completed_total": "queue",
    "rag_jobs_failed_total": "queue",
    "rag_job_duration_seconds_bucket": "le,queue",
    "rag_job_duration_seconds_sum": "queue",
    "rag_job_duration_seconds_count": "queue",
    "rag_dlq_length": "",
    "rag_documents": "state",
    "rag_documents_missing": "",
    "rag_embedding_requests_total": "outcome",
    "rag_embedding_keys_ready": "",
    "rag_redis_unsafe": "reason",
    "rag_vector_store_errors_total": "",
    "rag_recovery_actions_total": "action,outcome",
    "rag_ingest_slo_total": "",
    "rag_ingest_slo_late_total": "",
}


async def scraped(web: Web) -> str:
    answer = await web.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


async def test_the_first_scrape_holds_every_series_at_zero(web: Web) -> None:
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(await scraped(web)):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).add(",".join(sorted(sample.labels)))
            assert sample.value == 0, sample
            assert "rag_dlq" not in sample.labels.values()
            if "queue" in sample.labels:
                assert sample.labels["queue"] in LANES
    for name, wanted in CONTRACT.items():
        assert labels.get(name) == {wanted}, name


async def test_every_lane_has_every_series_with_one_label_set(web: Web) -> None:
    await web.added(b"a document that waits", "a.txt")
    scrape = read_scrape(await scraped(web))
    for name, label in CONTRACT.items():
        if label == "queue":
            assert set(scrape[name]) == {(lane,) for lane in LANES}, name
    assert set(scrape["rag_documents"]) == {(state,) for state in State}
    assert scrape["rag_queue_length"]["rag_processing",] == 1
    firing = [a.name for a in ALERTS if a.now is not None and a.now(scrape)]
    assert firing == ["NoActiveRAGWorkers", "RAGNoLiveWorkers", "RAGWatchdogAbsent"]


async def test_a_deletable_queue_is_told_at_the_next_scrape(
    tmp_path: Path, redis_url: str, valkey_server: Server
) -> None:
    redis = Redis.from_url(valkey_server.admin_url)
    house = await open_house(tmp_path / "data", RAG_REDIS_URL=redis_url)
    try:
        async for web in run_web(house):
            assert "eviction_policy" not in _unsafe(await scraped(web))
            await redis.config_set("maxmemory-policy", "allkeys-lru")
            assert "eviction_policy" in _unsafe(await scraped(web))
            await redis.config_set("maxmemory-policy", "noeviction")
            assert "eviction_policy" not in _unsafe(await scraped(web))
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
        await redis.aclose()
        await house.close()


def _unsafe(text: str) -> set[str]:
    return {reason for (reason,), n in read_scrape(text)["rag_redis_unsafe"].items() if n}


def test_what_is_unsafe_in_an_answer_of_redis() -> None:
    assert dangers({"maxmemory_policy": "noeviction", "aof_enabled": 1}) == frozenset()
    assert dangers({"maxmemory_policy": "volatile-ttl", "aof_enabled": 1}) == {"eviction_policy"}
    assert dangers({"maxmemory_policy": "noeviction", "aof_enabled": 0}) == {"appendonly_off"}
    assert dangers({}) == frozenset()
