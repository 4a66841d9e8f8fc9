"""Store: chunks and vectors into the vector store, confirmed, batched across documents."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from unjam.core.chunk import Chunk, chunk_id
from unjam.core.coalesce import Coalescer
from unjam.core.document import Claim
from unjam.core.errors import DependencyDown
from unjam.core.ports import ChunkRow, Vectors, VectorStore

ROWS_PER_UPSERT = 300
"""Gathered from several documents at most; a store cuts a call as suits it."""

GATHER_ROWS = 64
GATHER_S = 0.05
"""An upsert of fewer rows waits so long for more while chunks are on their way to it: a call costs
the server 12 ms of CPU beside 0.6 ms a row (measured with ``bench/chroma_wall.py``)."""

UPSERT_TRIES = 3

SAMPLE_EVERY = 16
"""One upsert in so many is asked whether a chunk of it finds itself. A sample, never a gate: the
index is approximate and equal chunks tie."""

SAMPLE_K = 10
TIE = 1e-3
"""A score this near to a perfect one counts as its own: equal texts crowd each other out."""


@dataclass(frozen=True, slots=True)
class _Part:
    rows: Sequence[ChunkRow]
    vectors: Vectors
    resumed: bool  # some may be stored already


class VectorWriter:
    """One writer a process: Chroma gets slower, not faster, with several at once.

    ``store`` returns when the vector store confirmed every id of the window by ``get(ids)``.
    """

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self._lines: dict[str, Coalescer[_Part, bool]] = {}
        self._upserts = 0
        self._coming = 0

    @contextmanager
    def coming(self, rows: int) -> Generator[None]:
        """So many are being embedded, and will be stored."""
        self._coming += rows
        try:
            yield
        finally:
            self._coming -= rows

    async def store(self, claim: Claim, chunks: Sequence[Chunk], vectors: Vectors) -> bool:
        """Upsert and confirm one window; *vectors* has shape (len(chunks), dimension).

        Of a document that was begun before only what is absent is written: Chroma takes ids that
        it holds at a thirtieth of its speed, and the same id means the same chunk.

        False: it is stored, but a sampled chunk does not find itself even after upserting again.

        Raises:
            DependencyDown: vector_store_down, embedding_dimension_changed.
        """
        rows = [
            ChunkRow(
                id=chunk_id(claim.document_id, claim.generation, chunk.index),
                document_id=claim.document_id,
                generation=claim.generation,
                user_id=claim.user_id,
                chunk=chunk,
                filename=claim.filename,
                metadata=claim.metadata,
            )
            for chunk in chunks
        ]
        collection = claim.pin.fingerprint.collection
        return await self._line(collection).put(_Part(rows, vectors, claim.stored > 0))

    def _line(self, collection: str) -> Coalescer[_Part, bool]:
        line = self._lines.get(collection)
        if line is None:

            async def flush(parts: Sequence[_Part]) -> Sequence[bool]:
                return [await self._write(collection, parts)] * len(parts)

            line = Coalescer(
                flush,
                max_weight=ROWS_PER_UPSERT,
                weight=lambda p: len(p.rows),
                patience=lambda rows: GATHER_S if self._coming and rows < GATHER_ROWS else 0.0,
            )
            self._lines[collection] = line
        return line

    async def _write(self, collection: str, parts: Sequence[_Part]) -> bool:
        rows = [row for part in parts for row in part.rows]
        vectors = (
            parts[0].vectors if len(parts) == 1 else np.concatenate([p.vectors for p in parts])
        )
        there = await self._there(collection, [r for p in parts if p.resumed for r in p.rows])
        if there:
            keep = [i for i, row in enumerate(rows) if row.id not in there]
            if not keep:
                return True
            rows, vectors = [rows[i] for i in keep], vectors[keep]
        await self._confirmed(collection, rows, vectors)
        self._upserts += 1
        if self._upserts % SAMPLE_EVERY:
            return True
        for _ in range(UPSERT_TRIES - 1):
            if await self._finds_itself(collection, rows[-1], vectors[-1]):
                return True
            await self._confirmed(collection, rows, vectors)
        return await self._finds_itself(collection, rows[-1], vectors[-1])

    async def _there(self, collection: str, rows: Sequence[ChunkRow]) -> set[str]:
        """Ids of those that are stored."""
        if not rows:
            return set()
        ids = [row.id for row in rows]
        return set(ids) - set(await self._store.missing(collection, ids))

    async def _confirmed(self, collection: str, rows: Sequence[ChunkRow], vectors: Vectors) -> None:
        """Upsert until ``get(ids)`` shows every id."""
        for _ in range(UPSERT_TRIES):
            await self._store.upsert(collection, rows, vectors)
            absent = set(await self._store.missing(collection, [row.id for row in rows]))
            if not absent:
                return
            keep = [i for i, row in enumerate(rows) if row.id in absent]
            rows, vectors = [rows[i] for i in keep], vectors[keep]
        raise DependencyDown(
            f"{len(rows)} chunks are absent after {UPSERT_TRIES} acknowledged upserts",
            code="vector_store_down",
            hint="Check the vector store's disk and log.",
            retry_after_s=30.0,
        )

    async def _finds_itself(self, collection: str, row: ChunkRow, vector: Vectors) -> bool:
        near = await self._store.query(collection, vector, SAMPLE_K)
        return any(c.chunk.id == row.id or c.score >= 1 - TIE for c in near)
