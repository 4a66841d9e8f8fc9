"""Who may see and do what on 9181."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures.web import ADMIN, TestHouse, Web, open_house, run_web
from unjam.core.document import Fingerprint, Pin, Submission
from unjam.core.errors import DependencyDown

PAGE = {"Accept": "text/html"}
HIDDEN = ("/documents", "/dead-letters", "/incidents", "/search?q=x", "/ask/dlq-retry")


async def board(web: Web, **options: object) -> httpx.AsyncClient:
    url = f"http://127.0.0.1:{web.dashboard_port}"
    return httpx.AsyncClient(base_url=url, headers=PAGE, timeout=30, **options)  # type: ignore[arg-type]


def own(web: Web) -> dict[str, str]:
    return {"Origin": f"http://127.0.0.1:{web.dashboard_port}"}


async def test_no_get_changes_anything(web: Web) -> None:
    dead = await web.added(b"x")
    await web.house.park(dead)
    async with await board(web) as http:
        for name in ("dlq-retry", "dlq-drop", "cancel", "retry", "delete", "set"):
            await http.get(f"/ask/{name}?id={dead}&expected=1&token={ADMIN}")
            answer = await http.get(f"/do/{name}?id={dead}&expected=1&token={ADMIN}")
            assert answer.status_code == 405
    assert (await web.house.ledger.equation()).dead == 1


async def test_actions_need_the_token_an_origin_of_ours_and_a_form(web: Web) -> None:
    await web.house.park(await web.added(b"x"))
    form = {"reason": "encrypted", "expected": "1"}
    async with await board(web) as http:
        none = await http.post("/do/dlq-drop", data=form, headers=own(web))
        assert none.status_code == 401
        wrong = await http.post("/do/dlq-drop", data={**form, "token": "x"}, headers=own(web))
        assert wrong.status_code == 401
        given = {**form, "token": ADMIN}
        foreign = await http.post("/do/dlq-drop", data=given, headers={"Origin": web.url})
        assert (foreign.status_code, foreign.json()["code"]) == (403, "origin_refused")
        silent = await http.post("/do/dlq-drop", data=given)
        assert (silent.status_code, silent.json()["code"]) == (403, "origin_refused")
        as_json = await http.post("/do/dlq-drop", json=given, headers=own(web))
        assert as_json.status_code == 415
        assert (await web.house.ledger.equation()).dead == 1
        done = await http.post("/do/dlq-drop", data=given, headers=own(web))
        assert done.status_code == 200
        assert (await web.house.ledger.equation()).dead == 0
        # The answer signed in: the next action needs no token.
        await web.house.park(await web.added(b"y"))
        again = await http.post("/do/dlq-drop", data=form, headers=own(web))
        assert again.status_code == 200
        assert (await web.house.ledger.equation()).dead == 0


async def test_a_forged_or_old_session_is_nobody(web: Web) -> None:
    sessions = web.apps[1].state.sessions
    body = f"operator.{int(time.time()) + 1000}"
    old = f"operator.{int(time.time()) - 1}"
    for value in (f"{body}.{'0' * 64}", body, "operator", f"{old}.{sessions._sign(old)}", ADMIN):
        assert sessions.role_of(httpx.Headers({"cookie": f"{sessions.name}={value}"})) == ""
    good = f"{sessions.name}={body}.{sessions._sign(body)}"
    assert sessions.role_of(httpx.Headers({"cookie": good})) == "operator"


async def test_uploads_need_the_operator(web: Web) -> None:
    async with await board(web) as http:
        files = {"file": ("a.txt", b"text")}
        assert (await http.post("/upload", files=files, headers=own(web))).status_code == 401
        signed = await http.post("/sign-in", data={"token": ADMIN}, headers=own(web))
        assert signed.status_code == 303
        answer = await http.post(
            "/upload", files=files, headers={**own(web), "Accept": "application/json"}
        )
        assert answer.json()["items"][0]["state"] == "received"


async def test_signing_in_leads_nowhere_else(web: Web) -> None:
    async with await board(web) as http:
        for place in ("https://evil.example/", "//evil.example", "/\\evil.example", "evil"):
            data = {"token": ADMIN, "next": place}
            answer = await http.post("/sign-in", data=data, headers=own(web))
            assert answer.headers["location"] == "/", place


@pytest.fixture
async def closed(tmp_path: Path) -> AsyncIterator[Web]:
    house = await open_house(tmp_path / "closed", RAG_API_TOKEN="read-token")
    async for running in run_web(house):
        yield running
    await house.close()


async def test_documents_are_no_more_open_here_than_on_the_api(closed: Web) -> None:
    secret = await closed.house.intake.open("secret-name.txt")
    await secret.writer.write(b"x")
    await closed.house.intake.accept([secret])
    async with await board(closed) as http:
        for path in HIDDEN:
            answer = await http.get(path)
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/sign-in"), path
        live = await http.get("/live?path=/documents")
        assert live.status_code == 401
        assert "secret-name" not in (await http.get("/")).text
        assert (await http.get("/api/queues")).status_code == 200  # as the runbook asks for it
        await http.post("/sign-in", data={"token": "read-token"}, headers=own(closed))
        assert "secret-name" in (await http.get("/documents")).text
        reader = await http.post("/do/dlq-drop", data={"expected": "0"}, headers=own(closed))
        assert reader.status_code == 401


async def test_on_another_address_every_page_asks(tmp_path: Path) -> None:
    house = await open_house(tmp_path / "exposed", RAG_API_TOKEN="t0ken")
    async for web in run_web(house, exposed=True):
        async with await board(web) as http:
            for path in ("/", "/workers", "/capacity", *HIDDEN):
                answer = await http.get(path)
                assert (answer.status_code, answer.headers["location"].split("?")[0]) == (
                    303,
                    "/sign-in",
                ), path
            assert (await http.get("/live")).status_code in (303, 401)
            assert (await http.get("/sign-in")).status_code == 200
            assert (await http.get("/static/dashboard.css")).status_code == 200
            await http.post("/sign-in", data={"token": "t0ken"}, headers=own(web))
            assert (await http.get("/")).status_code == 200
    await house.close()


async def test_pages_carry_a_strict_policy_and_no_inline_script(web: Web) -> None:
    async with await board(web) as http:
        for path in ("/", "/documents", "/sign-in", "/nothing-here", "/documents/unknown"):
            answer = await http.get(path)
            if path == "/nothing-here":
                assert answer.status_code == 404
                continue
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert "<script>" not in answer.text and " style=" not in answer.text
            assert "onclick" not in answer.text


async def test_names_and_texts_are_escaped(web: Web) -> None:
    name = "<img src=x onerror=alert(1)>.txt"
    document = await web.added(b"x", name)
    await web.house.finish(document, ["<script>alert(2)</script>"])
    async with await board(web) as http:
        for path in ("/documents", f"/documents/{document}", "/search?q=<script>alert(2)</script>"):
            text = (await http.get(path)).text
            assert "<img src=x" not in text and "<script>alert" not in text, path


async def test_it_stands_while_redis_is_away(web: Web) -> None:
    document = await web.added(b"x")
    async with await board(web) as http:
        assert "rag_processing" in (await http.get("/")).text
        web.house.queue.away = True
        web.apps[1].state.board._looked = float("-inf")
        began = time.monotonic()
        page = await http.get("/")
        assert time.monotonic() - began < 2.0
        assert page.status_code == 200
        assert "Last known" in page.text and "1 accepted" in page.text
        assert (await http.get(f"/documents/{document}")).status_code == 200


async def test_it_stands_while_chroma_is_away(web: Web) -> None:
    document = await web.added(b"x")
    await web.house.finish(document, ["text"])
    web.house.vectors.down = DependencyDown("Chroma is away", code="vector_store_down")
    async with await board(web) as http:
        page = await http.get(f"/documents/{document}")
        assert page.status_code == 200 and "The vector store cannot be read now" in page.text
        found = await http.get("/search?q=text")
        assert found.status_code == 200 and "Chroma" in found.text


@pytest.fixture
async def many(house: TestHouse) -> TestHouse:
    """100,000 documents in line."""
    pin = Pin(Fingerprint("local", "m", dimension=8), 256, 32, "local")
    for start in range(0, 100_000, 5_000):
        await house.ledger.accept(
            [
                Submission(
                    f"d{n:08d}",
                    f"u{n % 7}",
                    f"f{n}.txt",
                    "text/plain",
                    10,
                    f"{n:064x}",
                    pin,
                    "rag_processing",
                )
                for n in range(start, start + 5_000)
            ]
        )
    return house


@pytest.mark.thorough
async def test_the_list_is_quick_among_100_000(many: TestHouse) -> None:
    async for web in run_web(many):
        async with await board(web) as http:
            took: list[float] = []
            for path in (
                "/documents",
                "/documents?state=received&user=u3",
                "/documents?cursor=d00050000",
            ):
                await http.get(path)
                began = time.monotonic()
                assert (await http.get(path)).text.count("<tr id=") == 50
                took.append(time.monotonic() - began)
            assert sorted(took)[1] < 0.2, took
