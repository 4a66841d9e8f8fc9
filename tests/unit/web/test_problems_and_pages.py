"""Errors are problem documents; health, metrics and pages stand on their own."""

from __future__ import annotations

import re
import time
from importlib import resources

import pytest

from tests.fixtures.web import WORKER, Web
from unjam.core import errors
from unjam.core.errors import DependencyDown, UnjamError
from unjam.core.ports import WorkerRef
from unjam.web.problems import PROBLEMS, status_of, words_of


def all_errors(kind: type[UnjamError] = UnjamError) -> list[type[UnjamError]]:
    return [kind, *(e for child in kind.__subclasses__() for e in all_errors(child))]


def test_every_error_has_a_status_and_none_is_forgotten() -> None:
    known = {
        c for c in vars(errors).values() if isinstance(c, type) and c.__module__ == errors.__name__
    }
    seen: dict[str, int] = {}
    for kind in known & set(all_errors()):
        error = kind("x", code="queue_down") if kind is DependencyDown else kind("x")
        seen[kind.__name__] = status_of(error)
    assert seen == {
        "UnjamError": 500,
        "UsageError": 422,
        "NotFound": 404,
        "Conflict": 409,
        "TooLarge": 413,
        "NotNow": 503,
        "Backlogged": 429,
        "DependencyDown": 503,
        "DocumentTrouble": 500,
        "DocumentRejected": 500,
        "DocumentFailed": 500,
        "LeaseLost": 409,
        "SetupError": 500,
        "WorkerUnfit": 500,
        "LedgerVersionError": 500,
    }


def test_every_code_has_words_in_both_languages() -> None:
    for code in PROBLEMS:
        for lang in ("en", "ko"):
            title, hint = words_of(code, lang)
            assert title and hint, code
        assert re.search("[가-힣]", words_of(code, "ko")[0]), code


async def test_unknown_paths_and_methods_are_problems(web: Web) -> None:
    for path in ("/", "/nothing", "/api/rag/nothing", "/docs/"):
        answer = await web.http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert answer.headers["content-type"] == "application/problem+json"
    answer = await web.http.patch("/api/rag/documents")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"
    answer = await web.http.patch("/api/rag/documents/abc")
    assert answer.headers["allow"] == "DELETE, GET, PUT"


@pytest.mark.parametrize(
    ("content", "where"),
    [(b"{", "body"), (b"[]", "body"), (b'{"query": 5}', "query"), (b"", "body"), (b"\xff", "body")],
)
async def test_a_wrong_body_names_the_field(web: Web, content: bytes, where: str) -> None:
    answer = await web.http.post(
        "/api/rag/search", content=content, headers={"Content-Type": "application/json"}
    )
    body = answer.json()
    assert (answer.status_code, body["code"]) in ((422, "invalid"), (400, "bad_request"))
    assert where in body["detail"]


async def test_an_unexpected_error_is_a_500_without_a_traceback(web: Web) -> None:
    async def breaks(document_id: str) -> None:
        raise RuntimeError("secret-path /home/kim")

    web.house.ledger.get = breaks  # type: ignore[method-assign]
    answer = await web.http.get("/api/rag/documents/abc")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret-path" not in answer.text
    assert "Traceback" not in answer.text
    assert (await web.http.get("/healthz")).status_code == 200


async def test_search_while_the_vector_store_is_down_is_a_503(web: Web) -> None:
    await web.house.finish(await web.added(b"x"), ["text"])
    web.house.vectors.down = DependencyDown(
        "Chroma is away", code="vector_store_down", retry_after_s=7
    )
    answer = await web.http.post("/api/rag/search", json={"query": "x"})
    assert (answer.status_code, answer.json()["code"]) == (503, "vector_store_down")
    assert answer.headers["retry-after"] == "7"
    assert "RAG_CHROMA_URL" in answer.json()["hint"]


# -- health -----------------------------------------------------------------------------------
async def ready(web: Web) -> tuple[int, dict]:
    for app in web.apps:
        app.state.readiness = None
    answer = await web.http.get("/readyz")
    return answer.status_code, answer.json()


