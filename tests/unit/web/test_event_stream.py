"""Server-sent events: replay, live, resume, end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.fixtures.web import Web
from unjam.core.document import State
from unjam.core.ports import Progress


class Frames:
    """The frames of an open stream, one at a time, with a deadline."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self, deadline_s: float = 10.0) -> dict[str, str]:
        frame: dict[str, str] = {}
        async with asyncio.timeout(deadline_s):
            async for line in self._lines:
                if not line and ("event" in frame):
                    return frame
                if line.startswith((":", "retry")) or not line:
                    continue
                name, _, value = line.partition(": ")
                frame[name] = value
        raise EOFError

    async def until(self, kind: str) -> list[dict[str, str]]:
        seen: list[dict[str, str]] = []
        while not seen or seen[-1]["event"] != kind:
            seen.append(await self.next())
        return seen


@asynccontextmanager
async def stream(
    web: Web, document_id: str, query: str = "", **headers: str
) -> AsyncIterator[Frames]:
    path = f"/api/rag/documents/{document_id}/events{query}"
    async with web.http.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Frames(answer)


def ledger_kinds(frames: list[dict[str, str]]) -> list[str]:
    return [f["event"] for f in frames if "id" in f]


async def test_an_ended_document_is_replayed_and_the_stream_ends(web: Web) -> None:
    document_id = await web.added(b"x")
    await web.house.intake.close()
    await web.house.finish(document_id, ["text"])
    async with stream(web, document_id) as frames:
        seen = await frames.until("end")
        kinds = ledger_kinds(seen)
        assert kinds[0] == "accepted"
        assert kinds[-1] == "searchable"
        numbers = [int(f["id"]) for f in seen if "id" in f]
        assert numbers == sorted(set(numbers))
        assert json.loads(seen[0]["data"])["document_id"] == document_id
        assert json.loads(seen[-1]["data"])["state"] == "searchable"
        try:
            await frames.next()
            raise AssertionError("the stream went on after its end")
        except EOFError:
            pass


async def test_what_happens_is_told_live_with_progress(web: Web) -> None:
    document_id = await web.added(b"x")
    async with stream(web, document_id) as frames:
        await frames.until("progress")
        claim = await web.house.claim(document_id)
        await frames.until("claimed")
        await web.house.ledger.report(Progress(document_id, claim.token, State.EMBEDDING, 3, 9))
        while True:
            seen = await frames.until("progress")
            progress = json.loads(seen[-1]["data"])["progress"]
            if progress["done"]:
                break
        assert progress == {"stage": "embedding", "done": 3, "total": 9}
        assert "id" not in seen[-1]
        await web.http.post(f"/api/rag/documents/{document_id}/cancel")
        assert "cancelled" in ledger_kinds(await frames.until("end"))


async def test_resuming_gives_each_event_once(web: Web) -> None:
    document_id = await web.added(b"x")
    await web.house.intake.close()
    await web.house.finish(document_id, ["text"])
    async with stream(web, document_id) as frames:
        whole = [f for f in await frames.until("end") if "id" in f]
    for cut in range(len(whole)):
        async with stream(web, document_id, **{"Last-Event-ID": whole[cut]["id"]}) as frames:
            rest = [f for f in await frames.until("end") if "id" in f]
        assert rest == whole[cut + 1 :]
    async with stream(web, document_id, f"?after={whole[0]['id']}") as frames:
        assert [f for f in await frames.until("end") if "id" in f] == whole[1:]
    answer = await web.http.get(
        f"/api/rag/documents/{document_id}/events", headers={"Last-Event-ID": "x"}
    )
    assert answer.status_code == 422


async def test_following_goes_on_after_the_end(web: Web) -> None:
    document_id = await web.added(b"A")
    await web.house.intake.close()
    await web.house.finish(document_id, ["text"])
    async with stream(web, document_id, "?follow=true") as frames:
        await frames.until("searchable")
        await web.http.put(f"/api/rag/documents/{document_id}", files=[("file", ("b", b"B"))])
        await frames.until("updated")
        await web.http.delete(f"/api/rag/documents/{document_id}")
        await frames.until("deleted")


async def test_streams_share_one_tail_and_leave_nothing_behind(web: Web) -> None:
    ids = [await web.added(f"{n}".encode()) for n in range(5)]
    await web.house.intake.close()
    asked: list[str | None] = []
    events = web.house.ledger.events

    async def counted(document_id: str | None, after: int = 0, limit: int = 200) -> list:
        asked.append(document_id)
        return await events(document_id, after=after, limit=limit)

    web.house.ledger.events = counted  # type: ignore[method-assign]

    async def one(document_id: str, started: asyncio.Semaphore) -> list[str]:
        async with stream(web, document_id) as frames:
            await frames.until("progress")
            started.release()
            return ledger_kinds(await frames.until("end"))

    started = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(one(i, started)) for i in ids for _ in range(2)]
    for _ in tasks:
        await started.acquire()
    for document_id in ids:
        await web.house.ledger.cancel(document_id)
    for kinds in await asyncio.gather(*tasks):
        assert "cancelled" in kinds
    assert asked.count(None) >= 1
    tail = web.apps[0].state.tail

    async def follower_gone() -> bool:
        return tail._task is None or tail._task.done()

    from unjam.testing.wait import until

    await until("the tail ends with its last listener", follower_gone)
    assert tail.streams == 0


async def test_closing_the_server_ends_open_streams(web: Web) -> None:
    document_id = await web.added(b"x")
    async with stream(web, document_id) as frames:
        await frames.until("progress")
        web.closing.set()
        async with asyncio.timeout(5):
            try:
                while True:
                    await frames.next()
            except EOFError:
                pass
