"""The embedding cache's store of bytes, in memory: for tests, and where no disk is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class MemoryVectorCache:
    """VectorCache over a dict; evicts the oldest insertions beyond *max_bytes*."""

    def __init__(self, max_bytes: int = 64 * 1_048_576) -> None:
        self._max_bytes = max_bytes
        self._rows: dict[bytes, bytes] = {}
        self._size = 0

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: self._rows[key] for key in keys if key in self._rows}

    async def put_many(self, rows: Mapping[bytes, bytes]) -> None:
        for key, value in rows.items():
            self._forget(key)
            self._rows[key] = value
            self._size += len(key) + len(value)
        while self._size > self._max_bytes:
            self._forget(next(iter(self._rows)))

    async def remove_many(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._forget(key)

    async def close(self) -> None:
        """Nothing to release."""

    def _forget(self, key: bytes) -> None:
        value = self._rows.pop(key, None)
        if value is not None:
            self._size -= len(key) + len(value)
