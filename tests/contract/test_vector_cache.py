"""One suite for every store of bytes behind the embedding cache."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from unjam.core.ports import VectorCache
from unjam.stores.memory_cache import MemoryVectorCache
from unjam.stores.vector_cache import SqliteVectorCache

MIB = 1_048_576


def key(n: int) -> bytes:
    return hashlib.blake2b(str(n).encode(), digest_size=16).digest()


@pytest.fixture(params=["sqlite", "memory"])
async def cache(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorCache]:
    store: VectorCache
    if request.param == "sqlite":
        store = SqliteVectorCache(tmp_path / "cache.db", 4 * MIB)
    else:
        store = MemoryVectorCache(4 * MIB)
    yield store
    await store.close()


async def test_what_is_put_is_found(cache: VectorCache):
    rows = {key(n): bytes([n % 256]) * 1540 for n in range(1200)}
    await cache.put_many(rows)
    assert await cache.get_many([*rows, key(9999)]) == rows


async def test_askers_of_the_same_moment_get_their_own(cache: VectorCache):
    rows = {key(n): str(n).encode() for n in range(1200)}
    await cache.put_many(rows)
    asked = [[key(n), key(n + 1), key(9000 + n)] for n in range(0, 1198, 2)]
    answers = await asyncio.gather(*(cache.get_many(keys) for keys in asked))
    assert answers == [{k: rows[k] for k in keys if k in rows} for keys in asked]


async def test_nothing_asked_nothing_answered(cache: VectorCache):
    assert await cache.get_many([]) == {}
    await cache.put_many({})
    await cache.remove_many([])


async def test_the_last_value_counts(cache: VectorCache):
    await cache.put_many({key(1): b"old", key(2): b"two"})
    await cache.put_many({key(1): b"new"})
    assert await cache.get_many([key(1), key(2)]) == {key(1): b"new", key(2): b"two"}


async def test_removed_is_gone(cache: VectorCache):
    await cache.put_many({key(n): b"x" for n in range(10)})
    await cache.remove_many([key(n) for n in range(5)])
    assert set(await cache.get_many([key(n) for n in range(10)])) == {key(n) for n in range(5, 10)}


async def test_it_stays_within_its_bound_and_drops_the_oldest(cache: VectorCache):
    value, batch, batches = b"v" * 6148, 32, 60  # 12 MB into 4 MiB
    for b in range(batches):
        await cache.put_many({key(b * batch + n): value for n in range(batch)})
    found = await cache.get_many([key(n) for n in range(batch * batches)])
    assert 0 < len(found) * len(value) <= 4 * MIB
    newest = {key(n) for n in range(batch * (batches - 1), batch * batches)}
    assert newest <= set(found)
    assert key(0) not in found


async def test_many_at_once(cache: VectorCache):
    async def one(n: int) -> None:
        await cache.put_many({key(n): bytes([n])})
        assert (await cache.get_many([key(n)]))[key(n)] == bytes([n])

    await asyncio.gather(*[one(n) for n in range(100)])


# -- what only a file can suffer ------------------------------------------------------------
@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "cache.db"


async def test_it_outlives_its_process(path: Path):
    first = SqliteVectorCache(path, MIB)
    await first.put_many({key(1): b"one"})
    # Not closed: as after kill -9, the row must be there already.
    second = SqliteVectorCache(path, MIB)
    assert await second.get_many([key(1)]) == {key(1): b"one"}
    await first.close()
    await second.close()


async def test_the_file_itself_is_bounded(path: Path):
    cache = SqliteVectorCache(path, 2 * MIB)
    for b in range(60):
        await cache.put_many({key(b * 32 + n): b"v" * 6148 for n in range(32)})
    await cache.close()
    assert path.stat().st_size < 3 * MIB


@pytest.mark.parametrize("garbage", [b"not a database " * 1000, b""])
async def test_a_file_of_garbage_is_begun_anew(path: Path, garbage: bytes):
    path.parent.mkdir()
    path.write_bytes(garbage)
    cache = SqliteVectorCache(path, MIB)
    await cache.put_many({key(1): b"one"})
    assert await cache.get_many([key(1)]) == {key(1): b"one"}
    await cache.close()
    damaged = path.with_name("cache.db.damaged")
    assert damaged.exists() == bool(garbage)


async def test_damage_under_way_is_survived_by_all_processes(
    path: Path, caplog: pytest.LogCaptureFixture
):
    caches = [SqliteVectorCache(path, 8 * MIB) for _ in range(2)]
    rows = {key(n): b"x" * 3000 for n in range(500)}
    await caches[0].put_many(rows)
    await caches[1].get_many([key(0)])
    await caches[0].close()
    connection = caches[1]._connection
    assert connection is not None
    await asyncio.to_thread(connection.execute, "PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:  # behind the header: every page is nonsense
        file.seek(8192)
        file.write(b"\xa5" * (path.stat().st_size - 8192))
    for cache in (SqliteVectorCache(path, 8 * MIB), caches[1]):
        await cache.get_many(list(rows))  # may miss, must not raise
        await cache.put_many({key(7): b"seven"})
    fresh = SqliteVectorCache(path, 8 * MIB)
    assert await fresh.get_many([key(7)]) == {key(7): b"seven"}
    assert sum("damaged" in record.message for record in caplog.records) == 1


async def test_no_disk_is_a_miss_told_once(path: Path, caplog: pytest.LogCaptureFixture):
    path.parent.write_text("a file where the folder should be")
    cache = SqliteVectorCache(path, MIB)
    for _ in range(3):
        await cache.put_many({key(1): b"one"})
        assert await cache.get_many([key(1)]) == {}
    assert len(caplog.records) == 1
    path.parent.unlink()
    await cache.put_many({key(1): b"one"})
    assert await cache.get_many([key(1)]) == {key(1): b"one"}
    await cache.close()


async def test_a_full_disk_is_a_miss(path: Path):
    cache = SqliteVectorCache(path, MIB)
    await cache.put_many({key(1): b"one"})
    connection = cache._connection
    assert connection is not None
    pages = await asyncio.to_thread(lambda: connection.execute("PRAGMA page_count").fetchone()[0])
    await asyncio.to_thread(connection.execute, f"PRAGMA max_page_count={pages}")
    await cache.put_many({key(2): b"x" * 100_000})
    assert await cache.get_many([key(1), key(2)]) == {key(1): b"one"}
    await cache.close()


def _hammer(path: Path, who: int, count: int) -> None:
    async def run() -> None:
        cache = SqliteVectorCache(path, 64 * MIB)
        for n in range(0, count, 20):
            await cache.put_many({key(who * count + m): b"v" * 1540 for m in range(n, n + 20)})
        await cache.close()

    asyncio.run(run())


async def test_processes_share_it(path: Path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_hammer, args=(path, who, 400)) for who in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        await asyncio.to_thread(worker.join, 60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    cache = SqliteVectorCache(path, 64 * MIB)
    assert len(await cache.get_many([key(n) for n in range(1200)])) == 1200
    await cache.close()
