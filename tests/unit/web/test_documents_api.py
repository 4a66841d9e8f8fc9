"""Documents over HTTP: looking, changing, searching, and the equation."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from tests.fixtures.web import Web
from unjam.core.document import State, Ticket
from unjam.core.ports import Progress
from unjam.testing.wait import until
from unjam.web.schemas import DocumentOut

FIELDS = set(DocumentOut.model_fields)


async def get(web: Web, document_id: str) -> dict:
    answer = await web.http.get(f"/api/rag/documents/{document_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_new_document_is_described_in_full(web: Web) -> None:
    before = datetime.now(UTC)
    document_id = await web.added(
        b"Hello\n", "notes.md", user_id="kim", metadata='{"team": "hr", "tags": ["a", "b"]}'
    )
    seen = await get(web, document_id)
    assert set(seen) == FIELDS
    assert seen["filename"] == "notes.md"
    assert seen["media_type"] == "text/markdown"
    assert seen["size_bytes"] == 6
    assert seen["user_id"] == "kim"
    assert seen["metadata"] == {"team": "hr", "tags": ["a", "b"]}
    assert seen["generation"] == 1
    assert seen["chunks"] == 0
    assert seen["searchable_at"] is None
    assert seen["reason"] == "in_line"
    assert "workers" in seen["hint"]
    assert seen["created_at"].endswith("Z")
    created = datetime.fromisoformat(seen["created_at"])
    assert abs((created - before).total_seconds()) < 10


async def test_the_doorbell_rings_after_the_answer(web: Web) -> None:
    document_id = await web.added(b"ring")
    await until("queued", lambda: get(web, document_id), lambda d: d["state"] == "queued")
    assert (await web.house.queue.lengths())["rag_processing"] == 1


async def test_accepted_although_the_queue_is_away(web: Web) -> None:
    web.house.queue.away = True
    document_id = await web.added(b"nobody hears the bell")
    await web.house.intake.close()
    assert (await get(web, document_id))["state"] == "received"
    assert [t.document_id for t in await web.house.ledger.pushable(10)] == [document_id]
    web.house.queue.away = False
    again = await web.added(b"heard")
    await until("queued", lambda: get(web, again), lambda d: d["state"] == "queued")


async def test_progress_of_a_running_document(web: Web) -> None:
    document_id = await web.added(b"long")
    claim = await web.house.claim(document_id)
    await web.house.ledger.report(Progress(document_id, claim.token, State.EMBEDDING, 3, 7))
    seen = await get(web, document_id)
    assert seen["progress"] == {"stage": "embedding", "done": 3, "total": 7}
    assert seen["reason"] == ""


async def test_a_waiting_document_says_why_and_until_when(web: Web) -> None:
    document_id = await web.added(b"later")
    await web.house.snooze(document_id)
    seen = await get(web, document_id)
    assert (seen["state"], seen["reason"], seen["detail"]) == (
        "waiting",
        "embedding_down",
        "HTTP 503",
    )
    assert "OPENAI_BASE_URL" in seen["hint"]
    wait_s = (datetime.fromisoformat(seen["next_step_at"]) - datetime.now(UTC)).total_seconds()
    assert 30 < wait_s <= 60


async def test_hints_come_in_the_callers_language(web: Web) -> None:
    document_id = await web.added(b"locked")
    await web.house.park(document_id)
    korean = await web.http.get(
        f"/api/rag/documents/{document_id}",
        headers={"Accept-Language": "fr, ko-KR;q=0.9, en;q=0.1"},
    )
    assert korean.json()["hint"] == "암호를 해제한 뒤 다시 업로드하세요."
    assert "password" in (await get(web, document_id))["hint"]


async def test_listing_pages_newest_first_and_filters(web: Web) -> None:
    ids = [await web.added(f"{n}".encode(), user_id="kim" if n % 2 else "lee") for n in range(7)]
    seen: list[str] = []
    cursor, pages = None, 0
    while True:
        params = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        body = (await web.http.get("/api/rag/documents", params=params)).json()
        seen += [d["id"] for d in body["items"]]
        cursor, pages = body["next_cursor"], pages + 1
        if cursor is None:
            break
    assert seen == ids[::-1]
    assert pages == 3
    mine = (await web.http.get("/api/rag/documents", params={"user_id": "kim"})).json()["items"]
    assert {d["id"] for d in mine} == set(ids[1::2])
    await web.house.park(ids[0])
    dead = (await web.http.get("/api/rag/documents", params={"state": "dead"})).json()["items"]
    assert [d["id"] for d in dead] == [ids[0]]


@pytest.mark.parametrize(
    "query", ["state=flying", "limit=0", "limit=201", "limit=x", "user_id=%00"]
)
async def test_a_wrong_question_names_its_field(web: Web, query: str) -> None:
    answer = await web.http.get(f"/api/rag/documents?{query}")
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid"
    assert query.partition("=")[0] in answer.json()["detail"]


async def test_chunks_come_in_pages_with_their_pages(web: Web) -> None:
    document_id = await web.added(b"book")
    path = f"/api/rag/documents/{document_id}/chunks"
    assert (await web.http.get(path)).json() == {"items": [], "next_cursor": None}
    await web.house.finish(document_id, [f"chunk number {n}" for n in range(5)])
    first = (await web.http.get(path, params={"limit": "3"})).json()
    assert [c["index"] for c in first["items"]] == [0, 1, 2]
    assert first["items"][1]["text"] == "chunk number 1"
    assert (first["items"][1]["page"], first["items"][1]["section"]) == (2, "Part")
    params = {"limit": "3", "cursor": first["next_cursor"]}
    rest = (await web.http.get(path, params=params)).json()
    assert [c["index"] for c in rest["items"]] == [3, 4]
    assert rest["next_cursor"] is None
    beyond = await web.http.get(path, params={"cursor": "999"})
    assert beyond.json()["items"] == []
    wrong = await web.http.get(path, params={"cursor": "abc"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_cursor")


async def test_search_finds_what_is_searchable_and_cites_it(web: Web) -> None:
    one = await web.added(b"1", "leave.txt", user_id="kim", metadata='{"team": "hr"}')
    two = await web.added(b"2", "fire.txt", user_id="lee")
    await web.house.finish(one, ["annual leave is fifteen days", "parental leave"])
    await web.house.finish(two, ["the fire extinguisher hangs at the door"])
    answer = await web.http.post(
        "/api/rag/search", json={"query": "annual leave is fifteen days", "k": 2}
    )
    assert answer.status_code == 200, answer.text
    hits = answer.json()["hits"]
    assert len(hits) == 2
    best = hits[0]
    assert (best["document_id"], best["filename"], best["page"]) == (one, "leave.txt", 1)
    assert best["text"] == "annual leave is fifteen days"
    assert best["score"] == pytest.approx(1.0, abs=1e-4)
    assert best["metadata"] == {"team": "hr"}
    filtered = await web.http.post(
        "/api/rag/search",
        json={"query": "annual leave is fifteen days", "k": 5, "filter": {"user_id": "lee"}},
    )
    assert {h["document_id"] for h in filtered.json()["hits"]} == {two}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": ""},
        {"query": " \u0000 "},
        {"query": "x", "k": 0},
        {"query": "x", "k": 101},
        {"query": "x", "size": 3},
        {"query": "x", "filter": {"team": {"$near": 1}}},
    ],
)
async def test_an_unfit_search_is_refused(web: Web, body: dict) -> None:
    answer = await web.http.post("/api/rag/search", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]


async def test_a_lone_surrogate_in_a_query_is_refused(web: Web) -> None:
    answer = await web.http.post(
        "/api/rag/search",
        content=b'{"query": "bad \\ud800 text"}',
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422, answer.text


async def test_put_makes_a_new_generation_and_keeps_what_is_not_given(web: Web) -> None:
    document_id = await web.added(b"A", "a.txt", user_id="kim", metadata='{"v": 1}')
    await web.house.finish(document_id, ["first"])
    path = f"/api/rag/documents/{document_id}"
    answer = await web.http.put(path, files=[("file", ("b.txt", b"B"))])
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == path
    seen = await get(web, document_id)
    assert (seen["generation"], seen["visible_generation"]) == (2, 1)
    assert seen["metadata"] == {"v": 1}
    assert seen["user_id"] == "kim"
    chunks = (await web.http.get(f"{path}/chunks")).json()["items"]
    assert [c["text"] for c in chunks] == ["first"]
    await web.house.finish(document_id, ["second", "third"])
    chunks = (await web.http.get(f"{path}/chunks")).json()["items"]
    assert [c["text"] for c in chunks] == ["second", "third"]


async def test_put_of_an_unknown_document_is_refused_before_the_body(web: Web) -> None:
    answer = await web.http.put("/api/rag/documents/nobody", files=[("file", ("a", b"x"))])
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert list((web.house.blobs.root / "tmp").glob("up-*")) == []


async def test_cancel_retry_and_delete(web: Web) -> None:
    document_id = await web.added(b"x")
    path = f"/api/rag/documents/{document_id}"
    cancelled = await web.http.post(f"{path}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    retried = await web.http.post(f"{path}/retry")
    assert retried.status_code == 202
    assert retried.json()["state"] in ("received", "queued")
    await until("queued", lambda: get(web, document_id), lambda d: d["state"] == "queued")
    again = await web.http.post(f"{path}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    await web.house.finish(document_id, ["text"])
    late = await web.http.post(f"{path}/cancel")
    assert (late.status_code, late.json()["code"]) == (409, "conflict")
    assert (await web.http.delete(path)).status_code == 204
    assert (await web.http.delete(path)).status_code == 204
    assert (await get(web, document_id))["state"] == "deleted"
    assert (await web.http.put(path, files=[("file", ("a", b"x"))])).status_code == 404
    hits = await web.http.post("/api/rag/search", json={"query": "text"})
    assert hits.json()["hits"] == []


async def test_an_unknown_id_is_a_404(web: Web) -> None:
    calls = (
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/chunks"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("DELETE", ""),
    )
    for document_id in ("nobody", "%00", "..%2f..", "a" * 150, "é"):
        for method, tail in calls:
            path = f"/api/rag/documents/{document_id}{tail}"
            answer = await web.http.request(method, path)
            assert answer.status_code == 404, (method, path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "not_found"


async def test_the_equation_holds_after_all_kinds_of_ends(web: Web) -> None:
    ids = [await web.added(f"doc {n}".encode()) for n in range(6)]
    await web.house.finish(ids[0], ["a"])
    await web.house.park(ids[1])
    await web.house.snooze(ids[2])
    await web.http.post(f"/api/rag/documents/{ids[3]}/cancel")
    await web.http.delete(f"/api/rag/documents/{ids[4]}")
    await web.upload(b"doc 5")
    assert (await web.http.get("/api/rag/ledger")).json() == {
        "accepted": 6,
        "searchable": 1,
        "running": 0,
        "queued": 1,
        "waiting": 1,
        "dead": 1,
        "cancelled": 1,
        "deleted": 1,
        "missing": 0,
    }


async def test_the_doorbell_merges_concurrent_uploads(web: Web) -> None:
    pushes: list[int] = []
    release = asyncio.Event()
    push = web.house.queue.push

    async def slow(tickets: list[Ticket]) -> None:
        pushes.append(len(tickets))
        await release.wait()
        await push(tickets)

    web.house.queue.push = slow  # type: ignore[method-assign]
    await asyncio.gather(*(web.added(f"m{n}".encode()) for n in range(20)))
    release.set()
    await web.house.intake.close()
    assert sum(pushes) == 20
    assert len(pushes) <= 3, pushes
