from __future__ import annotations

import numpy as np

from unjam.core.document import Fingerprint
from unjam.embedding.cache import EmbeddingCache, cache_key, decode, encode
from unjam.stores.memory_cache import MemoryVectorCache

HERE = Fingerprint("local", "m", dimension=3)
VECTOR = np.array([0.6, 0.0, 0.8], np.float32)


def test_a_vector_comes_back_bit_for_bit():
    back = decode(encode(VECTOR), 3)
    assert back is not None
    assert back.tobytes() == VECTOR.tobytes()


def test_any_flipped_bit_is_a_miss():
    data = encode(VECTOR)
    for i in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[i // 8] ^= 1 << (i % 8)
        assert decode(bytes(damaged), 3) is None


def test_cut_or_foreign_bytes_are_a_miss():
    data = encode(VECTOR)
    assert all(decode(data[:n], 3) is None for n in range(len(data)))
    assert decode(data, 4) is None
    assert decode(data, 0) is not None


def test_keys_tell_models_and_roles_apart():
    other = Fingerprint("local", "m", dimension=3, revision="2")
    keys = {
        cache_key(HERE, "passage: a"),
        cache_key(HERE, "query: a"),
        cache_key(other, "query: a"),
    }
    assert len(keys) == 3
    assert all(len(key) == 16 for key in keys)
    assert cache_key(HERE, "\ud800")  # a lone surrogate is sanitised elsewhere, but never a crash


async def test_damage_in_the_store_is_a_miss_and_is_mended():
    store = MemoryVectorCache()
    cache = EmbeddingCache(store, HERE)
    await store.put_many({cache_key(HERE, "a"): b"garbage", cache_key(HERE, "b"): encode(VECTOR)})
    assert set(await cache.find(["a", "b", "c"])) == {"b"}
    await cache.keep({"a": VECTOR})
    assert set(await cache.find(["a", "b", "c"])) == {"a", "b"}
