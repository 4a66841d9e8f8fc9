"""Doubles that forget: the real ledger over a throw-away file, and blobs in memory."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from unjam.core.errors import DocumentRejected
from unjam.core.ports import BlobWriter
from unjam.stores.blobs import HEAD_BYTES
from unjam.stores.ledger import SqlLedger


class _ThrowAway(SqlLedger):
    folder: Path

    async def close(self) -> None:
        await super().close()
        shutil.rmtree(self.folder, ignore_errors=True)


async def memory_ledger() -> SqlLedger:
    """The same code as in production over a file that is gone after ``close``."""
    folder = Path(tempfile.mkdtemp(prefix="unjam-ledger-"))
    ledger = await _ThrowAway.open(f"sqlite:///{folder / 'ledger.db'}", durable=False)
    assert isinstance(ledger, _ThrowAway)
    ledger.folder = folder
    return ledger


class MemoryBlobs:
    """``core.ports.Blobs`` in a dictionary; ``path`` writes a file into a folder of its own."""

    def __init__(self) -> None:
        self._bytes: dict[str, bytes] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def create(self) -> MemoryWriter:
        return MemoryWriter()

    async def commit(self, writers: Sequence[BlobWriter]) -> None:
        for writer in cast("Sequence[MemoryWriter]", writers):
            self._bytes[writer.digest()] = bytes(writer.data)

    async def path(self, content_hash: str) -> Path:
        if content_hash not in self._bytes:
            raise DocumentRejected(f"{content_hash} is gone", code="original_missing")
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="unjam-blobs-")
        file = Path(self._folder.name) / content_hash
        if not file.exists():
            file.write_bytes(self._bytes[content_hash])
        return file

    async def present(self, content_hashes: Sequence[str]) -> set[str]:
        return {h for h in content_hashes if h in self._bytes}

    async def remove(self, content_hash: str) -> None:
        self._bytes.pop(content_hash, None)

    async def free_bytes(self) -> int:
        return 1 << 40

    async def ping(self) -> None:
        return None

    async def sweep(self, older_than_s: float = 3600.0) -> int:
        return 0

    async def stored(self, part: int, older_than_s: float) -> dict[str, int]:
        """Ages are not kept: everything is old enough for 0 s, nothing for more."""
        mine = {h: len(b) for h, b in self._bytes.items() if h.startswith(f"{part:02x}")}
        return {} if older_than_s > 0 else mine

    async def close(self) -> None:
        return None


class MemoryWriter:
    """One upload into memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    async def write(self, data: bytes) -> None:
        self.data += data

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    @property
    def head(self) -> bytes:
        return bytes(self.data[:HEAD_BYTES])

    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    async def abort(self) -> None:
        self.data.clear()
