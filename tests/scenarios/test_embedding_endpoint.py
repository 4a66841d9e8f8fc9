"""The embedding service in front of an endpoint in trouble: who fails, who waits, what is paid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unjam.core.document import Pin
from unjam.core.errors import DependencyDown, DocumentRejected
from unjam.embedding.factory import build_embedder
from unjam.embedding.fingerprint import current_pin
from unjam.embedding.service import EmbeddingService
from unjam.settings import Settings
from unjam.stores.memory_cache import MemoryVectorCache
from unjam.stores.vector_cache import SqliteVectorCache
from unjam.testing.openai_process import FakeOpenAI

KNOBS = {"RAG_EMBEDDING_BATCH_SIZE": 32, "RAG_EMBEDDING_CONCURRENCY": 3}

Build = Callable[..., tuple[EmbeddingService, Pin]]


@pytest.fixture
async def build(fake_openai: FakeOpenAI, tmp_path: Path) -> AsyncIterator[Build]:
    made: list[EmbeddingService] = []

    def _build(
        *, knobs: dict[str, int] | None = None, memory: bool = False, **values: Any
    ) -> tuple[EmbeddingService, Pin]:
        settings = Settings.model_validate(
            {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": fake_openai.url, **values}
        )
        cache = MemoryVectorCache() if memory else SqliteVectorCache(tmp_path / "c.db", 2**28)
        live = KNOBS if knobs is None else knobs
        service = build_embedder(settings, cache, lambda: live)
        made.append(service)
        return service, current_pin(settings, live)

    yield _build
    for service in made:
        await service.close()


def texts(document: int, count: int) -> list[str]:
    return [f"document {document}, chunk {n}" for n in range(count)]


async def test_fifty_small_documents_share_a_few_requests(build: Build, fake_openai: FakeOpenAI):
    service, pin = build()
    fake_openai.control(latency_ms=50)
    answers = await asyncio.gather(*[service.passages(texts(d, 2), pin) for d in range(50)])
    assert all(a.shape == (2, 1536) for a in answers)
    stats = fake_openai.stats()
    assert stats["embedded"] == 100
    assert stats["requests"] <= 5
    assert stats["max_in_flight"] <= 3


async def test_nothing_is_paid_for_twice(build: Build, fake_openai: FakeOpenAI):
    first, pin = build()
    before = await first.passages(["same", "other", "same"], pin)
    np.testing.assert_array_equal(before[0], before[2])
    second, _ = build()  # another process, the same file
    after = await second.passages(["other", "same", "new"], pin)
    np.testing.assert_array_equal(after[0], before[1])
    stats = fake_openai.stats()
    assert (stats["embedded"], stats["repeated"]) == (3, 0)


async def test_what_was_embedded_before_a_failure_is_not_embedded_again(
    build: Build, fake_openai: FakeOpenAI
):
    service, pin = build(knobs={**KNOBS, "RAG_EMBEDDING_CONCURRENCY": 1})
    fake_openai.control(next_faults=["", "", "500"])
    document = texts(1, 200)
    with pytest.raises(DependencyDown) as caught:
        await service.passages(document, pin)
    assert caught.value.code == "embedding_down"
    assert (await service.passages(document, pin)).shape == (200, 1536)
    stats = fake_openai.stats()
    assert (stats["embedded"], stats["repeated"]) == (200, 0)


async def test_one_refused_text_ends_only_its_document(build: Build, fake_openai: FakeOpenAI):
    service, pin = build()
    fake_openai.control(refuse_marker="poison")
    poisoned = [*texts(0, 5), "poison", *texts(1, 5)]
    answers = await asyncio.gather(
        *[service.passages(texts(d, 3), pin) for d in range(2, 12)],
        service.passages(poisoned, pin),
        return_exceptions=True,
    )
    *fine, refused = answers
    assert all(isinstance(a, np.ndarray) and a.shape == (3, 1536) for a in fine)
    assert isinstance(refused, DocumentRejected)
    assert refused.code == "embedding_refused"
    assert "Chunk 5 " in refused.detail
    assert fake_openai.times_embedded("poison") == 0


async def test_an_endpoint_with_smaller_batches_is_served(build: Build, fake_openai: FakeOpenAI):
    service, pin = build()
    fake_openai.control(max_batch=5)
    assert (await service.passages(texts(1, 32), pin)).shape == (32, 1536)
    assert fake_openai.stats()["repeated"] == 0


async def test_a_malformed_answer_is_never_stored(build: Build, fake_openai: FakeOpenAI):
    service, pin = build()
    for fault in ("nan", "bad_count", "bad_json", "wrong_dimension"):
        fake_openai.control(next_faults=[fault])
        with pytest.raises(DependencyDown):
            await service.passages([f"text for {fault}"], pin)
    good = await service.passages(
        [f"text for {fault}" for fault in ("nan", "bad_count", "bad_json", "wrong_dimension")], pin
    )
    np.testing.assert_allclose(np.linalg.norm(good, axis=1), 1.0, atol=1e-5)
    assert good.shape == (4, 1536)


async def test_a_knob_changes_the_next_request(build: Build, fake_openai: FakeOpenAI):
    knobs = dict(KNOBS)
    service, pin = build(knobs=knobs)
    await service.passages(texts(1, 32), pin)
    knobs["RAG_EMBEDDING_BATCH_SIZE"] = 8
    await service.passages(texts(2, 32), pin)
    assert fake_openai.stats()["batches"] == [32, 8, 8, 8, 8]


async def test_search_does_not_wait_behind_ingestion(build: Build, fake_openai: FakeOpenAI):
    service, pin = build(
        knobs={**KNOBS, "RAG_EMBEDDING_CONCURRENCY": 1, "RAG_EMBEDDING_DELAY_MS": 60_000}
    )
    await service.passages(texts(1, 32), pin)
    second = asyncio.create_task(service.passages(texts(2, 32), pin))
    await asyncio.sleep(0.05)  # it stands in the delay now
    async with asyncio.timeout(5):
        vector = await service.query("where is it?", pin)
    assert vector.shape == (1536,)
    assert not second.done()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


async def test_an_equal_search_is_answered_from_memory(build: Build, fake_openai: FakeOpenAI):
    service, pin = build()
    one, two = await service.query("again", pin), await service.query("again", pin)
    np.testing.assert_array_equal(one, two)
    assert fake_openai.stats()["requests"] == 1


async def test_alone_means_alone(build: Build, fake_openai: FakeOpenAI):
    service, pin = build()
    fake_openai.control(latency_ms=20)
    await asyncio.gather(
        service.passages(texts(1, 16), pin, alone=True), service.passages(texts(2, 16), pin)
    )
    assert sorted(fake_openai.stats()["batches"]) == [8, 8, 16]


async def test_a_pin_of_another_endpoint_waits_with_a_clear_reason(build: Build):
    _, old = build(OPENAI_BASE_URL="http://gone.example/v1")
    service, _ = build()
    with pytest.raises(DependencyDown) as caught:
        await service.passages(["x"], old)
    assert caught.value.code == "embedding_down"
    assert "gone.example" in caught.value.detail


async def test_an_older_model_of_the_same_endpoint_is_still_served(build: Build):
    _, old = build(RAG_EMBEDDING_MODEL="text-embedding-3-large")
    service, _ = build()
    assert (await service.passages(["x"], old)).shape == (1, 3072)


async def test_no_text_no_request(build: Build, fake_openai: FakeOpenAI):
    service, pin = build()
    assert (await service.passages([], pin)).shape == (0, 1536)
    assert fake_openai.stats()["requests"] == 0


async def test_the_local_model_through_the_service(build: Build, fake_openai: FakeOpenAI):
    service, pin = build(OPENAI_API_KEY="")
    passages = await service.passages(
        ["빵을 굽는 온도는 230도이다.", "The queue moves again."], pin
    )
    query = await service.query("oven temperature for bread", pin)
    assert int(np.argmax(passages @ query)) == 0
    assert fake_openai.stats()["requests"] == 0  # no text left the machine
