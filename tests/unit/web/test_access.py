"""Who may call: host names, origins, tokens, and refusing to be exposed without one."""

from __future__ import annotations

import base64
import stat
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fixtures.web import ADMIN, TestHouse, Web, open_house, run_web
from unjam.core.errors import SetupError
from unjam.settings import Settings
from unjam.web.auth import HostNames, admin_token, is_foreign, is_loopback, require_tokens
from unjam.web.house import Binding, pick_language
from unjam.web.server import bind

LIST = "/api/rag/documents"


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("localhost", True),
        ("LOCALHOST:8002", True),
        ("127.0.0.1:8002", True),
        ("[::1]:8002", True),
        ("192.168.0.7:8002", True),
        ("evil.example", False),
        ("evil.example:8002", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
        ("rag.corp", True),
        ("x.rag.corp", False),
    ],
)
def test_host_names(host: str, fine: bool) -> None:
    assert HostNames(Binding(), ["rag.corp"]).allows(host) is fine


@pytest.mark.parametrize(
    ("origin", "host", "foreign"),
    [
        ("http://localhost:8002", "localhost:8002", False),
        ("http://localhost", "localhost:80", False),
        ("https://rag.corp", "rag.corp", False),
        ("http://localhost:9181", "localhost:8002", True),
        ("http://evil.example", "localhost:8002", True),
        ("null", "localhost:8002", True),
        ("file://", "localhost:8002", True),
        ("chrome-extension://abc", "localhost:8002", True),
    ],
)
def test_origins(origin: str, host: str, foreign: bool) -> None:
    assert is_foreign(origin, host) is foreign


async def test_a_rebound_name_and_a_foreign_page_are_refused(web: Web) -> None:
    host = await web.http.get(LIST, headers={"Host": "evil.example"})
    assert (host.status_code, host.json()["code"]) == (403, "host_refused")
    for path in (LIST, "/healthz", "/metrics", "/docs"):
        page = await web.http.get(path, headers={"Origin": "http://evil.example"})
        assert (page.status_code, page.json()["code"]) == (403, "origin_refused")
    sent = await web.http.post(
        LIST, files=[("file", ("a", b"x"))], headers={"Origin": "http://evil.example"}
    )
    assert sent.status_code == 403
    own = await web.http.get(LIST, headers={"Origin": web.url})
    assert own.status_code == 200
    assert (await web.http.get("/api/rag/ledger")).json()["accepted"] == 0


async def test_the_operators_part_always_needs_its_token(web: Web) -> None:
    for path in ("queues", "workers", "dlq", "nothing"):
        answer = await web.http.get(f"/api/rag/admin/{path}")
        assert (answer.status_code, answer.json()["code"]) == (401, "admin_unauthorised")
        assert "ADMIN_TOKEN" in answer.json()["hint"]
        assert answer.headers["www-authenticate"].startswith("Bearer")
    wrong = await web.http.get(
        "/api/rag/admin/queues", headers={"Authorization": "Bearer " + ADMIN + "x"}
    )
    assert wrong.status_code == 401
    right = await web.http.get(
        "/api/rag/admin/queues", headers={"Authorization": "Bearer " + ADMIN}
    )
    assert right.status_code == 200
    assert {q["name"] for q in right.json()["queues"]} >= {"rag_processing", "rag_dlq"}


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Web]:
    house = await open_house(tmp_path / "guarded", RAG_API_TOKEN="비밀-token")
    async for running in run_web(house):
        yield running
    await house.close()


async def test_the_public_part_needs_its_token_when_one_is_set(guarded: Web) -> None:
    assert (await guarded.http.get(LIST)).json()["code"] == "unauthorised"
    for token in ("비밀-token", ADMIN):
        raw = b"Bearer " + token.encode()
        answer = await guarded.http.get(LIST, headers={b"Authorization": raw})
        assert answer.status_code == 200, answer.text
    public = {b"Authorization": b"Bearer " + "비밀-token".encode()}
    assert (await guarded.http.get("/api/rag/admin/queues", headers=public)).status_code == 401
    assert (await guarded.http.get("/healthz")).status_code == 200
    assert (await guarded.http.get("/readyz")).status_code == 503
    assert (await guarded.http.get("/metrics")).status_code == 200  # loopback only


