"""Processes that share an endpoint's limit: used to the full, hardly ever exceeded; keys, pauses.

A minute is 5 s here, on both sides; ``bench/governor.py`` does it with the real one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from unjam.core.document import Pin
from unjam.core.errors import DependencyDown
from unjam.embedding.factory import build_embedder
from unjam.embedding.fingerprint import current_pin
from unjam.embedding.meters import KEYS_READY, REQUESTS, Meters
from unjam.embedding.service import EmbeddingService
from unjam.settings import Settings
from unjam.stores.memory_cache import MemoryVectorCache
from unjam.testing.governor_load import measure
from unjam.testing.openai_process import FakeOpenAI

pytestmark = pytest.mark.thorough


async def test_two_processes_use_their_groups_limit_and_do_not_exceed_it(
    fake_openai: FakeOpenAI, redis_url: str
):
    used = await measure(fake_openai, redis_url, limit=150, rate=150, minutes=3, minute_s=5)
    assert used.used_share() >= 0.95, used
    assert used.refused_share() < 0.01, used
    assert len(fake_openai.stats()["per_key"]) == 2


async def test_a_governor_set_too_high_finds_the_limit(fake_openai: FakeOpenAI, redis_url: str):
    used = await measure(fake_openai, redis_url, limit=150, rate=300, minutes=4, minute_s=5)
    assert used.refused_share(skip=1) < 0.03, used
    assert used.used_share(skip=1) >= 0.9, used


Build = Callable[..., tuple[EmbeddingService, Pin, Settings]]


@pytest.fixture
async def build(fake_openai: FakeOpenAI, redis_url: str) -> AsyncIterator[Build]:
    """Services as two processes would have them: nothing in common but Redis."""
    made: list[EmbeddingService] = []

    def _build(
        knobs: dict[str, int] | None = None, **values: Any
    ) -> tuple[EmbeddingService, Pin, Settings]:
        settings = Settings.model_validate(
            {
                "OPENAI_API_KEY": "k",
                "OPENAI_BASE_URL": fake_openai.url,
                "RAG_REDIS_URL": redis_url,
                **values,
            }
        )
        live = {"RAG_EMBEDDING_CONCURRENCY": 3, "RAG_EMBEDDING_RATE_LIMIT": 6000, **(knobs or {})}
        service = build_embedder(settings, MemoryVectorCache(), lambda: live)
        made.append(service)
        return service, current_pin(settings, live), settings

    yield _build
    for service in made:
        await service.close()


async def trouble(service: EmbeddingService, pin: Pin, text: str = "x") -> DependencyDown:
    with pytest.raises(DependencyDown) as caught:
        await service.passages([text], pin)
    return caught.value


async def test_a_429_of_one_process_keeps_all_of_them_away(
    build: Build, fake_openai: FakeOpenAI, caplog: pytest.LogCaptureFixture
):
    (one, pin, _), (other, _, _) = build(), build()
    fake_openai.control(fault="429", retry_after_s=40)
    with caplog.at_level(logging.ERROR, "unjam.embedding"):
        first = await trouble(one, pin)
    second = await trouble(other, pin)
    for error in (first, second):
        assert (error.code, error.throttled) == ("embedding_throttled", True)
        assert 35 < error.retry_after_s <= 40
    assert fake_openai.stats()["requests"] == 1
    assert caplog.messages.count("Embedding API rate limit exceeded") == 1


async def test_an_endpoint_that_refuses_everything_is_asked_less_and_less(
    build: Build, fake_openai: FakeOpenAI
):
    """It says "try again at once" each time; documents must not be taken up for nothing."""
    service, pin, _ = build()
    fake_openai.control(fault="429", retry_after_s=0.05)
    began, errors = time.monotonic(), list[DependencyDown]()
    while time.monotonic() - began < 6:
        error = await trouble(service, pin, f"text {len(errors)}")
        errors.append(error)
        await asyncio.sleep(min(error.retry_after_s, 6.0))
    assert all(error.throttled for error in errors)
    assert len(errors) <= 3
    assert fake_openai.stats()["requests"] <= 9
    assert errors[-1].retry_after_s > 2


async def test_a_pause_ends_and_everything_goes_on(build: Build, fake_openai: FakeOpenAI):
    (one, pin, _), (other, _, _) = build(), build()
    fake_openai.control(next_faults=["429"], retry_after_s=0.5)
    await asyncio.gather(
        *[s.passages([f"{n} {s is one}"], pin) for n in range(20) for s in (one, other)]
    )
    stats = fake_openai.stats()
    assert (stats["embedded"], stats["statuses"]["429"]) == (40, 1)


async def test_a_refused_key_is_reported_and_known_to_all(
    build: Build, fake_openai: FakeOpenAI, caplog: pytest.LogCaptureFixture
):
    keys = {"OPENAI_API_KEYS": "team:stolen-secret,team:good", "USE_API_KEY_ROTATION": "true"}
    fake_openai.control(bad_keys=["stolen-secret"])
    one, pin, settings = build(**keys, OPENAI_API_KEY="")
    with caplog.at_level(logging.ERROR, "unjam.embedding"):
        for n in range(4):
            await one.passages([f"one {n}"], pin)
    other, _, _ = build(**keys, OPENAI_API_KEY="")
    for n in range(4):
        await other.passages([f"other {n}"], pin)
    assert fake_openai.stats()["per_key"] == {"stolen-secret": 1, "good": 8}
    (record,) = [r for r in caplog.records if r.getMessage() == "Embedding API key refused"]
    assert record.fields["key"] == "1/2 (team)"  # type: ignore[attr-defined]
    assert "stolen-secret" not in str(record.__dict__)
    await one.close()
    await other.close()
    meters = await Meters(settings).read()
    assert meters[KEYS_READY, ""] == 1
    assert (meters[REQUESTS, "ok"], meters[REQUESTS, "failed"]) == (8, 1)


async def test_a_batch_that_is_too_large_is_halved_once_and_for_all(
    build: Build, fake_openai: FakeOpenAI
):
    service, pin, _ = build({"RAG_EMBEDDING_BATCH_SIZE": 32, "RAG_EMBEDDING_CONCURRENCY": 1})
    fake_openai.control(max_batch=10)
    await service.passages([f"a {n}" for n in range(32)], pin)
    refused = fake_openai.stats()["statuses"]["400"]
    await service.passages([f"b {n}" for n in range(320)], pin)
    stats = fake_openai.stats()
    assert stats["repeated"] == 0
    # 16 was too many; 8 is known to be fine, 9 and 10 are tried and stay, 11 is tried once.
    assert stats["statuses"]["400"] - refused <= 2
    assert stats["batches"][-3] == 10


async def test_limits_that_the_endpoint_tells_are_obeyed_by_all(
    build: Build, fake_openai: FakeOpenAI
):
    """The knob allows a hundred times as much; nobody has to be refused to learn that."""
    (one, pin, _), (other, _, _) = build(), build()
    fake_openai.control(requests_per_minute=120, tell_limits=True)
    began = time.monotonic()
    for n in range(20):
        await asyncio.gather(*[s.query(f"{n} {s is one}", pin) for s in (one, other)])
    took_s = time.monotonic() - began
    stats = fake_openai.stats()
    assert stats["statuses"] == {"200": 40}
    assert took_s < 30


async def test_without_redis_a_process_goes_on_with_its_share(
    build: Build, fake_openai: FakeOpenAI
):
    service, pin, settings = build(RAG_REDIS_URL="redis://127.0.0.1:9/5")
    assert (await service.passages(["x"], pin)).shape == (1, 1536)
    fake_openai.control(fault="429", retry_after_s=40)
    assert (await trouble(service, pin, "y")).throttled
    assert (await trouble(service, pin, "z")).throttled
    assert fake_openai.stats()["requests"] == 2
    assert (await Meters(settings).read())[KEYS_READY, ""] == 1
