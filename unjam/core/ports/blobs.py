"""Where originals are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class BlobWriter(Protocol):
    """One upload being streamed in. Leave without ``commit`` and nothing remains."""

    async def write(self, data: bytes) -> None:
        """Raises DependencyDown (disk full, store away)."""
        ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def head(self) -> bytes:
        """The first 64 KiB, to sniff the type from."""
        ...

    def digest(self) -> str:
        """sha-256 of all bytes written so far, hex."""
        ...

    async def abort(self) -> None: ...


class Blobs(Protocol):
    """Originals, content-addressed. What ``commit`` returned from is on disk."""

    async def create(self) -> BlobWriter: ...

    async def commit(self, writers: Sequence[BlobWriter]) -> None:
        """Make all of them durable together, under their digests. Idempotent per content."""
        ...

    async def path(self, content_hash: str) -> Path:
        """A local file with the bytes, to be read only. Raises DocumentRejected
        (original_missing) or DependencyDown (blob_store_down)."""
        ...

    async def present(self, content_hashes: Sequence[str]) -> set[str]:
        """Those of them that are stored."""
        ...

    async def remove(self, content_hash: str) -> None: ...

    async def free_bytes(self) -> int: ...

    async def ping(self) -> None:
        """Raises DependencyDown (blob_store_down)."""
        ...

    async def sweep(self, older_than_s: float = 3600.0) -> int:
        """Remove what killed uploads left behind unfinished; how many files that were."""
        ...

    async def stored(self, part: int, older_than_s: float) -> dict[str, int]:
        """Hash → bytes of the originals in part 0 … 255 of the store that were last uploaded
        longer ago than that."""
        ...

    async def close(self) -> None:
        """End what goes on behind; what was committed stays. Idempotent."""
        ...
