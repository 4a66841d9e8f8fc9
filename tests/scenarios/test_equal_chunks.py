"""Documents that share one equal chunk (a cover page, a disclaimer) do not hide the others."""

from __future__ import annotations

import numpy as np

from unjam.core.chunk import Chunk, chunk_id
from unjam.core.ports import ChunkRow, Vectors
from unjam.stores.vectors_chroma import ChromaVectors

EQUAL, OTHERS, DIMENSION = 1_500, 50, 384
CANDIDATES = 576
"""What a search of ten hits asks for when it widens once or twice."""

FOUND = 40
"""Of 50. The index is approximate: 45 to 49 are usual; equal vectors stored as they are leave 5."""


def row_of(name: str) -> ChunkRow:
    chunk = Chunk(0, name, 3, 0, 1, None, "")
    return ChunkRow(chunk_id(name, 1, 0), name, 1, f"user of {name}", chunk, f"{name}.txt")


def unit(vectors: Vectors) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


async def test_what_stands_beside_them_is_found(chroma_url: str, collection: str) -> None:
    dice = np.random.default_rng(5)
    language = unit(dice.standard_normal(DIMENSION))  # texts of one language lie near each other
    apart = unit(dice.standard_normal((OTHERS + 1, DIMENSION))) * np.sqrt(1 - 0.85**2)
    texts = unit(0.85 * language + apart)
    rows = [row_of(f"equal-{n}") for n in range(EQUAL)] + [
        row_of(f"own-{n}") for n in range(OTHERS)
    ]
    vectors = np.concatenate([np.repeat(texts[-1:], EQUAL, axis=0), texts[:-1]])
    store = ChromaVectors(chroma_url)
    for at in range(0, len(rows), 100):
        await store.upsert(collection, rows[at : at + 100], vectors[at : at + 100])
    found = 0
    for n in range(OTHERS):
        question = unit(texts[n] + 0.02 * dice.standard_normal(DIMENSION))
        hits = await store.query(collection, question, CANDIDATES)
        found += any(hit.chunk.document_id == f"own-{n}" for hit in hits)
    (equal, *_) = await store.query(collection, texts[-1], 5)
    await store.close()
    assert found >= FOUND
    assert equal.score > 1 - 2e-4  # and nobody's similarity changes by more than that
