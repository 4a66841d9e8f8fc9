"""Chroma is killed: documents wait for it, claims pause, and it costs nobody an attempt."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.fixtures.chroma import ChromaServer
from tests.fixtures.outage import Scene, off
from unjam.core.events import EventKind
from unjam.testing.wait import until

pytestmark = pytest.mark.timeout(180)


async def claims_of(scene: Scene) -> int:
    counted = 0
    for document_id in scene.uploaded:
        events = await scene.stack.services.ledger.events(document_id, limit=1000)
        counted += sum(e.kind is EventKind.CLAIMED for e in events)
    return counted


async def test_chroma_goes_and_comes(scene: Scene, chroma_server: ChromaServer) -> None:
    scene.run()
    await scene.one_clean()
    chroma_server.kill()
    ids = await scene.upload(40)
    shown = await scene.wait_for(ids, "vector_store_down")
    waiting = [d for d in shown if d["state"] == "waiting"]
    assert waiting and len(waiting) < len(ids)  # who met it; the others were left in line
    assert all(d["attempts"] == {"errors": 0, "deaths": 0, "throttles": 0} for d in shown)

    # several probes later: nobody was claimed again
    breakers = scene.stack.services.breakers
    claimed = await claims_of(scene)
    probes: set[float] = set()

    async def probed() -> int:
        row = breakers.of("chroma")
        assert row is not None
        probes.add(row.changed_at)
        return len(probes)

    await until("several probes", probed, lambda n: n >= 3, deadline_s=20)
    assert await claims_of(scene) == claimed
    late = await scene.upload(3)
    await scene.wait_for(late, "vector_store_down")

    await off(chroma_server.start)
    await scene.all_well(time.monotonic(), all_s=60)


async def test_a_chroma_that_hangs_is_one_that_is_away(
    scene: Scene, chroma_server: ChromaServer
) -> None:
    scene.run(workers=1)
    await scene.one_clean()
    chroma_server.stop()
    ids = await scene.upload(3)
    await until(
        "in hand or waiting",
        lambda: asyncio.gather(*(scene.shown(i) for i in ids)),
        lambda seen: all(d["state"] not in ("received",) for d in seen),
    )
    chroma_server.cont()
    await scene.all_well(time.monotonic(), first_s=10.0)
