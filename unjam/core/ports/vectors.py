"""Where chunks and their vectors are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from unjam.core.chunk import Chunk, StoredChunk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    """Shape (texts, dimension), unit length, C-contiguous float32."""
else:
    Vectors = object  # processes without vectors (parsing children, the CLI) need no NumPy


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """One row for the vector store; *vector* is one row of Vectors."""

    id: str
    document_id: str
    generation: int
    user_id: str
    chunk: Chunk
    filename: str
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


Keeping = Literal["kept", "over", "unknown"]
"""Of a generation's chunks: visible or in the making; superseded, abandoned or deleted; of a
document that the ledger never knew."""


@dataclass(frozen=True, slots=True)
class VisibleChunks:
    """What search shows of one document: *collection* must hold its chunks 0 … *chunks* - 1."""

    document_id: str
    generation: int
    chunks: int
    collection: str
    pin_id: str


@dataclass(frozen=True, slots=True)
class CollectionFacts:
    """A collection of the vector store. *identity* changes when it is made anew; *owners* are
    ids of the ledgers that keep their chunks in it."""

    identity: str
    rows: int
    owners: frozenset[str]


@dataclass(frozen=True, slots=True)
class StoredId:
    """One row of a collection; no document ("") when unjam did not write it."""

    id: str
    document_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A hit before the visibility check. *score* is cosine similarity, −1 … 1."""

    chunk: StoredChunk
    score: float


class VectorStore(Protocol):
    """Chunks and their vectors, one collection per fingerprint."""

    async def upsert(self, collection: str, rows: Sequence[ChunkRow], vectors: Vectors) -> None:
        """Raises DependencyDown (vector_store_down, embedding_dimension_changed)."""
        ...

    async def missing(self, collection: str, ids: Sequence[str]) -> list[str]:
        """Which of the ids are not there (``get(ids)``, no ``where``)."""
        ...

    async def get(self, collection: str, ids: Sequence[str]) -> list[StoredChunk]:
        """Those that exist, in the order asked for."""
        ...

    async def query(
        self, collection: str, vector: Vectors, k: int, where: Mapping[str, Any] | None = None
    ) -> list[Candidate]:
        """Nearest first, at most *k*. *vector* has shape (dimension,)."""
        ...

    async def delete(self, collection: str, ids: Sequence[str]) -> None: ...

    async def collections(self) -> list[str]: ...

    async def facts(self, collection: str) -> CollectionFacts | None:
        """None: there is no such collection. Cheap: 5 ms at 30,000 rows."""
        ...

    async def sign(self, collection: str, owner: str) -> None:
        """Add *owner* to the collection's owners; nothing where it does not exist."""
        ...

    async def stored(self, collection: str, offset: int, limit: int) -> list[StoredId]:
        """Rows in the store's own order, to be walked through."""
        ...

    async def ping(self) -> None:
        """Raises DependencyDown."""
        ...

    async def close(self) -> None: ...
