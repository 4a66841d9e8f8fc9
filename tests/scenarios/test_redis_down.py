"""Redis is killed: uploads are taken, what is in hand ends, the rest waits with the reason."""

from __future__ import annotations

import time

import pytest

from tests.fixtures.outage import OwnValkey, Scene, in_flight
from unjam.core.document import State
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.wait import until_ended

pytestmark = pytest.mark.timeout(180)


async def test_redis_goes_and_comes(
    scene: Scene, own_valkey: OwnValkey, fake_openai: FakeOpenAI
) -> None:
    scene.run()
    await scene.one_clean()
    fake_openai.control(latency_ms=1000)
    in_hand = await scene.upload(6)
    await in_flight(scene, 6)
    await own_valkey.kill()

    queued = await scene.upload(20)
    for shown in await scene.wait_for(queued, "queue_down"):
        assert shown["state"] in ("received", "queued")
        assert shown["hint"]
    # a job's end without Redis, and more than one heartbeat of the workers
    ended = await until_ended(scene.stack.services.ledger, in_hand)
    assert {d.state for d in ended.values()} == {State.SEARCHABLE}
    health = (await scene.http.get("/healthz")).json()
    assert health["dependencies"]["redis"] in ("open", "half_open")

    fake_openai.control(latency_ms=0)
    began = time.monotonic()
    await own_valkey.start()
    await scene.all_well(began)