async def test_ready_means_taken_and_worked_on(web: Web) -> None:
    status, report = await ready(web)
    assert (status, [r["code"] for r in report["reasons"]]) == (503, ["no_worker"])
    watchdog = WorkerRef("w", "host", 2, "0.1.0", kind="watchdog")
    web.house.ledger.renew(watchdog, {}, [])
    assert (await ready(web))[0] == 503
    web.house.ledger.renew(WORKER, {}, [])
    status, report = await ready(web)
    well = {"ready": True, "workers": 1, "vector_store": "Chroma", "reasons": []}
    assert (status, report) == (200, well)
    web.house.queue.away = True
    status, report = await ready(web)
    assert (status, [r["code"] for r in report["reasons"]]) == (503, ["queue_down"])
    web.house.queue.away = False

    async def unwritable(role: str, holder: str, ttl_s: float) -> bool:
        raise DependencyDown("disk full", code="ledger_unwritable")

    web.house.ledger.lead = unwritable  # type: ignore[method-assign]
    status, report = await ready(web)
    assert (status, [r["code"] for r in report["reasons"]]) == (503, ["ledger_unwritable"])


async def test_a_hanging_queue_does_not_hang_readiness(web: Web) -> None:
    import asyncio

    from unjam.web import health

    async def hangs() -> None:
        await asyncio.Event().wait()

    web.house.queue.ping = hangs  # type: ignore[method-assign]
    began = time.monotonic()
    status, report = await ready(web)
    assert status == 503
    assert "queue_down" in [r["code"] for r in report["reasons"]]
    assert time.monotonic() - began < health._CHECK_S + 3


# -- pages ------------------------------------------------------------------------------------
async def test_openapi_is_3_1_and_names_every_route(web: Web) -> None:
    schema = (await web.http.get("/openapi.json")).json()
    assert schema["openapi"].startswith("3.1")
    paths = {p for p in schema["paths"] if p.startswith("/api/rag/") and "admin" not in p}
    assert paths == {
        "/api/rag/documents",
        "/api/rag/documents/{document_id}",
        "/api/rag/documents/{document_id}/events",
        "/api/rag/documents/{document_id}/chunks",
        "/api/rag/documents/{document_id}/cancel",
        "/api/rag/documents/{document_id}/retry",
        "/api/rag/search",
        "/api/rag/ledger",
    }
    body = schema["paths"]["/api/rag/documents"]["post"]["requestBody"]["content"]
    assert "file" in body["multipart/form-data"]["schema"]["required"]
    ids = [op["operationId"] for path in schema["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids))
    assert "HTTPValidationError" not in str(schema["paths"])


async def test_no_page_asks_for_anything_from_elsewhere(web: Web) -> None:
    board = f"http://127.0.0.1:{web.dashboard_port}"
    for page in (f"{web.url}/docs", f"{board}/"):
        answer = await web.http.get(page)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        root = page.rsplit("/", 1)[0]
        for link in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
            assert "//" not in link, link
            assert (await web.http.get(f"{root}/{link.lstrip('/')}")).status_code == 200, link
    static = resources.files("unjam.web").joinpath("static")
    for file in static.iterdir():
        assert not re.search(r"https?://|//cdn", file.read_text()), file.name
    assert (await web.http.get("/static/../server.py")).status_code == 404
    assert (await web.http.get("/static/docs.html")).status_code == 404


async def test_metrics_are_prometheus_text(web: Web) -> None:
    answer = await web.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'rag_queue_length{queue="rag_processing"} 0' in answer.text


async def test_the_status_page_tells_the_truth(web: Web) -> None:
    await web.added(b"x")
    await web.house.intake.close()
    board = f"http://127.0.0.1:{web.dashboard_port}"
    queues = (await web.http.get(f"{board}/api/queues")).json()["queues"]
    assert [q["count"] for q in queues if q["name"] == "rag_processing"] == [1]
    status = (await web.http.get(f"{board}/api/status")).json()
    assert status["readiness"]["ready"] is False
    assert status["ledger"]["accepted"] == 1
