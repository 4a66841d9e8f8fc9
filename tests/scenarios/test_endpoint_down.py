"""The embedding endpoint fails, hangs up, throttles: everybody waits for one probe at a time."""

from __future__ import annotations

import time

import pytest

from tests.fixtures.outage import Scene, off
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.wait import until

pytestmark = [pytest.mark.alone, pytest.mark.thorough, pytest.mark.timeout(180)]


@pytest.mark.parametrize("fault", ["503", "drop"])
async def test_the_endpoint_fails_and_works_again(
    scene: Scene, fake_openai: FakeOpenAI, fault: str
) -> None:
    scene.run()
    await scene.one_clean()
    fake_openai.control(fault=fault, retry_after_style="none")
    ids = await scene.upload(40)
    shown = await scene.wait_for(ids, "embedding_down")
    assert all(d["attempts"] == {"errors": 0, "deaths": 0, "throttles": 0} for d in shown)
    assert {d["state"] for d in shown} >= {"waiting"}

    # it is asked by one, now and then, however much waits
    before, began = (await off(fake_openai.stats))["requests"], time.monotonic()

    async def requests() -> int:
        return (await off(fake_openai.stats))["requests"] - before

    seen = await until("some probes", requests, lambda n: n >= 4, deadline_s=30)
    per_probe = 2 if fault == "drop" else 1  # a hung-up connection is tried once more
    assert seen / (time.monotonic() - began) < per_probe * 1.5

    fake_openai.control(fault="")
    await scene.all_well(time.monotonic(), all_s=60)


async def test_a_throttle_is_waited_out_as_it_asks(scene: Scene, fake_openai: FakeOpenAI) -> None:
    scene.run()
    await scene.one_clean()
    fake_openai.control(fault="429", retry_after_s=8.0)
    ids = await scene.upload(10)
    await scene.wait_for(ids, "embedding_throttled")
    before, began = (await off(fake_openai.stats))["requests"], time.monotonic()
    until_s = (scene.stack.services.breakers.of("embedding").until or 0.0) - time.time()  # type: ignore[union-attr]
    assert 0.0 < until_s <= 8.5
    fake_openai.control(fault="")

    async def requests() -> int:
        return (await off(fake_openai.stats))["requests"] - before

    await until("the next request", requests, deadline_s=20)
    assert time.monotonic() - began > until_s - 1.5
    await scene.all_well(time.monotonic(), first_s=10.0)
