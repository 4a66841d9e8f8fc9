"""What holds for every way to turn texts into vectors, and what for each alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from unjam.core.errors import DependencyDown, DocumentRejected
from unjam.core.ports import Provider, Vectors
from unjam.embedding import local, model_build
from unjam.embedding.governor import Governor
from unjam.embedding.keys import KeyPool
from unjam.embedding.local import LocalProvider
from unjam.embedding.model_weights import Weights
from unjam.embedding.openai import OpenAIProvider
from unjam.testing.openai_process import FakeOpenAI

TEXTS = [
    "passage: A queue that stops moving is looked at within seconds.",
    "passage: 멈춘 대기열은 몇 초 안에 원인을 찾아 다시 움직인다.",
    "passage: " + "Lists, tables and code are kept whole. " * 20,
    "passage: x",
]


@pytest.fixture(params=["local", "openai"])
async def provider(
    request: pytest.FixtureRequest, fake_openai: FakeOpenAI
) -> AsyncIterator[Provider]:
    made: Provider
    if request.param == "local":
        made = LocalProvider()
    else:
        made = OpenAIProvider(
            base_url=fake_openai.url,
            model="text-embedding-3-small",
            keys=KeyPool(["k"]),
            governor=Governor(lambda: {"RAG_EMBEDDING_CONCURRENCY": 3}),
        )
    yield made
    await made.close()


async def test_one_unit_vector_a_text(provider: Provider):
    vectors = await provider.embed(TEXTS)
    assert vectors.shape[0] == len(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


async def test_a_vector_depends_on_its_text_alone(provider: Provider):
    together = await provider.embed(TEXTS)
    reverse = await provider.embed(TEXTS[::-1])
    np.testing.assert_array_equal(together, reverse[::-1])
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_array_equal((await provider.embed([text]))[0], vector)


async def test_calls_may_overlap(provider: Provider):
    alone = await provider.embed(TEXTS)
    for vectors in await asyncio.gather(*[provider.embed(TEXTS) for _ in range(3)]):
        np.testing.assert_array_equal(vectors, alone)


async def test_a_text_too_long_is_refused_by_name_and_never_cut(provider: Provider):
    with pytest.raises(DocumentRejected) as caught:
        await provider.embed(["passage: " + "word " * 40_000])
    assert caught.value.code == "embedding_refused"
    assert (await provider.embed(TEXTS[:1])).shape[0] == 1


# -- the local model ------------------------------------------------------------------------
async def similarity(provider: LocalProvider, query: str, passages: Sequence[str]) -> Vectors:
    vectors = await provider.embed([f"query: {query}", *[f"passage: {p}" for p in passages]])
    return vectors[1:] @ vectors[0]


async def test_meaning_is_found_across_languages():
    provider = LocalProvider()
    passages = [
        "The office is closed on public holidays.",
        "Redis 메모리가 가득 차면 대기열의 작업이 사라질 수 있다.",
        "Bread is baked at 230 degrees for forty minutes.",
        "임베딩 API가 429를 돌려주면 잠시 기다린다.",
    ]
    try:
        for query, wanted in (
            ("what happens when redis runs out of memory", 1),
            ("빵을 굽는 온도", 2),
            ("rate limit of the embedding service", 3),
            ("when is the office open", 0),
        ):
            assert int(np.argmax(await similarity(provider, query, passages))) == wanted
    finally:
        await provider.close()


async def test_the_limit_is_512_tokens_to_the_token():
    provider = LocalProvider()
    try:
        assert (await provider.embed(["a " * 510])).shape == (1, 384)
        with pytest.raises(DocumentRejected, match="513"):
            await provider.embed(["a " * 511])
    finally:
        await provider.close()


def test_int8_stays_close_to_float32(tmp_path: Path):
    files = model_build.ensure_model()
    weights = Weights(model_build.weights_path().read_bytes())
    exact = tmp_path / "exact.onnx"
    model_build.write_encoder(weights, exact, quantised=False)
    fast = local.load(files)
    slow = local.Model(local.open_session(exact), fast.tokenizer, fast.words, fast.positions)
    for text in [*TEXTS, "passage: " + "a " * 300]:
        ids = fast.tokenizer.encode(text).ids
        cosine = float(local.embed_tokens(fast, ids) @ local.embed_tokens(slow, ids))
        assert cosine >= 0.98, text[:40]


async def test_a_model_that_cannot_be_built_makes_documents_wait(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    provider = LocalProvider(lambda: model_build.ensure_model(blocked / "models"))
    with pytest.raises(DependencyDown) as caught:
        await provider.embed(TEXTS)
    assert caught.value.code == "embedding_down"
    await provider.close()


# -- building it ----------------------------------------------------------------------------
@pytest.mark.slow
async def test_built_once_by_whoever_comes_first(tmp_path: Path):
    (tmp_path / "leftover").mkdir()
    made = await asyncio.gather(
        *[asyncio.create_subprocess_exec(*_build_command(tmp_path), stdout=-1) for _ in range(3)]
    )
    answers = [await process.communicate() for process in made]
    assert [process.returncode for process in made] == [0, 0, 0]
    assert len({out for out, _ in answers}) == 1
    folder = Path(answers[0][0].decode().strip())
    files = model_build.ModelFiles.within(folder)
    assert all(p.stat().st_size for p in (files.onnx, files.words, files.positions))
    assert not list(tmp_path.glob("*.tmp*"))
    # Whole or absent: a builder that was killed leaves something that the next one removes.
    (tmp_path / f"{folder.name}.tmpdead").mkdir()
    before = files.onnx.read_bytes()
    folder.rename(tmp_path / "away")
    assert model_build.ensure_model(tmp_path) == files
    assert files.onnx.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp*"))


def _build_command(folder: Path) -> list[str]:
    import sys

    return [sys.executable, "-m", "unjam.embedding.model_build", str(folder)]