async def test_an_exposed_server_asks_everywhere_but_for_health(tmp_path: Path) -> None:
    house = await open_house(tmp_path / "exposed", RAG_API_TOKEN="t0ken")
    async for web in run_web(house, exposed=True):
        for path in ("/metrics", "/docs", "/openapi.json", LIST):
            assert (await web.http.get(path)).status_code == 401
        page = f"http://127.0.0.1:{web.dashboard_port}/api/queues"
        asked = await web.http.get(page)
        assert asked.status_code == 401
        front = await web.http.get(f"http://127.0.0.1:{web.dashboard_port}/")
        assert front.headers["www-authenticate"].startswith("Basic")
        basic = base64.b64encode(b"anyone:t0ken").decode()
        answer = await web.http.get(page, headers={"Authorization": f"Basic {basic}"})
        assert answer.status_code == 200
        assert (await web.http.get("/healthz")).status_code == 200
    await house.close()


async def test_the_dashboard_changes_nothing(web: Web) -> None:
    page = f"http://127.0.0.1:{web.dashboard_port}"
    assert (await web.http.get(f"{page}/api/queues")).status_code == 200
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = await web.http.request(method, f"{page}/api/queues")
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


# -- tokens and addresses ---------------------------------------------------------------------
def settings(tmp_path: Path, **values: str) -> Settings:
    return Settings.model_validate({"RAG_DATA_DIR": tmp_path, **values})


def test_a_generated_admin_token_is_private_and_stays(tmp_path: Path) -> None:
    made = settings(tmp_path / "new")
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: admin_token(made), range(32)))
    (token,) = tokens
    assert len(token) >= 32
    file = tmp_path / "new" / "admin-token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() == token
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["admin-token"]
    assert admin_token(settings(tmp_path / "new", ADMIN_TOKEN="given")) == "given"


def test_not_exposed_without_tokens(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        require_tokens(settings(tmp_path), host)
    for host in ("0.0.0.0", "::", "192.168.0.7", "rag.corp"):
        assert not is_loopback(host)
        with pytest.raises(SetupError, match="RAG_API_TOKEN") as caught:
            require_tokens(settings(tmp_path), host)
        assert caught.value.hint
        require_tokens(settings(tmp_path, RAG_API_TOKEN="x"), host)


def test_a_taken_port_names_port_and_option() -> None:
    with bind("127.0.0.1", 0, "--port") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=str(port)) as caught:
            bind("127.0.0.1", port, "--dashboard-port")
    assert "--dashboard-port" in caught.value.hint


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"),
        ("ko", "ko"),
        ("ko-KR,ko;q=0.9,en-US;q=0.8", "ko"),
        ("en;q=0.5, ko;q=0.6", "ko"),
        ("fr, de", "en"),
        ("ko;q=0", "en"),
        ("ko;q=x", "en"),
    ],
)
def test_language_is_the_first_of_ours(accept: str, language: str) -> None:
    assert pick_language(accept, "en") == language


async def test_the_houses_language_is_the_default(tmp_path: Path) -> None:
    house: TestHouse = await open_house(tmp_path / "ko", RAG_LANG="ko")
    async for web in run_web(house):
        korean = await web.http.get(f"{LIST}/nobody")
        assert "찾을 수 없습니다" in korean.json()["title"]
        english = await web.http.get(f"{LIST}/nobody", headers={"Accept-Language": "en"})
        assert english.headers["content-language"] == "en"
        assert "no such" in english.json()["title"]
    await house.close()
