"""The PostgreSQL under the ledger dies under load: it restarts, or a standby takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures.outage import Scene, scene_of
from tests.fixtures.postgres import Pair
from tests.fixtures.stack import FAST, model_of
from unjam.core.document import State
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(300)]
AWAY_S = 2.0


@pytest.fixture
async def pg_scene(
    tmp_path: Path, pg_pair: Pair, redis_url: str, chroma_url: str, fake_openai: FakeOpenAI
) -> AsyncIterator[Scene]:
    extra = {"RAG_EMBEDDING_MODEL": model_of(tmp_path), "RAG_MAX_CHUNK_SIZE": "32", **FAST}
    async with (
        Stack(
            tmp_path / "data", redis_url, chroma_url, fake_openai.url, pg_pair.url, extra
        ) as stack,
        scene_of(stack) as made,
    ):
        made.run()
        await made.one_clean()
        yield made


class Load:
    """Uploads one after the other, as fast as they are answered, until told to stop."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._stop = asyncio.Event()
        self.refused: list[httpx.Response] = []
        self.task = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while not self._stop.is_set():
            answer = await self._scene.post()
            if answer.status_code == 202:
                self._scene.uploaded.append(answer.json()["id"])
                await asyncio.sleep(0.05)
                continue
            self.refused.append(answer)
            await asyncio.sleep(0.2)

    async def taken(self, more: int) -> None:
        """Until so many more were answered with 202."""
        goal = len(self._scene.uploaded) + more

        async def enough() -> bool:
            if self.task.done():
                self.task.result()
            return len(self._scene.uploaded) >= goal

        await until(f"{more} uploads", enough, deadline_s=60, every_s=0.05)

    async def end(self) -> None:
        self._stop.set()
        await self.task


@pytest.mark.parametrize("way", ["restart", "promotion"])
async def test_the_server_is_killed_under_load(pg_scene: Scene, pg_pair: Pair, way: str) -> None:
    scene, ledger = pg_scene, pg_scene.stack.services.ledger
    if way == "promotion":
        await pg_pair.follow()
    load = Load(scene)
    await load.taken(20)
    pg_pair.kill("one")

    async def refused() -> bool:
        return bool(load.refused)

    await until("uploads are refused", refused, deadline_s=20)
    await asyncio.sleep(AWAY_S)  # the time that an operator, or a cluster's manager, takes
    if way == "promotion":
        await asyncio.to_thread(pg_pair.promote, "two")
    else:
        await pg_pair.start("one")
    await load.taken(20)
    await load.end()

    for answer in load.refused:
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "ledger_unwritable"
        assert 0 < int(answer.headers["retry-after"]) <= 10
    found = await until_ended(ledger, scene.uploaded, deadline_s=90)
    for document in found.values():
        assert (document.state, document.chunks) == (State.SEARCHABLE, scene.chunks)
        assert (document.errors, document.deaths) == (0, 0)
    # A refused upload may have happened (nobody knew): then it is a whole document, too.
    page = await ledger.list(limit=200)
    await until_ended(ledger, [d.id for d in page.items], deadline_s=60)
    equation = await ledger.equation()
    assert (equation.missing, equation.dead) == (0, 0)
    assert equation.accepted == equation.searchable
    assert 0 <= equation.accepted - len(scene.uploaded) <= len(load.refused)
    assert all(p.popen.poll() is None for p in scene.processes), "a process died"
