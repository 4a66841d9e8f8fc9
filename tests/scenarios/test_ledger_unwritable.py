"""The ledger's disk is full, or forbids writing: nothing new is begun, nothing in hand is lost."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures.outage import Scene, in_flight
from tests.fixtures.small_disk import SmallDisk, allow, forbid
from tests.fixtures.stack import FAST, model_of
from unjam.core.document import RUNNING, State
from unjam.core.events import EventKind
from unjam.core.lease import LEASE_S
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended
from unjam.worker.embedded import free_port

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def full_scene(
    tmp_path: Path,
    small_disk: SmallDisk,
    redis_url: str,
    chroma_url: str,
    fake_openai: FakeOpenAI,
) -> AsyncIterator[Scene]:
    """The data folder on a disk of its own; the API a process like the others."""
    extra = {
        "RAG_EMBEDDING_MODEL": model_of(tmp_path),
        "RAG_MAX_CHUNK_SIZE": "32",
        "RAG_RESERVE_MB": "4",
        "RAG_MIN_FREE_DISK_MB": "0",
        **FAST,
    }
    data = small_disk.folder / "data"
    async with Stack(data, redis_url, chroma_url, fake_openai.url, extra=extra) as stack:
        port = free_port(0)
        api = stack.start("api", "--port", str(port), "--dashboard-port", "0")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            scene = Scene(stack, http, [api])
            scene.run()

            async def ready() -> bool:
                try:
                    return (await http.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until("ready", ready, every_s=0.1)
            await scene.one_clean()
            yield scene


def pids_of(scene: Scene) -> list[int]:
    return [p.pid for p in scene.processes]


async def refused(scene: Scene) -> httpx.Response:
    """An upload's answer once the trouble is noticed; what was taken until then counts."""

    async def post() -> httpx.Response:
        answer = await scene.post()
        if answer.status_code == 202:
            scene.uploaded.append(answer.json()["id"])
        return answer

    def good(answer: httpx.Response) -> bool:
        assert answer.status_code in (202, 503), answer.text
        return answer.status_code == 503 and answer.json()["code"] == "ledger_unwritable"

    return await until("uploads are refused", post, good, deadline_s=15, every_s=0.2)


async def claims(scene: Scene, document_id: str) -> list[EventKind]:
    events = await scene.stack.services.ledger.events(document_id, limit=1000)
    return [e.kind for e in events if e.kind in (EventKind.CLAIMED, EventKind.WORKER_DIED)]


async def test_a_full_disk_drains_and_goes_on(
    full_scene: Scene, small_disk: SmallDisk, fake_openai: FakeOpenAI
) -> None:
    scene, ledger = full_scene, full_scene.stack.services.ledger
    reserve = scene.stack.services.reserve

    async def stands() -> bool:
        return reserve.file.exists()

    await until("the reserve", stands)
    assert reserve.file.stat().st_size == 4 * 1_048_576
    fake_openai.control(latency_ms=3000)
    in_hand = await scene.upload(4)
    await in_flight(scene, 4)
    small_disk.fill(pids_of(scene))

    answer = await refused(scene)
    assert int(answer.headers["retry-after"]) >= 1
    health = await scene.http.get("/healthz")
    assert health.status_code == 200
    assert health.json()["dependencies"]["ledger"] != "closed"
    if small_disk.real:  # the reserve made room to write down what was in hand
        ended = await until_ended(ledger, in_hand)
        assert {d.state for d in ended.values()} == {State.SEARCHABLE}
        assert not reserve.file.exists()
        assert (await scene.post()).json()["code"] == "ledger_unwritable"  # and nothing more

    small_disk.free()
    fake_openai.control(latency_ms=0)
    began = time.monotonic()
    await until("uploads are taken", scene.post, lambda a: a.status_code == 202, every_s=0.2)
    assert time.monotonic() - began < 8.0
    # what was taken by these probes of ours counts, too
    page = await ledger.list(limit=200)
    scene.uploaded = [d.id for d in page.items]
    await scene.all_well(time.monotonic(), first_s=10.0)
    for document_id in in_hand:
        assert await claims(scene, document_id) == [EventKind.CLAIMED]
    await until("the reserve again", stands)


async def test_an_outage_longer_than_a_lease_takes_nothing_from_anybody(
    full_scene: Scene, fake_openai: FakeOpenAI
) -> None:
    scene, ledger = full_scene, full_scene.stack.services.ledger
    fake_openai.control(latency_ms=1000)
    in_hand = await scene.upload(4)
    await in_flight(scene, 4)
    forbid(pids_of(scene))
    try:
        await refused(scene)

        async def silence_s() -> float:
            return min(age for _, age in await ledger.processes())

        await until("longer than a lease", silence_s, lambda s: s > LEASE_S + 2, deadline_s=40)
        held = [await ledger.get(i) for i in in_hand]
        assert all(d is not None and d.state in RUNNING for d in held)
    finally:
        allow(pids_of(scene))
    await scene.all_well(time.monotonic(), first_s=10.0)
    for document_id in in_hand:
        assert await claims(scene, document_id) == [EventKind.CLAIMED]
