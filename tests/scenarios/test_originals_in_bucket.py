"""Originals in a bucket: in, found, deleted, gone; its server killed and back; backup, restore."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.chroma import ChromaServer
from tests.fixtures.outage import OwnValkey, Scene, off, scene_of
from tests.fixtures.s3 import S3Server
from tests.fixtures.stack import FAST, model_of
from unjam.app.backup import BLOBS, backup, restore
from unjam.app.run_watchdog import reconciler_of
from unjam.core.document import State
from unjam.core.errors import SetupError
from unjam.settings import Settings
from unjam.stores.s3_blobs import S3Blobs
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended
from unjam.watchdog import reconcile

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(240)]


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.url()


@pytest.fixture
async def scene(
    tmp_path: Path,
    bucket: str,
    own_valkey: OwnValkey,
    chroma_server: ChromaServer,
    fake_openai: FakeOpenAI,
) -> AsyncIterator[Scene]:
    extra = {
        "RAG_STORAGE_URL": bucket,
        "RAG_EMBEDDING_MODEL": model_of(tmp_path),
        "RAG_MAX_CHUNK_SIZE": "32",
        "RAG_RESERVE_MB": "1",
        "RAG_MIN_FREE_DISK_MB": "1",
        **FAST,
    }
    url = own_valkey.plan.url
    async with (
        Stack(tmp_path / "data", url, chroma_server.url, fake_openai.url, extra=extra) as stack,
        scene_of(stack) as made,
    ):
        yield made


def objects(server: S3Server, bucket: str) -> list[Path]:
    """Every upload that the bucket holds."""
    root = server.objects(bucket)
    return [p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")]


async def test_in_found_deleted_and_gone(
    scene: Scene, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.run(workers=1, watchdog=False)
    (first, second) = await scene.upload(2)
    reconciler = reconciler_of(scene.stack.services)
    blobs = scene.stack.services.blobs
    assert isinstance(blobs, S3Blobs)
    ended = await until_ended(scene.stack.services.ledger, [first, second], deadline_s=60)
    assert {d.state for d in ended.values()} == {State.SEARCHABLE}
    assert len(objects(s3_server, bucket)) == 2
    assert (await scene.http.delete(f"/api/rag/documents/{first}")).status_code < 300

    monkeypatch.setattr(reconcile, "BLOB_GRACE_S", 0.0)  # the hour passes at once, ...
    blobs._grace_s = 0.0  # ... and so does the minute

    async def left() -> int:
        reconciler._blobs_due = 0.0
        await reconciler.tick()
        return len(objects(s3_server, bucket))

    await until("the original is gone", left, lambda n: n == 1, deadline_s=30)
    (kept,) = objects(s3_server, bucket)
    assert kept.parent.name == ended[second].content_hash
    copies = scene.stack.data_dir / "originals" / "copies"
    assert [f.name for f in copies.iterdir()] == [ended[second].content_hash]


async def test_a_bucket_goes_and_comes(scene: Scene, s3_server: S3Server) -> None:
    scene.run(workers=1)
    await scene.one_clean()
    for process in scene.processes[:1]:
        await process.stop()
    scene.processes = scene.processes[1:]
    ids = await scene.upload(6)
    shutil.rmtree(scene.stack.data_dir / "originals" / "copies")  # as on another host
    s3_server.kill()
    scene.run(workers=1, watchdog=False)
    shown = await scene.wait_for(ids, "blob_store_down")
    assert all(d["attempts"] == {"errors": 0, "deaths": 0, "throttles": 0} for d in shown)
    began = time.monotonic()
    refused = [await scene.post() for _ in range(5)]
    took_s = time.monotonic() - began
    assert {a.status_code for a in refused} == {503}
    assert {a.json()["code"] for a in refused} == {"blob_store_down"}
    assert all(0 < int(a.headers["Retry-After"]) <= 10 for a in refused)
    assert took_s < 5, "the breaker answers, not the bucket's time-outs"

    await off(s3_server.start)
    back = time.monotonic()

    async def taken() -> int:
        answer = await scene.post()
        if answer.status_code == 202:
            scene.uploaded.append(answer.json()["id"])
        return answer.status_code

    await until("uploads are taken again", taken, lambda code: code == 202, every_s=0.2)
    await scene.all_well(back, first_s=10.0, all_s=60)


async def test_an_upload_tells_that_the_bucket_is_away(scene: Scene, s3_server: S3Server) -> None:
    """Nobody works; the first upload that meets it says so to everybody."""
    s3_server.kill()
    first = await scene.post()
    assert (first.status_code, first.json()["code"]) == (503, "blob_store_down")
    breakers = scene.stack.services.breakers

    async def held() -> bool:
        return breakers.of("blobs") is not None

    await until("the breaker of the originals holds", held)
    assert (await scene.stack.services.ledger.equation()).accepted == 0
    assert not list((scene.stack.data_dir / "originals" / "uploads").glob("up-*"))

    await off(s3_server.start)  # and nobody is there who would probe it

    async def taken() -> int:
        return (await scene.post()).status_code

    await until("an upload tries it", taken, lambda code: code == 202, deadline_s=30, every_s=0.5)


async def test_backup_and_restore(
    scene: Scene, s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    await scene.upload(3)
    stack = scene.stack
    lean = await backup(stack.settings, tmp_path / "lean", with_cache=False)
    assert (lean.originals, lean.missing, lean.originals_in) == (3, (), bucket)
    assert not (tmp_path / "lean" / BLOBS).exists()
    full = await backup(stack.settings, tmp_path / "full", with_cache=False, with_originals=True)
    assert (full.originals, full.missing, full.originals_in) == (3, (), "")
    before = len(objects(s3_server, bucket))

    def settings(name: str, url: str) -> Settings:
        home = replace(stack, data_dir=tmp_path / name, processes=[])
        return Settings(**{**home.environment(), "RAG_STORAGE_URL": url})  # type: ignore[arg-type]

    same = await restore(settings("same", bucket), tmp_path / "lean")
    assert (same.originals, same.documents, same.missing) == (3, 3, ())
    other = s3_server.url()
    moved = await restore(settings("moved", other), tmp_path / "full")
    assert (moved.originals, moved.missing) == (3, ())
    assert len(objects(s3_server, other)) == 3 and len(objects(s3_server, bucket)) == before
    with pytest.raises(SetupError, match="are in s3://"):
        await restore(settings("folder", str(tmp_path / "blobs")), tmp_path / "lean")
    into = await restore(settings("into", str(tmp_path / "blobs")), tmp_path / "full")
    assert (into.originals, into.missing) == (3, ())
    lost = objects(s3_server, other)[0]
    shutil.rmtree(lost.parent)
    again = settings("again", other)
    short = await restore(again, tmp_path / "lean")
    assert short.missing == (lost.parent.name,)


async def test_a_bucket_that_hangs_keeps_few_waiting(scene: Scene, s3_server: S3Server) -> None:
    """The first uploads wait for its time-out; whoever comes after them is answered at once."""
    scene.run(workers=0)
    assert s3_server.process is not None
    s3_server.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        first = await asyncio.gather(*(scene.post() for _ in range(3)))
        waited_s = time.monotonic() - began
        assert {a.status_code for a in first} == {503}
        assert waited_s < 12
        breakers = scene.stack.services.breakers

        async def held() -> bool:
            return breakers.of("blobs") is not None

        await until("the breaker of the originals holds", held)
        began = time.monotonic()
        assert (await scene.post()).status_code == 503
        assert time.monotonic() - began < 2
    finally:
        s3_server.process.send_signal(signal.SIGCONT)

    async def taken() -> int:
        return (await scene.post()).status_code

    await until("uploads are taken again", taken, lambda code: code == 202, every_s=0.2)
    assert (await scene.stack.services.ledger.equation()).accepted == 1
