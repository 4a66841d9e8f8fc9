"""The embedding cache: keys, and vectors as checksummed bytes over a store of bytes.

It is also the checkpoint (law 9): a vector is in here before anybody gets it, so a killed document
redoes at most what was in flight.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from unjam.core.document import Fingerprint
from unjam.core.ports import VectorCache, Vectors

_CHECKSUM_BYTES = 4


def cache_key(fingerprint: Fingerprint, prefixed: str) -> bytes:
    """16 bytes for a text that carries its role prefix already.

    The prefix is part of the text, so queries and passages never meet; everything else that
    decides a vector's value is in the fingerprint's id.
    """
    digest = hashlib.blake2b(fingerprint.id.encode(), digest_size=16)
    digest.update(b"\0")
    digest.update(prefixed.encode("utf-8", errors="surrogatepass"))
    return digest.digest()


def encode(vector: Vectors) -> bytes:
    """crc32 (4 bytes, little-endian) and the float32 values, little-endian."""
    raw = np.ascontiguousarray(vector, dtype="<f4").tobytes()
    return zlib.crc32(raw).to_bytes(_CHECKSUM_BYTES, "little") + raw


def decode(data: bytes, dimension: int) -> Vectors | None:
    """The vector, or None when the bytes are not what was stored. *dimension* 0: any."""
    raw = memoryview(data)[_CHECKSUM_BYTES:]
    if not raw or len(raw) % 4 or (dimension and len(raw) != 4 * dimension):
        return None
    if zlib.crc32(raw) != int.from_bytes(data[:_CHECKSUM_BYTES], "little"):
        return None
    return np.frombuffer(raw, "<f4")


class EmbeddingCache:
    """Vectors by text, for one fingerprint."""

    def __init__(self, store: VectorCache, fingerprint: Fingerprint) -> None:
        self._store = store
        self._fingerprint = fingerprint

    async def find(self, prefixed: Sequence[str]) -> dict[str, Vectors]:
        """Those that are known; one look-up for all."""
        keys = {text: cache_key(self._fingerprint, text) for text in prefixed}
        found = await self._store.get_many(list(keys.values()))
        dimension = self._fingerprint.dimension
        known: dict[str, Vectors] = {}
        for text, key in keys.items():
            data = found.get(key)
            vector = decode(data, dimension) if data is not None else None
            if vector is not None:
                known[text] = vector
        return known

    async def keep(self, vectors: Mapping[str, Vectors]) -> None:
        """Write them; returns when they would survive the death of this process."""
        await self._store.put_many(
            {cache_key(self._fingerprint, text): encode(v) for text, v in vectors.items()}
        )
