"""Both doors under schemathesis: whatever is sent, they answer as their OpenAPI says, and no 5xx
that is a fault of ours."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from unjam.testing.stack import Stack
from unjam.testing.wait import until
from unjam.web.server import create_dashboard_app
from unjam.worker.embedded import free_port

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(240)]

ADMIN = "operators-token"

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
"""Not asked: ``positive_data_acceptance`` (that a cursor is one of ours, or that ids and filter
exclude each other, no schema can say), ``negative_data_rejection`` (unknown parts of a form are
ignored), ``use_after_free`` (a deleted document is shown, as deleted)."""

STREAM = "/api/rag/documents/{document_id}/events"
"""An event stream ends with its document, and nobody works on these."""


@dataclass(frozen=True)
class Doors:
    api: str
    page: str
    stack: Stack


@pytest.fixture
async def doors(stack: Stack, tmp_path: Path) -> AsyncIterator[Doors]:
    """``unjam api`` and a worker as processes, over real servers."""
    worker = stack.worker()  # without one /readyz rightly says 503
    ports = free_port(0), free_port(0)
    log = (tmp_path / "api.log").open("wb")
    api = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "unjam.cli.main", "api"),
        *("--port", str(ports[0]), "--dashboard-port", str(ports[1])),
        env={**stack.environment(), "ADMIN_TOKEN": ADMIN, "PATH": "/usr/bin:/bin"},
        stdout=log,
        stderr=log,
    )
    api_url, page_url = (f"http://127.0.0.1:{port}" for port in ports)
    made = Doors(api_url, page_url, stack)
    try:
        async with AsyncExitStack() as open_:
            http = await open_.enter_async_context(httpx.AsyncClient(base_url=made.api))

            async def answers() -> bool:
                try:
                    return (await http.get("/healthz")).is_success
                except httpx.TransportError:
                    return False

            await until("the API answers", answers, deadline_s=60)

            async def ready() -> bool:
                return (await http.get("/readyz")).is_success

            await until("a worker is there", ready, deadline_s=60)
            for n in range(3):
                file = (f"{n}.txt", f"document {n}".encode())
                assert (await http.post("/api/rag/documents", files=[("file", file)])).is_success
        yield made
    finally:
        worker.popen.terminate()
        await worker.ended()
        api.terminate()
        assert await api.wait() == 0, (tmp_path / "api.log").read_text()
        log.close()


async def fuzz(schema: str, url: str, *more: str, folder: Path) -> tuple[int, str]:
    """(Exit status, what it says) of one run with a fixed seed."""
    child = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("st")), "run", schema, "--url", url),
        *("--max-examples", "8", "--seed", "7", "--generation-deterministic"),
        *("--phases", "examples,coverage,fuzzing", "--request-timeout", "20"),
        *("--no-color", "--suppress-health-check", "all", *more),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await child.communicate()
    assert child.returncode is not None
    return child.returncode, out.decode(errors="replace")


@pytest.mark.parametrize("who", ["operator", "stranger"])
async def test_the_api_answers_as_its_openapi_says(doors: Doors, who: str, tmp_path: Path) -> None:
    token = ("-H", f"Authorization: Bearer {ADMIN}") if who == "operator" else ()
    status, said = await fuzz(
        f"{doors.api}/openapi.json",
        doors.api,
        *("--checks", ",".join(CHECKS), "--exclude-path", STREAM, *token),
        folder=tmp_path,
    )
    assert status == 0, said[-8000:]
    async with httpx.AsyncClient(base_url=doors.api) as http:
        equation = (await http.get("/api/rag/ledger")).json()
        assert equation["missing"] == 0 and equation["accepted"] >= 3


async def test_the_dashboard_never_breaks(doors: Doors, tmp_path: Path) -> None:
    app = create_dashboard_app(doors.stack.services)
    assert app.openapi_url is None  # it publishes none; the routes are known all the same
    schema = tmp_path / "dashboard.json"
    schema.write_text(json.dumps(app.openapi()))
    status, said = await fuzz(
        str(schema),
        doors.page,
        *("--checks", "not_a_server_error", "--exclude-path", "/live"),
        folder=tmp_path,
    )
    assert status == 0, said[-8000:]
