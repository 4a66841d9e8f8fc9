"""Deterministic unit vectors for the fake endpoint."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LATENT = 28
"""Dimensions of what ``latent_vectors`` spreads. The local intrinsic dimension of 2,000 such points
(maximum likelihood over 50 neighbours, Levina & Bickel 2004) is 18, as that of the local model's
vectors of 2,000 real chunks in English and Korean; that of unrelated directions is 92."""

_WORD = re.compile(r"\w+")


def hash_vectors(texts: Sequence[str], dimension: int) -> Floats:
    """Random directions seeded by each text: equal texts are equal, all others unrelated."""
    raw = b"".join(hashlib.shake_128(text.encode()).digest(dimension) for text in texts)
    vectors = np.frombuffer(raw, np.int8).reshape(len(texts), dimension).astype(np.float32)
    vectors += 0.5  # no component is zero, so no vector is
    return _unit(vectors)


def latent_vectors(texts: Sequence[str], dimension: int) -> Floats:
    """Like ``hash_vectors``, but all within few dimensions, as near each other as a model's are:
    unrelated directions are the worst that an index of neighbours can meet."""
    return _unit(hash_vectors(texts, LATENT) @ _plane(dimension))


@cache
def _plane(dimension: int) -> Floats:
    return np.random.default_rng(LATENT).standard_normal((LATENT, dimension)).astype(np.float32)


def bag_vectors(texts: Sequence[str], dimension: int) -> Floats:
    """Hashed bags of words (and of pairs of letters, for languages that glue words together).

    Texts that share words are near each other, so search over them finds the right one.
    """
    vectors = np.zeros((len(texts), dimension), np.float32)
    for row, text in enumerate(texts):
        for feature, count in Counter(_features(text)).items():
            digest = zlib.crc32(feature.encode())
            sign = 1.0 if digest & 1 else -1.0
            vectors[row, (digest >> 1) % dimension] += sign * (1.0 + np.log(count))
        if not vectors[row].any():
            vectors[row, 0] = 1.0
    return _unit(vectors)


def _features(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    pairs = [word[i : i + 2] for word in words if not word.isascii() for i in range(len(word) - 1)]
    return words + pairs


def _unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


MAKERS: Mapping[str, Callable[[Sequence[str], int], Floats]] = {
    "hash": hash_vectors,
    "bag": bag_vectors,
    "latent": latent_vectors,
}
