"""LanceDB, pgvector and Qdrant are away, locked, killed or cut short: nothing acknowledged is lost,
and whoever waits is told so in time."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.scenarios.test_chroma_outages import batch
from unjam.core.errors import DependencyDown
from unjam.core.ports import VectorStore
from unjam.stores import lance_tending
from unjam.stores.vectors_lance import LanceVectors

pytestmark = [
    pytest.mark.thorough,
    *(
        pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed")
        for name in ("lancedb", "psycopg", "qdrant_client")
    ),
]

WRITER = """
import asyncio, sys
from pathlib import Path
from tests.scenarios.test_chroma_outages import batch
from unjam.stores.vectors_lance import LanceVectors

async def main(path, collection, name, count):
    store = LanceVectors(Path(path), tend_every=8)
    for n in range(int(count)):
        rows, vectors = batch(name, n)
        await store.upsert(collection, rows, vectors)
        print(n, flush=True)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def all_refuse(store: VectorStore, collection: str) -> list[str]:
    """The codes with which every call ends."""
    rows, vectors = batch("d", 0)
    answers = await asyncio.gather(
        store.ping(),
        store.upsert(collection, rows, vectors),
        store.missing(collection, ["x"]),
        store.get(collection, ["x"]),
        store.query(collection, vectors[0], 1),
        store.delete(collection, ["x"]),
        store.facts(collection),
        store.collections(),
        return_exceptions=True,
    )
    return [getattr(a, "code", repr(a)) for a in answers]


@pytest.mark.parametrize("kind", ["lancedb", "pgvector", "qdrant"])
async def test_nobody_there_is_said_at_once(kind: str, tmp_path: Path, collection: str) -> None:
    (tmp_path / "file").touch()
    store: VectorStore
    if kind == "lancedb":
        store = LanceVectors(tmp_path / "file")
    elif kind == "pgvector":
        store = pg("postgresql://u:secret@127.0.0.1:9,127.0.0.1:11/x")
    else:
        from unjam.stores.vectors_qdrant import QdrantVectors

        store = QdrantVectors("http://127.0.0.1:9")
    started = time.monotonic()
    assert await all_refuse(store, collection) == ["vector_store_down"] * 8
    assert time.monotonic() - started < 5.0
    with pytest.raises(DependencyDown) as caught:
        await store.ping()
    assert "secret" not in str(caught.value)
    await store.close()


# -- LanceDB ---------------------------------------------------------------------------------
async def connected(path: Path) -> Any:
    """To LanceDB itself, as somebody else would be."""
    import lancedb

    return await lancedb.connect_async(str(path))


