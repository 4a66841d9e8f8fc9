"""MemoryVectors: a VectorStore in a dictionary. Exact, for tests."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unjam.core.chunk import StoredChunk
from unjam.core.errors import DependencyDown
from unjam.core.filters import Scalar, filterable, matches, parse_filter
from unjam.core.ports import Candidate, ChunkRow, CollectionFacts, StoredId, Vectors

_Row = tuple[StoredChunk, NDArray[np.float32], Mapping[str, Scalar], Mapping[str, Scalar]]


class MemoryVectors:
    """Implements ``ports.VectorStore``. Set *down* to make every call raise it."""

    def __init__(self) -> None:
        self.down: DependencyDown | None = None
        self._rows: dict[str, dict[str, _Row]] = {}
        self._made: dict[str, tuple[str, set[str]]] = {}  # collection → identity, owners

    async def upsert(self, collection: str, rows: Sequence[ChunkRow], vectors: Vectors) -> None:
        self._check()
        if len(rows) != len(vectors):
            raise ValueError(f"{len(rows)} rows, {len(vectors)} vectors")
        held = self._rows.setdefault(collection, {})
        self._made.setdefault(collection, (secrets.token_hex(8), set()))
        for row, vector in zip(rows, vectors, strict=True):
            self._same_dimension(held, vector)
            held[row.id] = _keep(row, vector)

    async def missing(self, collection: str, ids: Sequence[str]) -> list[str]:
        self._check()
        held = self._rows.get(collection, {})
        return [i for i in ids if i not in held]

    async def get(self, collection: str, ids: Sequence[str]) -> list[StoredChunk]:
        self._check()
        held = self._rows.get(collection, {})
        return [held[i][0] for i in ids if i in held]

    async def query(
        self, collection: str, vector: Vectors, k: int, where: Mapping[str, Any] | None = None
    ) -> list[Candidate]:
        self._check()
        tree = parse_filter(where)
        held = self._rows.get(collection, {})
        self._same_dimension(held, vector)
        hits = [
            Candidate(chunk, _cosine(own, vector))
            for chunk, own, columns, keys in held.values()
            if matches(tree, columns, keys)
        ]
        hits.sort(key=lambda hit: -hit.score)
        return hits[:k]

    async def delete(self, collection: str, ids: Sequence[str]) -> None:
        self._check()
        held = self._rows.get(collection, {})
        for i in ids:
            held.pop(i, None)

    async def collections(self) -> list[str]:
        self._check()
        return list(self._rows)

    async def facts(self, collection: str) -> CollectionFacts | None:
        self._check()
        if collection not in self._made:
            return None
        identity, owners = self._made[collection]
        return CollectionFacts(identity, len(self._rows[collection]), frozenset(owners))

    async def sign(self, collection: str, owner: str) -> None:
        self._check()
        if collection in self._made:
            self._made[collection][1].add(owner)

    async def stored(self, collection: str, offset: int, limit: int) -> list[StoredId]:
        self._check()
        held = list(self._rows.get(collection, {}).values())[offset : offset + limit]
        return [StoredId(c.id, c.document_id, c.generation) for c, *_ in held]

    async def ping(self) -> None:
        self._check()

    async def close(self) -> None:
        pass

    def drop(self, collection: str) -> None:
        """Lose a collection behind everybody's back."""
        self._rows.pop(collection, None)
        self._made.pop(collection, None)

    def _check(self) -> None:
        if self.down is not None:
            raise self.down

    def _same_dimension(self, held: Mapping[str, _Row], vector: Vectors) -> None:
        first = next(iter(held.values()), None)
        if first is not None and len(first[1]) != len(vector):
            raise DependencyDown(
                f"the collection holds dimension {len(first[1])}, got {len(vector)}",
                code="embedding_dimension_changed",
            )


def _keep(row: ChunkRow, vector: Vectors) -> _Row:
    chunk = StoredChunk(
        id=row.id,
        document_id=row.document_id,
        generation=row.generation,
        index=row.chunk.index,
        text=row.chunk.text,
        page=row.chunk.page,
        section=row.chunk.section,
    )
    columns: dict[str, Scalar] = {
        "document_id": row.document_id,
        "user_id": row.user_id,
        "filename": row.filename,
    }
    return chunk, np.array(vector, dtype=np.float32), columns, filterable(row.metadata)


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0
