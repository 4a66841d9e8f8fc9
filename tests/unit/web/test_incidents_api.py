"""Incidents over HTTP, reports, and the kill switch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.fixtures.web import ADMIN, Web
from unjam.core.incident import Action, Diagnosis, Sample, Saying
from unjam.watchdog.recovery import Plan, Round
from unjam.watchdog.remedies import REMEDIES, Choice

BASE = "/api/rag/admin"
DOWN = Diagnosis("chroma_down", "", (Saying("no answer", "응답 없음"),), ("workers_hung",))


@pytest.fixture
async def admin(web: Web) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {ADMIN}", "X-Operator": "kim"}
    async with httpx.AsyncClient(base_url=web.url + BASE, headers=headers, timeout=30) as http:
        yield http


async def an_incident(web: Web) -> int:
    book = web.house.ledger
    made = await book.open_incident(DOWN, "critical", queue_length=60)
    await book.note_sample(made.id, Sample(60, 0, 5))
    asked = Action(0.0, "restart_chroma", "asked", Saying("Restart", "재시작"))
    assert await book.begin_action(made.id, asked, per_hour=3, rest_s=30) == ""
    done = Action(0.0, "restart_chroma", "done", Saying("Restarted", "재시작함"))
    await book.note_action(made.id, done)
    return made.id


async def test_a_list_and_one_with_its_timeline(web: Web, admin: httpx.AsyncClient) -> None:
    empty = (await admin.get("/incidents")).json()
    assert empty == {"items": [], "next_cursor": None, "paused": False}
    number = await an_incident(web)
    (item,) = (await admin.get("/incidents?open=true")).json()["items"]
    assert (item["cause"], item["state"], item["severity"]) == ("chroma_down", "open", "critical")
    assert item["evidence"] == ["no answer"] and item["effects"] == ["workers_hung"]
    assert [a["outcome"] for a in item["actions"]] == ["asked", "done"]
    assert item["max_queue_length"] == 60 and item["closed_at"] is None
    korean = (await admin.get(f"/incidents/{number}", headers={"Accept-Language": "ko"})).json()
    assert korean["evidence"] == ["응답 없음"] and korean["actions"][1]["detail"] == "재시작함"
    assert [e["kind"] for e in korean["events"]] == ["opened", "sample", "action", "action"]
    await web.house.ledger.close_incident(number)
    assert (await admin.get("/incidents?open=true")).json()["items"] == []
    assert (await admin.get("/incidents")).json()["items"][0]["closed_at"]


@pytest.mark.parametrize(
    ("style", "media_type", "holds"),
    [
        ("md", "text/markdown", "`stagnation_start_time`"),
        ("json", "application/json", '"stagnation_start_time"'),
        ("html", "text/html", "<svg"),
    ],
)
async def test_reports(
    web: Web, admin: httpx.AsyncClient, style: str, media_type: str, holds: str
) -> None:
    number = await an_incident(web)
    answer = await admin.get(f"/incidents/{number}/report", params={"format": style, "lang": "ko"})
    assert answer.status_code == 200 and answer.headers["content-type"].startswith(media_type)
    assert holds in answer.text and "응답 없음" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_mistakes_are_problems(web: Web, admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/incidents/99")).status_code == 404
    assert (await admin.get("/incidents/x")).status_code == 422
    assert (await admin.get("/incidents?cursor=x")).status_code == 422
    assert (await admin.get("/incidents/99/report?format=pdf")).status_code == 422
    assert (await admin.post("/recover", json={"plam": True})).status_code == 422
    for path in ("/incidents", "/incidents/1", "/incidents/1/report"):
        assert (await web.http.get(BASE + path)).status_code == 401
    for path in ("/recover", "/recover/pause", "/recover/resume"):
        assert (await web.http.post(BASE + path, json={})).status_code == 401


async def test_the_kill_switch_names_who_pulled_it(web: Web, admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/recover/pause")).json() == {"paused": True}
    assert (await admin.get("/incidents")).json()["paused"] is True
    assert (await admin.post("/recover/resume")).json() == {"paused": False}
    assert not await web.house.ledger.remedies_paused()
    noted = [(a["by"], a["action"]) for a in await web.house.ledger.audit()]
    assert noted == [("operator kim", "recover_resume"), ("operator kim", "recover_pause")]


@dataclass
class FakeRecovery:
    asked: list[tuple[bool, str]] = field(default_factory=list[tuple[bool, str]])

    async def once(self, *, plan: bool, by: str) -> Round:
        self.asked.append((plan, by))
        choice = Choice("act", REMEDIES["restart_chroma"])
        return Round(None, (DOWN,), (), (Plan(None, DOWN, choice),), False)  # type: ignore[arg-type]


async def test_recover_plans_and_acts(web: Web, admin: httpx.AsyncClient) -> None:
    recovery = FakeRecovery()
    web.apps[0].state.recovery = recovery
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = await admin.post("/recover", content=b'{"plan": true}', headers=form)
    (plan,) = answer.json()["plans"]
    assert (plan["cause"], plan["next"], plan["remedy"]) == ("chroma_down", "act", "restart_chroma")
    assert plan["evidence"] == ["no answer"] and plan["take_back"] and plan["remedy_title"]
    await admin.post("/recover", json={})
    assert recovery.asked == [(True, "operator kim"), (False, "operator kim")]