async def test_what_counts_as_written_is_on_the_disk(
    tmp_path: Path, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LanceVectors(tmp_path, tend_every=1000)
    await store.upsert(collection, *batch("d", 0))
    synced: set[Path] = set()
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.add(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    table = tmp_path / f"{collection}.lance"
    before = set(table.rglob("*"))
    await store.upsert(collection, *batch("d", 1))
    made = {p for p in set(table.rglob("*")) - before if p.suffix in (".lance", ".manifest")}
    assert len(made) >= 2, "rows and a manifest"
    assert made <= synced
    assert {table / "data", table / "_versions", table} <= synced
    await store.close()


async def test_two_processes_write_one_folder_and_one_is_killed(
    tmp_path: Path, collection: str
) -> None:
    async def start(name: str, count: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(tmp_path), collection, name, str(count),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

    doomed, whole = await asyncio.gather(start("first", 10_000), start("second!", 30))
    assert doomed.stdout is not None
    said = [int(await asyncio.wait_for(doomed.stdout.readline(), 60)) for _ in range(12)]
    doomed.kill()
    rest = (await doomed.stdout.read()).split()
    await whole.communicate()
    assert whole.returncode == 0
    acknowledged = max([*said, *(int(n) for n in rest)]) + 1
    ids = [r.id for n in range(acknowledged) for r in batch("first", n)[0]]
    ids += [r.id for n in range(30) for r in batch("second!", n)[0]]

    store = LanceVectors(tmp_path)

    assert await store.missing(collection, ids) == []
    assert [c.id for c in await store.get(collection, ids)] == ids
    rows, vectors = batch("second!", 7)
    for _ in range(2):
        await store.upsert(collection, rows, vectors)
    hits = await store.query(collection, vectors[3], 5000)
    assert hits[0].chunk.id == rows[3].id
    assert len(hits) == len({h.chunk.id for h in hits}) >= len(ids)
    await store.close()


async def test_several_make_the_same_table_and_rows_at_once(
    tmp_path: Path, collection: str
) -> None:
    stores = [LanceVectors(tmp_path) for _ in range(4)]
    for round_ in range(3):
        name = f"{collection}-{round_}"
        await asyncio.gather(*(s.upsert(name, *batch("d", n)) for n, s in enumerate(stores)))
        ids = [r.id for n in range(len(stores)) for r in batch("d", n)[0]]
        for store in stores:
            assert await store.missing(name, ids) == []
        facts = await stores[0].facts(name)
        assert facts is not None and facts.rows == len(ids)
    rows, vectors = batch("same", 0)
    for _ in range(3):  # a zombie and its successor, at the same moment
        await asyncio.gather(*(s.upsert(collection, rows, vectors) for s in stores))
        facts = await stores[0].facts(collection)
        assert facts is not None and facts.rows == len(rows)
        await stores[0].delete(collection, [r.id for r in rows])
    for store in stores:
        await store.close()


async def test_a_table_that_was_dropped_is_made_again(tmp_path: Path, collection: str) -> None:
    store, other = LanceVectors(tmp_path), LanceVectors(tmp_path)
    rows, vectors = batch("d", 0)
    await store.upsert(collection, rows, vectors)
    await store.sign(collection, "me")
    before = await store.facts(collection)
    await other.upsert(collection, rows, vectors)
    await (await connected(tmp_path)).drop_table(collection)

    assert await store.missing(collection, [rows[0].id]) == [rows[0].id]
    assert await store.query(collection, vectors[0], 3) == []
    assert await store.facts(collection) is None and await store.collections() == []
    await store.upsert(collection, rows, vectors)
    assert await other.missing(collection, [r.id for r in rows]) == []
    after = await other.facts(collection)
    assert before is not None and after is not None
    assert after.identity != before.identity and after.owners == frozenset()
    await store.close()
    await other.close()


async def test_tidying_merges_fragments_and_an_index_finds_what_a_scan_finds(
    tmp_path: Path, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance_tending, "INDEX_FROM_ROWS", 1000)
    store = LanceVectors(tmp_path, tend_every=1000)
    every = [batch("d", n, 100) for n in range(20)]
    for rows, vectors in every:
        await store.upsert(collection, rows, vectors)
    table = await (await connected(tmp_path)).open_table(collection)
    fragments = (await table.stats())["fragment_stats"]["num_fragments"]

    await lance_tending.tend(tmp_path, collection, table)

    assert (await table.stats())["fragment_stats"]["num_fragments"] < fragments
    assert {c for i in await table.list_indices() for c in i.columns} == {"id", "vector"}
    whole = np.concatenate([v for _, v in every])
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    ids = [r.id for rows, _ in every for r in rows]
    found = 0
    for wanted in whole[::200]:
        exact = {ids[i] for i in np.argsort(-(whole @ wanted))[:10]}
        found += len(exact & {h.chunk.id for h in await store.query(collection, wanted, 10)})
    assert found >= 90, "of 100"
    rows, vectors = batch("late", 0)
    await store.upsert(collection, rows, vectors)  # not in the index yet
    assert (await store.query(collection, vectors[5], 1))[0].chunk.id == rows[5].id
    await store.delete(collection, ids[:1500])
    assert await store.missing(collection, ids) == ids[:1500]
    await store.close()


# -- pgvector --------------------------------------------------------------------------------
def pg(url: str, **times: float) -> VectorStore:
    from unjam.stores.vectors_pgvector import PgVectors

    return PgVectors(url, **times)


async def session(url: str, autocommit: bool = True) -> Any:
    """With the database itself, as somebody else has one."""
    import psycopg

    return await psycopg.AsyncConnection.connect(url, autocommit=autocommit)


async def test_a_locked_table_is_given_up_in_time(pgvector_url: str, collection: str) -> None:
    store = pg(pgvector_url, write_timeout_s=1.0, read_timeout_s=0.5)
    rows, vectors = batch("d", 0)
    await store.upsert(collection, rows, vectors)
    facts = await store.facts(collection)
    assert facts is not None
    async with await session(pgvector_url, autocommit=False) as conn:
        await conn.execute(f"LOCK TABLE unjam_vectors_{facts.identity} IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        answers = await asyncio.gather(
            store.upsert(collection, rows, vectors),
            store.upsert(collection, rows, vectors),  # waits for the first: the same time-out
            store.missing(collection, ["x"]),
            store.query(collection, vectors[0], 1),
            return_exceptions=True,
        )
        took = time.monotonic() - started
        await conn.rollback()
    assert [getattr(a, "code", a) for a in answers] == ["vector_store_down"] * 4
    assert took < 2.0
    assert await store.missing(collection, [r.id for r in rows]) == []
    await store.upsert(collection, rows, vectors)
    await store.close()


async def test_killed_connections_are_replaced(pgvector_url: str, collection: str) -> None:
    store = pg(pgvector_url)
    rows, vectors = batch("d", 0)
    await store.upsert(collection, rows, vectors)
    async with await session(pgvector_url) as conn:
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert await store.missing(collection, [r.id for r in rows]) == []
    await store.upsert(collection, *batch("d", 1))
    await store.close()


async def test_a_server_that_takes_no_writes_is_waited_for(
    pgvector_url: str, collection: str
) -> None:
    rows, vectors = batch("d", 0)
    store = pg(pgvector_url)
    await store.upsert(collection, rows, vectors)
    sep = "&" if "?" in pgvector_url else "?"
    only = "options=-c%20default_transaction_read_only%3Don"
    replica = pg(f"{pgvector_url}{sep}{only}")
    with pytest.raises(DependencyDown) as caught:
        await replica.upsert(collection, rows, vectors)
    assert caught.value.code == "vector_store_down" and "read-only" in str(caught.value)
    assert await replica.missing(collection, [r.id for r in rows]) == []
    await store.close()
    await replica.close()


async def test_a_dropped_table_is_made_again(pgvector_url: str, collection: str) -> None:
    store, other = pg(pgvector_url), pg(pgvector_url)
    rows, vectors = batch("d", 0)
    await asyncio.gather(
        store.upsert(collection, rows, vectors), other.upsert(collection, rows, vectors)
    )
    facts = await store.facts(collection)
    assert facts is not None and facts.rows == len(rows)
    async with await session(pgvector_url) as conn:
        await conn.execute(f"DROP TABLE unjam_vectors_{facts.identity}")
    assert await store.missing(collection, [rows[0].id]) == [rows[0].id]
    assert await other.facts(collection) is None
    assert collection not in await store.collections()
    await store.upsert(collection, rows, vectors)
    assert await other.missing(collection, [r.id for r in rows]) == []
    anew = await other.facts(collection)
    assert anew is not None and anew.identity != facts.identity
    await store.close()
    await other.close()


async def test_a_filter_does_not_eat_the_hits(pgvector_url: str, collection: str) -> None:
    """The index is asked for more until the filter has let enough through."""
    store = pg(pgvector_url)
    whole: list[Any] = []
    for n in range(10):
        rows, vectors = batch("d", n, 300)
        await store.upsert(collection, rows, vectors)
        whole += rows
    rows, vectors = batch("rare", 0, 30)
    await store.upsert(collection, rows, -np.abs(vectors))
    async with await session(pgvector_url) as conn:
        await conn.execute("ANALYZE")
    hits = await store.query(collection, np.ones(32, np.float32), 30, {"document_id": "rare"})
    assert {h.chunk.id for h in hits} == {r.id for r in rows}
    await store.close()
