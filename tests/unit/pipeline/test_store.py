"""Store: every id is confirmed; a self-query is a sample that may warn and never loops."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from unjam.core.chunk import Chunk
from unjam.core.document import Claim, Fingerprint, Pin
from unjam.core.errors import DependencyDown
from unjam.core.ports import Candidate, ChunkRow, Vectors
from unjam.pipeline import store as module
from unjam.pipeline.store import SAMPLE_EVERY, VectorWriter
from unjam.stores.memory_vectors import MemoryVectors


class Forgetful(MemoryVectors):
    """Acknowledges upserts and forgets some of them, or finds nothing."""

    def __init__(self, forget: int = 0, blind: bool = False) -> None:
        super().__init__()
        self.forget, self.blind, self.upserts = forget, blind, 0

    async def upsert(self, collection: str, rows: Sequence[ChunkRow], vectors: Vectors) -> None:
        self.upserts += 1
        if self.forget:
            self.forget -= 1
            await super().upsert(collection, rows[1:], vectors[1:])
        else:
            await super().upsert(collection, rows, vectors)

    async def query(
        self, collection: str, vector: Vectors, k: int, where: Mapping[str, Any] | None = None
    ) -> list[Candidate]:
        return [] if self.blind else await super().query(collection, vector, k, where)


def claim() -> Claim:
    pin = Pin(Fingerprint("local", "m"), 256, 32, "local")
    return Claim(
        *("doc", 1, 1, 1, "", "a.txt", "text/plain", 3, "00", pin, "rag_processing", 0),
        *(0, 0, False, {}, 0.0, 0.0),
    )


def window(count: int = 4) -> tuple[list[Chunk], Vectors]:
    chunks = [Chunk(i, f"text {i}", 2, 0, 6) for i in range(count)]
    return chunks, np.eye(count, 8, dtype=np.float32)


async def test_a_forgotten_chunk_is_upserted_again_until_it_is_there() -> None:
    store = Forgetful(forget=2)
    assert await VectorWriter(store).store(claim(), *window())
    assert store.upserts == 3


async def test_a_store_that_keeps_forgetting_is_a_dependency_down_not_a_success() -> None:
    with pytest.raises(DependencyDown, match="absent after 3") as caught:
        await VectorWriter(Forgetful(forget=99)).store(claim(), *window())
    assert caught.value.code == "vector_store_down"


async def test_a_sampled_chunk_that_does_not_find_itself_warns_after_two_more_upserts() -> None:
    store = Forgetful(blind=True)
    writer = VectorWriter(store)
    answers = [await writer.store(claim(), *window()) for _ in range(SAMPLE_EVERY)]
    assert answers == [True] * (SAMPLE_EVERY - 1) + [False]
    assert store.upserts == SAMPLE_EVERY + 2


async def test_equal_chunks_that_crowd_each_other_out_are_no_suspects() -> None:
    writer = VectorWriter(MemoryVectors())
    chunks = [Chunk(i, "the same", 2, 0, 8) for i in range(200)]
    vectors = np.zeros((200, 8), dtype=np.float32)
    vectors[:, 0] = 1
    assert all([await writer.store(claim(), chunks, vectors) for _ in range(SAMPLE_EVERY)])


async def test_a_resumed_document_writes_only_what_is_absent() -> None:
    store = Forgetful()
    chunks, vectors = window()
    await VectorWriter(store).store(claim(), chunks[:3], vectors[:3])
    written: list[str] = []
    upsert = store.upsert

    async def noted(collection: str, rows: Sequence[ChunkRow], vectors: Vectors) -> None:
        written.extend(row.chunk.text for row in rows)
        await upsert(collection, rows, vectors)

    store.upsert = noted  # type: ignore[method-assign]
    again = replace(claim(), stored=2)
    assert await VectorWriter(store).store(again, chunks, vectors)
    assert written == ["text 3"]
    assert await VectorWriter(store).store(again, chunks, vectors)
    assert written == ["text 3"]


async def test_windows_that_are_on_their_way_share_an_upsert() -> None:
    store = Forgetful()
    writer = VectorWriter(store)
    other = replace(claim(), document_id="other")
    with writer.coming(4):
        first = asyncio.create_task(writer.store(claim(), *window()))
        for _ in range(5):
            await asyncio.sleep(0)
        assert store.upserts == 0
    await asyncio.gather(first, writer.store(other, *window()))
    assert store.upserts == 1


async def test_with_none_on_its_way_a_window_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "GATHER_S", 60.0)
    writer = VectorWriter(Forgetful())
    with writer.coming(4):
        pass
    async with asyncio.timeout(5):
        await writer.store(claim(), *window())
