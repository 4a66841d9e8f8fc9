"""What turns texts into vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from unjam.core.document import (
    Pin,
)
from unjam.core.ports.vectors import Vectors


class Provider(Protocol):
    """One way to turn texts into vectors: the local model, or an OpenAI-compatible endpoint.

    Raises DependencyDown (waiting reasons embedding_*), DocumentRejected (embedding_refused).
    """

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One request; texts carry their role prefix already."""
        ...

    async def warm_up(self) -> None:
        """Load what the first request needs. Raises DependencyDown."""
        ...

    async def close(self) -> None: ...


class VectorCache(Protocol):
    """A bounded store of bytes by key; losing it costs money, never correctness."""

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]: ...

    async def put_many(self, rows: Mapping[bytes, bytes]) -> None: ...

    async def remove_many(self, keys: Sequence[bytes]) -> None: ...

    async def close(self) -> None: ...


class Embedder(Protocol):
    """The embedding service: cache → batch → govern → provider."""

    def expecting(self) -> AbstractContextManager[None]:
        """While a document is read whose passages will be asked for: a request that is not full
        waits for them, and for nobody otherwise."""
        ...

    async def passages(self, texts: Sequence[str], pin: Pin, *, alone: bool = False) -> Vectors:
        """Vectors of document chunks, through the cache, sharing requests across documents."""
        ...

    async def query(self, text: str, pin: Pin) -> Vectors:
        """Shape (dimension,)."""
        ...

    async def warm_up(self, pin: Pin) -> None:
        """Load what the first passages need; nothing leaves the machine. Raises DependencyDown."""
        ...

    async def probe(self, pin: Pin) -> None:
        """Whether vectors can be had now, past every cache. Raises DependencyDown."""
        ...

    async def forget(self, texts: Sequence[str], pin: Pin) -> None:
        """Drop the cached vectors of these chunk texts."""
        ...

    async def close(self) -> None: ...
