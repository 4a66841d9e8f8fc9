"""The operators' dead letters over HTTP: groups, evidence, retry and drop by filter."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.web import ADMIN, Web
from unjam.core.document import State
from unjam.core.reasons import REASONS

DLQ = "/api/rag/admin/dlq"
TOKEN = {"Authorization": f"Bearer {ADMIN}"}


async def ask(web: Web, path: str = "", **params: str) -> Any:
    answer = await web.http.get(DLQ + path, headers=TOKEN, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def parked(web: Web, count: int, reason: str = "corrupt", user: str = "") -> list[str]:
    fields = {"user_id": user} if user else {}
    ids = [
        await web.added(f"{reason} {user} {n}".encode(), f"{n}.txt", **fields) for n in range(count)
    ]
    for document_id in ids:
        await web.house.park(document_id, reason)
    return ids


async def test_groups_items_and_totals(web: Web) -> None:
    assert await ask(web) == {"items": [], "next_cursor": None, "total": 0, "groups": []}
    corrupt = await parked(web, 3)
    (encrypted,) = await parked(web, 1, "encrypted", "kim")
    body = await ask(web, limit="2")
    assert [g["reason"] for g in body["groups"]] == ["corrupt", "encrypted"]
    assert [g["count"] for g in body["groups"]] == [3, 1]
    assert body["groups"][0]["hint"] == REASONS["corrupt"].hint
    assert body["total"] == 4
    assert [d["id"] for d in body["items"]] == [encrypted, corrupt[2]]
    rest = await ask(web, cursor=body["next_cursor"])
    assert [d["id"] for d in rest["items"]] == corrupt[1::-1]
    assert [d["id"] for d in (await ask(web, user_id="kim"))["items"]] == [encrypted]
    assert (await ask(web, reason="corrupt"))["total"] == 3
    korean = await web.http.get(DLQ, headers={**TOKEN, "Accept-Language": "ko"})
    assert korean.json()["groups"][0]["what"] == REASONS["corrupt"].what_ko


async def test_one_with_its_evidence(web: Web) -> None:
    (document_id,) = await parked(web, 1)
    letter = await ask(web, f"/{document_id}")
    assert (letter["id"], letter["reason"], letter["detail"]) == (
        document_id,
        "corrupt",
        "page 1 of 3",
    )
    assert letter["what"] == REASONS["corrupt"].what
    assert letter["evidence"]["step"] == "parsing"
    assert letter["history"][-1]["kind"] == "dead"
    assert letter["died_at"].endswith("Z")
    for other in ("nobody", await web.added(b"alive"), "%00", "a/b"):
        answer = await web.http.get(f"{DLQ}/{other}", headers=TOKEN)
        assert answer.status_code in (404, 422)


# As the runbook's curl sends it, too: form content type around JSON.
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", ""])
async def test_retry_by_filter(web: Web, kind: str) -> None:
    corrupt = await parked(web, 2)
    others = await parked(web, 1, "encrypted")
    answer = await web.http.post(
        f"{DLQ}/retry",
        content=b'{"filter": {"reason": "corrupt"}, "expected": 2}',
        headers={**TOKEN, "Content-Type": kind},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"retried": 2, "ids": sorted(corrupt), "remaining": 0}
    for document_id in corrupt:
        await web.house.finish(document_id, ["it works now"])
    assert [d["id"] for d in (await ask(web))["items"]] == others
    assert (await web.house.queue.lengths())["rag_dlq"] == 1
    (note,) = await web.house.ledger.audit()
    assert (note["by"], note["action"], note["data"]["count"]) == ("operator", "dlq_retry", 2)


async def test_drop_by_ids(web: Web) -> None:
    ids = await parked(web, 3)
    alive = await web.added(b"alive")
    answer = await web.http.post(
        f"{DLQ}/drop", json={"ids": [*ids[:2], alive, "nobody"]}, headers=TOKEN
    )
    assert answer.json() == {"dropped": 2, "ids": ids[:2], "remaining": 0}
    document = await web.house.ledger.get(ids[0])
    assert document is not None
    assert (document.state, document.reason) == (State.CANCELLED, "dropped")
    assert (await ask(web))["total"] == 1


async def test_a_limit_leaves_the_rest(web: Web) -> None:
    ids = await parked(web, 3)
    answer = await web.http.post(
        f"{DLQ}/retry", json={"filter": {}, "limit": 2, "expected": 3}, headers=TOKEN
    )
    assert answer.json() == {"retried": 2, "ids": ids[:2], "remaining": 1}


async def test_another_number_is_a_conflict(web: Web) -> None:
    await parked(web, 2)
    for verb in ("retry", "drop"):
        answer = await web.http.post(
            f"{DLQ}/{verb}", json={"filter": {}, "expected": 1}, headers=TOKEN
        )
        assert (answer.status_code, answer.json()["code"]) == (409, "count_changed")
    assert (await ask(web))["total"] == 2


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ('{"filter": {"colour": "red"}}', "filter.colour"),
        ('{"filter": {"reason": 7}}', "filter.reason"),
        ('{"filters": {}}', "filters"),
        ("{}", "ids"),
        ('{"ids": [], "filter": {}}', "ids"),
        ('{"filter": {}, "expected": -1}', "expected"),
        ('{"filter": {"user_id": "a\\u0000"}}', "filter.user_id"),
        ("reason=corrupt", "JSON"),
        ("[]", ""),
        ("", "JSON"),
    ],
)
async def test_what_cannot_be_understood_is_named_and_does_nothing(
    web: Web, body: str, named: str
) -> None:
    await parked(web, 1)
    for verb in ("retry", "drop"):
        answer = await web.http.post(f"{DLQ}/{verb}", content=body.encode(), headers=TOKEN)
        assert answer.status_code == 422, answer.text
        assert named in answer.json()["detail"]
    assert (await ask(web))["total"] == 1


async def test_a_huge_body_is_refused(web: Web) -> None:
    answer = await web.http.post(f"{DLQ}/retry", content=b" " * (2 << 20), headers=TOKEN)
    assert answer.status_code == 413


async def test_always_for_operators_only(web: Web) -> None:
    (document_id,) = await parked(web, 1)
    for path in ("", f"/{document_id}"):
        assert (await web.http.get(DLQ + path)).status_code == 401
    for verb in ("retry", "drop"):
        answer = await web.http.post(f"{DLQ}/{verb}", json={"filter": {}})
        assert answer.status_code == 401


async def test_the_bodies_are_described(web: Web) -> None:
    schema = (await web.http.get("/openapi.json")).json()
    body = schema["paths"][f"{DLQ}/retry"]["post"]["requestBody"]
    fields = body["content"]["application/json"]["schema"]["properties"]
    assert set(fields) == {"ids", "filter", "expected", "limit"}
    assert "$ref" not in str(body)
