"""Uploads are asked to come back later when too much waits, by number, bytes, age and disk."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.fixtures.outage import Scene, scene_of
from tests.fixtures.stack import FAST, model_of
from unjam.stores import schema
from unjam.stores.ledger.tx import Tx
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until

pytestmark = pytest.mark.timeout(120)

Limited = Callable[..., AbstractAsyncContextManager[Scene]]


@pytest.fixture
def limited(tmp_path: Path, redis_url: str, chroma_url: str, fake_openai: FakeOpenAI) -> Limited:
    @asynccontextmanager
    async def make(**limits: str) -> AsyncIterator[Scene]:
        extra = {
            "RAG_EMBEDDING_MODEL": model_of(tmp_path),
            "RAG_MAX_CHUNK_SIZE": "32",
            "RAG_RESERVE_MB": "1",
            **FAST,
            **limits,
        }
        async with (
            Stack(tmp_path / "data", redis_url, chroma_url, fake_openai.url, extra=extra) as stack,
            scene_of(stack) as scene,
        ):
            yield scene

    return make


async def until_refused(scene: Scene, code: str = "backlog_full") -> str:
    """Upload until it is a 429; its detail. The limits are looked at once a second."""

    async def post() -> tuple[int, str]:
        answer = await scene.post()
        if answer.status_code == 202:
            scene.uploaded.append(answer.json()["id"])
            return 202, ""
        assert answer.json()["code"] == code, answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["hint"]
        return answer.status_code, answer.json()["detail"]

    seen = await until("a refusal", post, lambda a: a[0] == 429, deadline_s=20, every_s=0.2)
    return seen[1]


@pytest.mark.parametrize(
    ("limits", "says"),
    [({"RAG_MAX_QUEUED_DOCUMENTS": "3"}, "documents"), ({"RAG_MAX_QUEUED_MB": "1"}, "bytes")],
)
async def test_a_long_line_is_told_and_taken_up_again_once_it_is_shorter(
    limited: Limited, limits: dict[str, str], says: str
) -> None:
    async with limited(**limits) as scene:
        scene.run(workers=1)
        await scene.one_clean()
        (worker, _) = scene.processes
        assert await worker.stop() == 0
        scene.processes = scene.processes[1:]
        if says == "bytes":
            big = [("file", ("big.bin", b"%PDF-broken" + bytes(1_100_000)))]
            assert (await scene.http.post("/api/rag/documents", files=big)).status_code == 202
        assert says in await until_refused(scene)
        # documents that are known already are no burden, but nobody can tell before the body
        scene.run(workers=1, watchdog=False)

        async def taken() -> int:
            answer = await scene.post()
            if answer.status_code == 202:
                scene.uploaded.append(answer.json()["id"])
            return answer.status_code

        await until("uploads are taken again", taken, lambda s: s == 202, every_s=0.2)
        if says == "documents":
            await scene.all_well(time.monotonic(), first_s=10.0)


async def test_an_old_line_is_told(limited: Limited) -> None:
    async with limited(RAG_MAX_QUEUE_AGE_S="600") as scene:
        await scene.upload(2)

        def age(tx: Tx) -> None:
            tx.execute(sa.update(schema.documents).values(updated_at=tx.now - 601.0))

        await scene.stack.services.ledger._committer.submit(age)  # type: ignore[attr-defined]
        assert "stood in line for 60" in await until_refused(scene)


async def test_a_full_disk_is_told_before_it_is_full(limited: Limited) -> None:
    async with limited(RAG_MIN_FREE_DISK_MB=str(2**40)) as scene:
        assert "bytes are free" in await until_refused(scene, "disk_low")
        assert (await scene.stack.services.ledger.equation()).accepted == 0
