"""The OpenAI-compatible provider against a real HTTP server in every kind of trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from unjam.core.errors import DependencyDown, DocumentRejected
from unjam.embedding.governor import Governor
from unjam.embedding.keys import KeyPool
from unjam.embedding.openai import OpenAIProvider
from unjam.testing.openai_process import FakeOpenAI

TEXTS = [f"text number {n}" for n in range(6)]


@asynccontextmanager
async def provider(
    fake: FakeOpenAI,
    *keys: str,
    rotate: bool = False,
    knobs: dict[str, int] | None = None,
    **options: Any,
) -> AsyncIterator[OpenAIProvider]:
    made = OpenAIProvider(
        base_url=fake.url,
        model=options.pop("model", "text-embedding-3-small"),
        keys=KeyPool(keys or ["k"], rotate=rotate),
        governor=Governor(lambda: knobs or {"RAG_EMBEDDING_CONCURRENCY": 8}),
        **options,
    )
    try:
        yield made
    finally:
        await made.close()


async def trouble(made: OpenAIProvider) -> DependencyDown:
    with pytest.raises(DependencyDown) as caught:
        await made.embed(TEXTS)
    return caught.value


async def test_base64_equals_what_the_server_computed(fake_openai: FakeOpenAI):
    from unjam.testing.fake_vectors import hash_vectors

    async with provider(fake_openai) as made:
        vectors = await made.embed(TEXTS)
    np.testing.assert_allclose(vectors, hash_vectors(TEXTS, 1536), atol=1e-6)
    stats = fake_openai.stats()
    assert (stats["requests"], stats["embedded"], stats["per_key"]) == (1, 6, {"k": 1})


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("500", "embedding_down"),
        ("503", "embedding_down"),
        ("404", "embedding_down"),
        ("drop", "embedding_down"),
        ("bad_json", "embedding_down"),
        ("html", "embedding_down"),
        ("bad_count", "embedding_down"),
        ("nan", "embedding_down"),
        ("401", "embedding_unauthorised"),
        ("403", "embedding_unauthorised"),
        ("quota", "embedding_quota"),
    ],
)
async def test_trouble_has_its_name(fake_openai: FakeOpenAI, fault: str, code: str):
    fake_openai.control(fault=fault)
    async with provider(fake_openai) as made:
        error = await trouble(made)
        assert error.code == code
        assert not error.throttled
        assert error.retry_after_s > 0
        assert "Bearer" not in str(error)


async def test_nobody_listens():
    made = OpenAIProvider(
        base_url="http://127.0.0.1:9/v1",
        model="m",
        keys=KeyPool(["k"]),
        governor=Governor(lambda: {"RAG_EMBEDDING_CONCURRENCY": 1}),
    )
    assert (await trouble(made)).code == "embedding_down"
    await made.close()


async def test_a_hanging_endpoint_is_given_up(fake_openai: FakeOpenAI):
    fake_openai.control(fault="hang")
    async with provider(fake_openai, total_s=0.3) as made:
        began = time.monotonic()
        assert (await trouble(made)).code == "embedding_down"
        assert time.monotonic() - began < 5


async def test_a_connection_closed_while_idle_is_no_trouble(fake_openai: FakeOpenAI):
    async with provider(fake_openai) as made:
        fake_openai.control(next_faults=["drop"])
        assert (await made.embed(TEXTS)).shape == (6, 1536)


@pytest.mark.parametrize("style", ["seconds", "ms", "reset", "date"])
async def test_a_long_pause_is_told_with_its_length(fake_openai: FakeOpenAI, style: str):
    fake_openai.control(fault="429", retry_after_s=40, retry_after_style=style)
    async with provider(fake_openai) as made:
        error = await trouble(made)
        assert (error.code, error.throttled) == ("embedding_throttled", True)
        assert 38 <= error.retry_after_s <= 40
        # The key rests now: asking again costs the endpoint nothing.
        await trouble(made)
    assert fake_openai.stats()["requests"] == 1


async def test_a_short_pause_is_sat_out_and_obeyed(fake_openai: FakeOpenAI):
    fake_openai.control(next_faults=["429"], retry_after_s=0.4)
    async with provider(fake_openai) as made:
        await asyncio.gather(*[made.embed([t]) for t in TEXTS])
    arrivals = sorted(fake_openai.stats()["arrivals"])
    refused = 1
    # All but those already on their way kept away for as long as was asked.
    later = [a for a in arrivals if a - arrivals[0] > 0.3]
    assert len(arrivals) == len(TEXTS) + refused
    assert later
    assert all(a - arrivals[0] >= 0.39 for a in later)


async def test_a_refused_key_is_replaced_by_the_next(fake_openai: FakeOpenAI):
    fake_openai.control(bad_keys=["stolen"], quota_keys=["poor"])
    async with provider(fake_openai, "stolen", "poor", "good") as made:
        for _ in range(3):
            assert (await made.embed(TEXTS)).shape == (6, 1536)
    assert fake_openai.stats()["per_key"] == {"stolen": 1, "poor": 1, "good": 3}


async def test_rotation_spreads_and_avoids_a_throttled_group(fake_openai: FakeOpenAI):
    fake_openai.control(
        projects={"a1": "a", "a2": "a", "b1": "b"}, requests_per_minute=1, window_s=3600
    )
    async with provider(fake_openai, "a:a1", "a:a2", "b:b1", rotate=True) as made:
        assert (await made.embed(TEXTS)).shape == (6, 1536)
        assert (await made.embed(TEXTS)).shape == (6, 1536)  # a2 is refused, b1 takes it
        error = await trouble(made)
        assert error.code == "embedding_throttled"
    assert fake_openai.stats()["embedded"] == 12


async def test_another_dimension_is_never_mixed_in(fake_openai: FakeOpenAI):
    async with provider(fake_openai, model="unknown") as made:
        assert (await made.embed(TEXTS)).shape == (6, 256)
        fake_openai.control(fault="wrong_dimension")
        assert (await trouble(made)).code == "embedding_dimension_changed"
    async with provider(fake_openai, dimension=1536) as made:
        assert (await trouble(made)).code == "embedding_dimension_changed"


async def test_a_refused_text_is_told_from_an_endpoint_that_refuses_all(fake_openai: FakeOpenAI):
    fake_openai.control(refuse_marker="forbidden")
    async with provider(fake_openai) as made:
        with pytest.raises(DocumentRejected):
            await made.embed([*TEXTS, "forbidden words"])
        with pytest.raises(DocumentRejected) as caught:
            await made.embed(["forbidden words"])
        assert caught.value.code == "embedding_refused"
    # A wrong setting must not park every document.
    fake_openai.control(refuse_marker="", fault="400")
    async with provider(fake_openai) as made:
        with pytest.raises(DependencyDown) as down:
            await made.embed(["words"])
        assert down.value.code == "embedding_down"


async def test_no_more_in_flight_than_the_knob_says(fake_openai: FakeOpenAI):
    fake_openai.control(latency_ms=30)
    async with provider(fake_openai, knobs={"RAG_EMBEDDING_CONCURRENCY": 2}) as made:
        await asyncio.gather(*[made.embed([t]) for t in TEXTS])
    assert fake_openai.stats()["max_in_flight"] == 2


async def test_the_least_time_between_requests(fake_openai: FakeOpenAI):
    knobs = {"RAG_EMBEDDING_CONCURRENCY": 8, "RAG_EMBEDDING_DELAY_MS": 60}
    async with provider(fake_openai, knobs=knobs) as made:
        await asyncio.gather(*[made.embed([t]) for t in TEXTS])
    arrivals = sorted(fake_openai.stats()["arrivals"])
    # On a busy machine the first is taken late; without the knob all come within some milliseconds.
    assert arrivals[-1] - arrivals[0] >= 0.06 * 5 / 2
