"""``/api/queues`` as the runbook calls it, and how long a document will still take."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time

import sqlalchemy as sa

from tests.fixtures.web import Web
from unjam.observe.forecast import FRESH_S
from unjam.stores import schema


async def sh(command: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run, ["bash", "-c", command], capture_output=True, text=True, check=True
    )
    return done.stdout


async def test_the_runbooks_curl_and_jq(web: Web) -> None:
    first = await web.added(b"one", "1.txt")
    await web.added(b"two", "2.txt")
    await web.house.queue.register_worker("w1", ["rag_processing", "rag_high"], 1)
    with web.house.ledger._dialect.writer().begin() as conn:
        stale = sa.update(schema.documents).where(schema.documents.c.id == first)
        conn.execute(stale.values(updated_at=time.time() - 90))
    text = await sh(
        f"curl -s http://localhost:{web.dashboard_port}/api/queues"
        """ | jq '.queues[] | select(.name=="rag_processing")'"""
    )
    lane = json.loads(text)
    assert 90 <= lane.pop("oldest_age_s") < 100
    assert lane == {
        "name": "rag_processing",
        "count": 2,
        "started": 0,
        "failed": 0,
        "scheduled": 0,
        "deferred": 0,
        "finished": 0,
        "workers": 1,
        "paused": False,
    }
    names = await sh(
        f"curl -s http://localhost:{web.dashboard_port}/api/queues | jq -r '.queues[].name'"
    )
    assert names.split() == [
        "rag_high", "rag_processing", "rag_low", "rag_large_docs", "rag_dlq"
    ]  # fmt: skip


async def test_an_empty_lane_has_no_age(web: Web) -> None:
    board = f"http://127.0.0.1:{web.dashboard_port}"
    queues = (await web.http.get(f"{board}/api/queues")).json()["queues"]
    assert {q["oldest_age_s"] for q in queues} == {None}


async def test_redis_away_is_said_and_the_status_page_goes_on(web: Web) -> None:
    web.house.queue.away = True
    board = f"http://127.0.0.1:{web.dashboard_port}"
    answer = await web.http.get(f"{board}/api/queues")
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_down")
    status = (await web.http.get(f"{board}/api/status")).json()
    assert status["queues"] == [] and not status["readiness"]["ready"]
    assert status["ledger"]["accepted"] == 0


async def test_metrics_know_age_and_workers_by_lane(web: Web) -> None:
    await web.added(b"one", "1.txt")
    await web.house.queue.register_worker("w1", ["rag_processing"], 1)
    text = (await web.http.get("/metrics")).text
    assert 'rag_workers_live{queue="rag_processing"} 1.0' in text
    assert 'rag_workers_live{queue="rag_low"} 0.0' in text
    assert 'rag_queue_oldest_job_age_seconds{queue="rag_low"} 0.0' in text
    assert 'rag_queue_paused{queue="rag_processing"} 0.0' in text


async def test_an_eta_is_null_until_the_lane_has_a_pace(web: Web) -> None:
    house = web.house
    first = await web.added(b"one", "1.txt")
    await house.queue.register_worker("w1", ["rag_processing"], 1)
    assert (await web.http.get(f"/api/rag/documents/{first}")).json()["eta_s"] is None
    await house.finish(first, ["one"])
    second = await web.added(b"two", "2.txt")
    for app in web.apps:
        if forecaster := getattr(app.state, "forecaster", None):
            forecaster._looked -= 2 * FRESH_S
    body = (await web.http.get(f"/api/rag/documents/{second}")).json()
    assert 0 < body["eta_s"] < 120
    items = (await web.http.get("/api/rag/documents")).json()["items"]
    assert {i["id"]: i["eta_s"] for i in items} == {first: None, second: body["eta_s"]}
