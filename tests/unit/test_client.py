"""The Python client against a real server."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

import unjam
from tests.fixtures.web import Web
from unjam.client import Client, Document, Event
from unjam.core.errors import (
    Backlogged,
    Conflict,
    DependencyDown,
    NotFound,
    NotNow,
    TooLarge,
    UnjamError,
    UsageError,
)
from unjam.pipeline.intake import IntakeLimits

T = TypeVar("T")


async def call(function: Callable[..., T], *args: object, **options: object) -> T:
    return await asyncio.to_thread(function, *args, **options)


@pytest.fixture
def client(web: Web) -> Client:
    return Client(web.url)


async def test_add_takes_paths_bytes_files_and_pipes(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "한글 문서.txt"
    path.write_text("from a path")
    by_path = await call(client.add, path, user_id="kim", metadata={"팀": "인사"})
    assert by_path.state == "received"
    seen = await call(client.get, by_path.id)
    assert (seen.filename, seen.user_id, dict(seen.metadata)) == (path.name, "kim", {"팀": "인사"})
    assert seen.created_at is not None and seen.created_at.tzinfo is not None
    assert (await call(client.add, str(path), user_id="kim")).duplicate_of == by_path.id
    by_bytes = await call(client.add, b"from bytes", filename="b.md")
    assert (await call(client.get, by_bytes.id)).media_type == "text/markdown"
    by_file = await call(client.add, io.BytesIO(b"from a file"), filename="c.txt")
    assert (await call(client.get, by_file.id)).size_bytes == 11
    read, write = os.pipe()
    os.write(write, b"from a pipe")
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        by_pipe = await call(client.add, pipe, filename="d.txt")
    assert (await call(client.get, by_pipe.id)).size_bytes == 11


async def test_names_that_are_not_utf8_are_read_as_korean(client: Client, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/" + "보고서.txt".encode("cp949")
    Path(os.fsdecode(raw)).write_bytes(b"x")
    added = await call(client.add, os.fsdecode(raw))
    assert (await call(client.get, added.id)).filename == "보고서.txt"


async def test_add_many_keeps_the_order_and_shares_requests(web: Web, client: Client) -> None:
    requests = 0
    accept = web.house.intake.accept

    async def counted(*args: object, **options: object) -> object:
        nonlocal requests
        requests += 1
        return await accept(*args, **options)  # type: ignore[arg-type]

    web.house.intake.accept = counted  # type: ignore[method-assign]
    added = await call(client.add_many, [f"text {n % 100}".encode() for n in range(120)])
    assert requests == 5  # of 8, 16, 32, 50 files, and the rest
    assert len({d.id for d in added}) == 100
    assert [d.id for d in added[100:]] == [d.id for d in added[:20]]
    assert added[100].duplicate_of == added[0].id
    listed = await call(lambda: list(client.list()))
    assert [d.id for d in listed] == [d.id for d in added[:100]][::-1]
    assert len(await call(lambda: list(client.list(limit=7)))) == 7


async def test_wait_search_events_and_the_rest(web: Web, client: Client) -> None:
    document = await call(client.add, b"x", filename="x.txt")
    began = threading.Event()

    def on_progress(seen: Document) -> None:
        began.set()

    waiting = asyncio.create_task(call(client.wait, document.id, 30.0, on_progress=on_progress))
    assert await call(began.wait, 10)
    await web.house.finish(document.id, ["annual leave", "fire door"])
    done = await waiting
    assert (done.state, done.chunks, done.ended) == ("searchable", 2, True)
    hits = await call(client.search, "annual leave", k=1)
    assert [(h.text, h.filename, h.page) for h in hits] == [("annual leave", "x.txt", 1)]
    assert [c["text"] for c in await call(lambda: list(client.chunks(document.id)))] == [
        "annual leave",
        "fire door",
    ]
    events: list[Event] = await call(lambda: list(client.events(document.id)))
    assert events[0].kind == "accepted"
    assert [e.kind for e in events if e.seq][-1] == "searchable"
    assert events[-1].kind == "end"
    replaced = await call(client.replace, document.id, b"y", filename="y.txt")
    assert replaced.id == document.id
    assert (await call(client.ledger))["accepted"] == 1
    assert (await call(client.readiness))["ready"] is False
    await call(client.delete, document.id)
    assert (await call(client.get, document.id)).state == "deleted"


async def test_waiting_ends_in_time(client: Client) -> None:
    document = await call(client.add, b"x")
    with pytest.raises(NotNow) as caught:
        await call(client.wait, document.id, 0.3)
    assert caught.value.code == "wait_timeout"
    assert document.id in caught.value.hint


async def test_waiting_survives_a_stream_that_is_cut(web: Web, client: Client) -> None:
    document = await call(client.add, b"x")
    web.closing.set()  # every stream ends at once, as at a restart
    waiting = asyncio.create_task(call(client.wait, document.id, 30.0))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    web.closing.clear()
    await web.house.finish(document.id, ["t"])
    assert (await waiting).state == "searchable"


async def test_problems_come_back_as_our_errors(web: Web, client: Client) -> None:
    async def fails(
        kind: type[UnjamError], code: str, function: Callable[[], object]
    ) -> UnjamError:
        with pytest.raises(UnjamError) as caught:
            await call(function)
        assert type(caught.value) is kind
        assert caught.value.code == code
        assert str(caught.value)
        return caught.value

    await fails(NotFound, "not_found", lambda: client.get("nobody"))
    await fails(NotFound, "not_found", lambda: client.get("../admin/queues"))
    await fails(UsageError, "invalid_metadata", lambda: client.add(b"x", metadata={"a": {"b": 1}}))
    await fails(UsageError, "unreadable_file", lambda: client.add("/nonexistent/file"))
    added = await call(client.add, b"one", idempotency_key="k")
    assert (await call(client.add, b"one", idempotency_key="k")).id == added.id
    await fails(Conflict, "idempotency_conflict", lambda: client.add(b"two", idempotency_key="k"))
    await fails(Conflict, "conflict", lambda: client.retry(added.id))
    web.house.intake.max_upload_bytes = 10
    await fails(TooLarge, "too_large", lambda: client.add(b"x" * 3_000_000))
    web.house.intake.limits = IntakeLimits(documents=0)
    web.house.intake._checked_at = float("-inf")
    busy = await fails(Backlogged, "backlog_full", lambda: client.add(b"y"))
    assert isinstance(busy, Backlogged) and busy.retry_after_s == 30
    down = await fails(DependencyDown, "api_down", lambda: Client("http://127.0.0.1:1").get("abc"))
    assert "unjam up" in down.hint
    await fails(UsageError, "bad_url", lambda: Client("nonsense").get("abc"))
    await fails(UsageError, "bad_url", lambda: Client(f"{web.url}/docs?").ledger())


async def test_hints_come_in_the_language_asked_for(web: Web) -> None:
    with pytest.raises(NotFound) as caught:
        await call(Client(web.url, lang="ko").get, "nobody1")
    assert "문서는" in caught.value.hint


async def test_a_client_is_shared_by_threads(client: Client) -> None:
    start = threading.Barrier(8)

    def one(n: int) -> str:
        start.wait(10)
        return client.add(f"{n}".encode()).id

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(8) as pool:
        ids = await asyncio.gather(*(loop.run_in_executor(pool, one, n) for n in range(8)))
    assert len(set(ids)) == 8


def test_importing_unjam_is_cheap() -> None:
    code = (
        "import sys, unjam; unjam.Client; "
        "print([m for m in ('httpx','pydantic','numpy','fastapi','rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_exports_the_client() -> None:
    assert unjam.Client is Client


async def test_many_documents_in_one_question(web: Web) -> None:
    client = await call(Client, web.url)
    added = [await call(client.add, f"note {n}".encode(), filename=f"{n}.txt") for n in range(3)]
    ids = [document.id for document in added]
    seen = await call(client.get_many, [*ids, "01a20699-0000-7000-8000-000000000000"])
    assert {i: d.filename for i, d in seen.items()} == {i: f"{n}.txt" for n, i in enumerate(ids)}
    too_many = await call(httpx.get, f"{web.url}/api/rag/documents", params={"ids": "x," * 200})
    assert too_many.status_code == 422
    assert "201 ids are too many" in too_many.json()["detail"]
