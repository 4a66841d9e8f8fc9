"""The operators' levers over HTTP: order, lanes, pauses, ringing again, settings, audit."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.fixtures.web import ADMIN, WORKER, Web
from unjam.core.document import State, Ticket
from unjam.core.tuning import KNOBS
from unjam.queue.lanes import DEFAULT_LANES, HIGH, LARGE, LOW, PROCESSING

ADMIN_PATH = "/api/rag/admin"
TOKEN = {"Authorization": f"Bearer {ADMIN}"}
MIB = 1_048_576


async def post(web: Web, path: str, body: object, **headers: str) -> httpx.Response:
    return await web.http.post(f"{ADMIN_PATH}/{path}", json=body, headers={**TOKEN, **headers})


async def done(web: Web, path: str, body: object) -> Any:
    answer = await post(web, path, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def get(web: Web, path: str, **params: str) -> Any:
    answer = await web.http.get(f"{ADMIN_PATH}/{path}", headers=TOKEN, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def documents(web: Web, count: int, size: int = 20, user: str = "") -> list[str]:
    fields = {"user_id": user} if user else {}
    ids = [
        await web.added(f"{user} {n} ".encode().ljust(size + n, b"x"), f"{n}.txt", **fields)
        for n in range(count)
    ]
    await in_line(web)
    return ids


async def in_line(web: Web) -> None:
    """All that was uploaded stands in its lane (the doorbell rings in the background)."""
    tickets = await web.house.ledger.pushable(1000)
    await web.house.queue.push(tickets)
    await web.house.ledger.mark_pushed(tickets)


async def serve_all(web: Web) -> None:
    await web.house.queue.register_worker("w1", DEFAULT_LANES, 1)


async def line(web: Web, lane: str = PROCESSING) -> list[str]:
    return [t.document_id for t in await web.house.queue.take([lane], 1000, "w1")]


async def lanes_of(web: Web, ids: list[str]) -> list[str]:
    found = {d.id: d.lane for d in await web.house.ledger.get_many(ids)}
    return [found[i] for i in ids]


async def test_the_runbooks_reorder_call(web: Web) -> None:
    """curl sends JSON under a form's content type."""
    ids = await documents(web, 5)
    await web.house.queue.to_front(PROCESSING, [Ticket(i, 1, PROCESSING) for i in reversed(ids)])
    answer = await web.http.post(
        f"{ADMIN_PATH}/reorder-queue",
        content=b'{"strategy": "oldest_first", "limit": 100}',
        headers={**TOKEN, "Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"moved": 5, "ids": ids}
    assert await line(web) == ids


async def test_each_strategy(web: Web) -> None:
    ann = await documents(web, 3, 100, "ann")
    ben = await documents(web, 2, 10, "ben")
    ids = [*ann, *ben]
    expected = {
        "oldest_first": ids,
        "newest_first": ids[::-1],
        "smallest_first": [*ben, *ann],
        "largest_first": [*ann[::-1], *ben[::-1]],
        "fair": [ann[0], ben[0], ann[1], ben[1], ann[2]],
    }
    for strategy, order in expected.items():
        body = await done(web, "reorder-queue", {"strategy": strategy})
        assert body == {"moved": 5, "ids": order}, strategy
    two = await done(web, "reorder-queue", {"strategy": "newest_first", "limit": 2})
    assert two["ids"] == ids[:2:-1]
    assert await line(web) == [
        ids[4],
        ids[3],
        ann[0],
        ben[0] if ben[0] in ids[:3] else ann[1],
        ann[2],
    ]


async def test_reorder_is_refused_by_name(web: Web) -> None:
    for body, named in (
        ({"strategy": "random"}, "strategy"),
        ({"strategy": "fair", "limit": 0}, "limit"),
        ({"strategy": "fair", "lane": "x"}, "lane"),
        ({"strategy": "fair", "queue": "rag_dlq"}, "rag_dlq"),
        ({"strategy": "fair", "queue": "rag_typo"}, "rag_typo"),
    ):
        answer = await post(web, "reorder-queue", body)
        assert answer.status_code == 422, answer.text
        assert named in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["reorder-queue", "separate-large-jobs", "prioritize-queue", "pause", "resume"]
)
async def test_without_a_token_it_says_how(web: Web, path: str) -> None:
    answer = await web.http.post(f"{ADMIN_PATH}/{path}", content=b"{}")
    assert answer.status_code == 401
    assert "ADMIN_TOKEN" in answer.json()["hint"]


async def test_the_runbooks_separate_call(web: Web) -> None:
    await serve_all(web)
    small = await documents(web, 2)
    large = await web.added(b"y" * (2 * MIB + 1), "large.txt")
    edge = await web.added(b"z" * (2 * MIB), "edge.txt")
    await in_line(web)
    body = {"size_threshold_mb": 2, "target_queue": "rag_large_docs"}
    assert await done(web, "separate-large-jobs", body) == {"moved": 1, "ids": [large]}
    assert await lanes_of(web, [*small, large, edge]) == [PROCESSING] * 2 + [LARGE, PROCESSING]
    assert await done(web, "separate-large-jobs", body) == {"moved": 0, "ids": []}
    assert await line(web, LARGE) == [large]


async def test_a_lane_that_nobody_serves_is_refused(web: Web) -> None:
    await web.house.queue.register_worker("w1", [PROCESSING], 1)
    ids = await documents(web, 1)
    answer = await post(web, "separate-large-jobs", {"size_threshold_mb": 0})
    assert (answer.status_code, answer.json()["code"]) == (422, "lane_unserved")
    assert LARGE in answer.json()["detail"]
    answer = await post(web, "prioritize-queue", {"rules": [{"priority": "high"}]})
    assert (answer.status_code, answer.json()["code"]) == (422, "lane_unserved")
    assert await lanes_of(web, ids) == [PROCESSING]


async def test_the_runbooks_prioritize_call(web: Web) -> None:
    await serve_all(web)
    tiny = await documents(web, 2, 10)
    middle = await web.added(b"m" * (6 * MIB), "middle.txt")
    large = await web.added(b"l" * (21 * MIB), "large.txt")
    await in_line(web)
    working = await web.added(b"at work", "work.txt")
    await web.house.claim(working)
    rules = [
        {"file_size_mb": {"$lt": 5}, "priority": "high"},
        {"file_size_mb": {"$lt": 20}, "priority": "normal"},
        {"file_size_mb": {"$gte": 20}, "priority": "low"},
    ]
    counts = {"high": 2, "normal": 1, "low": 1, "unmatched": 0}
    assert await done(web, "prioritize-queue", {"rules": rules}) == counts
    assert await lanes_of(web, [*tiny, middle, large]) == [HIGH, HIGH, PROCESSING, LOW]
    assert await done(web, "prioritize-queue", {"rules": rules}) == counts
    lengths = await web.house.queue.lengths()
    assert (lengths[HIGH], lengths[LOW], lengths[LARGE]) == (2, 1, 0)
    back = {"rules": [{"file_size_mb": {"$gte": 20}, "priority": "normal"}]}
    assert (await done(web, "prioritize-queue", back))["unmatched"] == 3
    assert await lanes_of(web, [large]) == [LARGE]  # where it belongs by its size


async def test_an_unknown_field_or_operator_is_named(web: Web) -> None:
    await serve_all(web)
    for rule, named in (
        ({"filesize": {"$lt": 5}, "priority": "high"}, "filesize"),
        ({"file_size_mb": {"$below": 5}, "priority": "high"}, "$below"),
    ):
        answer = await post(web, "prioritize-queue", {"rules": [rule]})
        assert answer.status_code == 422
        assert named in answer.json()["detail"]


async def test_a_paused_lane_says_so_and_is_claimed_by_nobody(web: Web) -> None:
    (waits,) = await documents(web, 1)
    assert await done(web, "pause", {"queue": PROCESSING}) == {"paused": [PROCESSING]}
    assert (await web.http.get(f"/api/rag/documents/{waits}")).json()["reason"] == "paused"
    later = await web.added(b"uploads go on")
    ticket = Ticket(waits, 1, PROCESSING)
    (answer,) = await web.house.ledger.claim([ticket], WORKER, 1000)
    assert answer.kind == "no_slot"
    queues = {q["name"]: q for q in (await get(web, "queues"))["queues"]}
    assert (queues[PROCESSING]["paused"], queues[LOW]["paused"]) == (True, False)
    metrics = (await web.http.get("/metrics")).text
    assert 'rag_queue_paused{queue="rag_processing"} 1.0' in metrics
    assert 'rag_queue_paused{queue="rag_low"} 0.0' in metrics
    assert await done(web, "resume", {"queue": LOW}) == {"paused": [PROCESSING]}
    assert await done(web, "resume", {"queue": PROCESSING}) == {"paused": []}
    assert (await web.http.get(f"/api/rag/documents/{later}")).json()["reason"] == "in_line"
    (answer,) = await web.house.ledger.claim([ticket], WORKER, 1000)
    assert answer.kind == "claimed"


async def test_all_lanes_pause_and_one_word_ends_every_pause(web: Web) -> None:
    (waits,) = await documents(web, 1)
    await done(web, "pause", {"queue": LOW})
    assert await done(web, "pause", {}) == {"paused": ["*", LOW]}
    assert all(q["paused"] for q in (await get(web, "queues"))["queues"] if q["name"] != "rag_dlq")
    document = await web.http.get(f"/api/rag/documents/{waits}", headers={"Accept-Language": "ko"})
    assert document.json()["reason"] == "paused"
    assert "unjam queue resume" in document.json()["hint"]
    assert await done(web, "resume", {"queue": LOW}) == {"paused": ["*"]}
    await done(web, "pause", {"queue": HIGH})
    assert await done(web, "resume", {}) == {"paused": []}
    answer = await post(web, "pause", {"queue": "rag_typo"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_lane")


async def test_ringing_again(web: Web) -> None:
    lost, there, ended = await documents(web, 3)
    await web.house.finish(ended, ["text"])
    web.house.queue.lose_everything()
    await web.house.queue.push([Ticket(there, 1, PROCESSING)])
    asked = {"ids": [lost, there, ended, "nobody"]}
    body = await done(web, "requeue", asked)
    assert body == {"requeued": 1, "ids": [lost], "in_line": 1, "skipped": [ended, "nobody"]}
    again = await done(web, "requeue", asked)
    assert (again["requeued"], again["in_line"]) == (0, 2)
    web.house.queue.lose_everything()
    body = await done(web, "requeue", {"queue": PROCESSING})
    assert sorted(body["ids"]) == sorted([lost, there])
    assert sorted(await line(web)) == sorted([lost, there])
    document = await web.house.ledger.get(lost)
    assert document is not None
    assert document.state is State.QUEUED


async def test_settings_change_within_their_bounds_and_go_back(web: Web) -> None:
    items = {s["name"]: s for s in (await get(web, "settings"))["items"]}
    assert set(items) == set(KNOBS)
    size = items["RAG_EMBEDDING_BATCH_SIZE"]
    assert (size["value"], size["start"], size["changed"]) == (32, 32, False)
    assert (size["low"], size["high"], size["unit"]) == (1, 2048, "texts per request")

    async def patch(body: object) -> httpx.Response:
        return await web.http.patch(f"{ADMIN_PATH}/settings", json=body, headers=TOKEN)

    answer = await patch({"RAG_EMBEDDING_BATCH_SIZE": 16, "RAG_EMBEDDING_CONCURRENCY": 2})
    assert answer.status_code == 200, answer.text
    items = {s["name"]: s for s in answer.json()["items"]}
    assert items["RAG_EMBEDDING_BATCH_SIZE"]["value"] == 16
    assert items["RAG_EMBEDDING_BATCH_SIZE"]["changed"]
    for body, named in (
        ({"RAG_EMBEDDING_CONCURRENCY": 4, "RAG_TYPO": 1}, "RAG_TYPO"),
        ({"RAG_TYPO": None}, "RAG_TYPO"),
        ({"RAG_EMBEDDING_CONCURRENCY": 65}, "1 to 64"),
        ({"RAG_EMBEDDING_CONCURRENCY": "4x"}, "RAG_EMBEDDING_CONCURRENCY"),
    ):
        answer = await patch(body)
        assert answer.status_code == 422, answer.text
        assert named in answer.json()["detail"]
    assert (await web.house.ledger.knobs())["RAG_EMBEDDING_CONCURRENCY"] == 2
    assert (await patch({"RAG_EMBEDDING_BATCH_SIZE": None})).status_code == 200
    assert "RAG_EMBEDDING_BATCH_SIZE" not in await web.house.ledger.knobs()


async def test_the_audit_tells_who_did_what(web: Web) -> None:
    await documents(web, 2)
    await post(web, "reorder-queue", {"strategy": "fair"}, **{"X-Operator": "kim"})
    await done(web, "pause", {"queue": LOW})
    await done(web, "pause", {"queue": LOW})
    await done(web, "resume", {})
    await web.http.patch(
        f"{ADMIN_PATH}/settings", content=json.dumps({"RAG_EMBEDDING_DELAY_MS": 5}), headers=TOKEN
    )
    body = await get(web, "audit")
    assert [(e["by"], e["action"]) for e in body["items"]] == [
        ("operator", "set_knob"),
        ("operator", "resume"),
        ("operator", "pause"),
        ("operator kim", "reorder_queue"),
    ]
    assert body["items"][0]["data"] == {
        "name": "RAG_EMBEDDING_DELAY_MS",
        "value": 5,
        "before": None,
    }
    assert body["next_cursor"] is None
    first = await get(web, "audit", limit="3")
    rest = await get(web, "audit", limit="3", cursor=first["next_cursor"])
    assert [*first["items"], *rest["items"]] == body["items"]
    answer = await web.http.get(f"{ADMIN_PATH}/audit?cursor=x", headers=TOKEN)
    assert answer.status_code == 422
