"""PgVectors: chunks and their vectors in PostgreSQL with pgvector, one table per collection."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import errors

from unjam.core.chunk import StoredChunk
from unjam.core.errors import DependencyDown
from unjam.core.filters import parse_filter
from unjam.core.lease import UPSERT_TIMEOUT_S
from unjam.core.ports import Candidate, ChunkRow, CollectionFacts, StoredId, Vectors
from unjam.stores import pg_rows
from unjam.stores.pg_link import Connection, PgLink
from unjam.stores.row_tests import last_of_each

T = TypeVar("T")

READ_TIMEOUT_S = 10.0
PING_TIMEOUT_S = 2.0
ROWS_PER_REQUEST = 500
IDS_PER_REQUEST = 5000

MAKING = 0x756E6A616D76
"""Key of the advisory lock under which extension, catalogue and tables are made."""

LOOK = {
    "hnsw.ef_search": "{ef}",
    "hnsw.iterative_scan": "strict_order",  # a filter must not eat the hits (pgvector 0.8)
    "hnsw.max_scan_tuples": "200000",
    "hnsw.scan_mem_multiplier": "16",
}
EF_LEAST, EF_MOST = 100, 1000
"""Candidates that the index keeps while it searches; pgvector's own default is 40."""


@dataclass(frozen=True, slots=True)
class _Made:
    identity: str
    dimension: int


class PgVectors:
    """Implements ``ports.VectorStore`` on a database with the extension ``vector`` 0.8 or newer.

    One write at a time per process, as with every store; the server ends a statement that takes
    longer than *write_timeout_s* by itself.
    """

    def __init__(
        self,
        url: str,
        *,
        write_timeout_s: float = UPSERT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._write_s = min(write_timeout_s, UPSERT_TIMEOUT_S)
        self._read_s = read_timeout_s
        self._link = PgLink(url, self._write_s)
        self._write = asyncio.Lock()
        self._known: dict[str, _Made] = {}
        self._walks: dict[str, tuple[int, str]] = {}  # collection → rows walked, the last id

    async def upsert(self, collection: str, rows: Sequence[ChunkRow], vectors: Vectors) -> None:
        """Raises DependencyDown (vector_store_down, embedding_dimension_changed)."""
        if len(rows) != len(vectors):
            raise ValueError(f"{len(rows)} rows, {len(vectors)} vectors")
        if not rows:
            return
        # In one order for all processes, or two of them lock each other out.
        keep = sorted(last_of_each(rows), key=lambda i: rows[i].id)
        dimension = int(vectors.shape[1])

        async def write() -> None:
            for part in _slices(keep, ROWS_PER_REQUEST):
                values = await asyncio.to_thread(
                    pg_rows.columns_of, [rows[i] for i in part], vectors[list(part)]
                )

                async def put(conn: Connection, made: _Made, v: Any = values) -> None:
                    self._same_dimension(collection, made, dimension)
                    await conn.execute(pg_rows.upsert_sql(made.identity).encode(), v)

                await self._on(collection, put, self._write_s, made_with=dimension)

        await self._turn(write)

    async def delete(self, collection: str, ids: Sequence[str]) -> None:
        """Raises DependencyDown. What is not there is no error."""

        async def remove(conn: Connection, made: _Made, part: Sequence[str]) -> None:
            table = pg_rows.table_name(made.identity)
            sql = f"DELETE FROM {table} WHERE id = ANY(%s)"
            await conn.execute(sql.encode(), (sorted(part),))

        async def write() -> None:
            for part in _slices(ids, IDS_PER_REQUEST):
                await self._on(collection, lambda c, m, p=part: remove(c, m, p), self._write_s)

        if ids:
            await self._turn(write)

    async def missing(self, collection: str, ids: Sequence[str]) -> list[str]:
        """Raises DependencyDown."""
        there = {row[0] for row in await self._find(collection, "id", ids)}
        return [i for i in ids if i not in there]

    async def get(self, collection: str, ids: Sequence[str]) -> list[StoredChunk]:
        """Raises DependencyDown."""
        rows = await self._find(collection, pg_rows.SHOWN, ids)
        found = {row[0]: pg_rows.chunk_of(row) for row in rows}
        return [found[i] for i in ids if i in found]

    async def query(
        self, collection: str, vector: Vectors, k: int, where: Mapping[str, Any] | None = None
    ) -> list[Candidate]:
        """Nearest first, from an approximate index. *where* is a filter of ``core.filters``.

        Raises:
            UsageError: the filter is wrong.
            DependencyDown: vector_store_down, embedding_dimension_changed.
        """
        clause = pg_rows.to_sql(parse_filter(where))
        width = {"ef": max(EF_LEAST, min(EF_MOST, k))}
        names = [word for name, value in LOOK.items() for word in (name, value.format(**width))]
        tuned = "SELECT " + ", ".join("set_config(%s, %s, true)" for _ in LOOK)

        async def ask(conn: Connection, made: _Made) -> list[tuple[Any, ...]]:
            self._same_dimension(collection, made, len(vector))
            await conn.execute(tuned.encode(), names)
            sql, values = pg_rows.query_sql(made.identity, made.dimension, vector, k, clause)
            return await (await conn.execute(sql.encode(), values)).fetchall()

        rows = await self._on(collection, ask, self._read_s) or ()
        return [
            Candidate(pg_rows.chunk_of(row), max(-1.0, min(1.0, 1.0 - float(row[7]))))
            for row in rows
        ]

    async def collections(self) -> list[str]:
        """Raises DependencyDown."""

        async def look(conn: Connection) -> list[str]:
            sql = "SELECT name, identity FROM unjam_collections ORDER BY name"
            found = await (await conn.execute(sql)).fetchall()
            names = [pg_rows.table_name(identity) for _, identity in found]
            sql = "SELECT n FROM unnest(%s::text[]) AS n WHERE to_regclass(n) IS NOT NULL"
            there = {n for (n,) in await (await conn.execute(sql, (names,))).fetchall()}
            return [name for name, i in found if pg_rows.table_name(i) in there]

        return await self._ask(look) or []

    async def facts(self, collection: str) -> CollectionFacts | None:
        """*rows* is counted, by the primary key alone. Raises DependencyDown."""

        async def look(conn: Connection, made: _Made) -> CollectionFacts | None:
            sql = "SELECT owners FROM unjam_collections WHERE identity = %s"
            found = await (await conn.execute(sql, (made.identity,))).fetchone()
            if found is None:
                return None
            table = pg_rows.table_name(made.identity)
            counted = await (
                await conn.execute(f"SELECT count(id) FROM {table}".encode())
            ).fetchone()
            rows = int(counted[0]) if counted else 0
            return CollectionFacts(made.identity, rows, frozenset(found[0]))

        self._known.pop(collection, None)  # whether it was made anew is the question
        return await self._on(collection, look, self._read_s)

    async def sign(self, collection: str, owner: str) -> None:
        """Raises DependencyDown."""

        async def note(conn: Connection) -> None:
            await conn.execute(
                "UPDATE unjam_collections SET owners = owners || %s::text"
                " WHERE name = %s AND NOT owners @> ARRAY[%s::text]",
                (owner, collection, owner),
            )

        await self._ask(note)

    async def stored(self, collection: str, offset: int, limit: int) -> list[StoredId]:
        """Raises DependencyDown."""

        # Where the last page ended: what lies before it need not be counted off again.
        place, after = self._walks.pop(collection, (0, ""))
        skip, after = (0, after) if place == offset else (offset, "")

        async def walk(conn: Connection, made: _Made) -> list[tuple[Any, ...]]:
            table = pg_rows.table_name(made.identity)
            sql = f"SELECT id, document_id, generation FROM {table} WHERE id > %s"
            values = (after, skip, limit)
            sql += " ORDER BY id OFFSET %s LIMIT %s"
            return await (await conn.execute(sql.encode(), values)).fetchall()

        rows = await self._on(collection, walk, self._read_s) or ()
        if rows:
            self._walks[collection] = (offset + len(rows), rows[-1][0])
        return [StoredId(*row) for row in rows]

    async def ping(self) -> None:
        """Raises DependencyDown."""

        async def look(conn: Connection) -> None:
            await conn.execute("SELECT 1")

        await self._link.run(look, PING_TIMEOUT_S)

    async def close(self) -> None:
        await self._link.close()

    # -- tables ------------------------------------------------------------------------------
    async def _turn(self, write: Callable[[], Awaitable[None]]) -> None:
        """Hold the process's one write; all of it, waiting included, within the time-out."""
        try:
            async with asyncio.timeout(self._write_s), self._write:
                await write()
        except TimeoutError:
            raise self._link.down(f"took no write within {self._write_s:g} s") from None

    async def _find(
        self, collection: str, columns: str, ids: Sequence[str]
    ) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for part in _slices(ids, IDS_PER_REQUEST):

            async def ask(
                conn: Connection, made: _Made, p: Sequence[str] = part
            ) -> list[tuple[Any, ...]]:
                table = pg_rows.table_name(made.identity)
                sql = f"SELECT {columns} FROM {table} WHERE id = ANY(%s)"
                return await (await conn.execute(sql.encode(), (list(p),))).fetchall()

            found += await self._on(collection, ask, self._read_s) or ()
        return found

    async def _ask(self, work: Callable[[Connection], Awaitable[T]]) -> T | None:
        """A question to the catalogue; None before anything was stored."""
        try:
            return await self._link.run(work, self._read_s)
        except errors.UndefinedTable:
            return None
        except psycopg.Error as error:
            raise self._refusal(error) from None

    async def _on(
        self,
        collection: str,
        work: Callable[[Connection, _Made], Awaitable[T]],
        within_s: float,
        made_with: int | None = None,
    ) -> T | None:
        """*work* on the collection's table; None where it does not exist, and *made_with* (a
        dimension) does not ask to make it. A table that somebody dropped is looked up anew."""

        async def whole(conn: Connection) -> T | None:
            made = self._known.get(collection) or await _look_up(conn, collection)
            if made is None and made_with is not None:
                made = await _make(conn, collection, made_with)
            if made is None:
                return None
            self._known[collection] = made
            return await work(conn, made)

        for again in (True, False):
            try:
                return await self._link.run(whole, within_s)
            except errors.UndefinedTable:
                known = self._known.pop(collection, None)
                if not again or (known is None and made_with is None):
                    break
                if made_with is not None:
                    await self._link.run(partial(_forget, collection, known), within_s)
            except psycopg.Error as error:
                self._known.pop(collection, None)
                raise self._refusal(error) from None
        if made_with is not None:
            raise self._link.down(f"loses the table of collection {collection}")
        return None

    def _refusal(self, error: psycopg.Error) -> DependencyDown:
        lines = str(error).splitlines() or [type(error).__name__]
        down = self._link.down(f"refuses: {lines[0][:300]}")
        if isinstance(error, errors.InsufficientPrivilege | errors.FeatureNotSupported):
            down.hint = "Let an administrator run CREATE EXTENSION vector in this database once."
        return down

    def _same_dimension(self, collection: str, made: _Made, dimension: int) -> None:
        if made.dimension != dimension:
            raise DependencyDown(
                f"collection {collection} holds dimension {made.dimension}, got {dimension}",
                code="embedding_dimension_changed",
                retry_after_s=30.0,
            )


async def _look_up(conn: Connection, collection: str) -> _Made | None:
    there = await (await conn.execute("SELECT to_regclass('unjam_collections')")).fetchone()
    if there is None or there[0] is None:
        return None
    return await _catalogued(conn, collection)


async def _catalogued(conn: Connection, collection: str) -> _Made | None:
    sql = "SELECT identity, dimension FROM unjam_collections WHERE name = %s"
    row = await (await conn.execute(sql, (collection,))).fetchone()
    return None if row is None else _Made(row[0], row[1])


async def _make(conn: Connection, collection: str, dimension: int) -> _Made:
    """One process at a time; whoever comes second finds it made."""
    await conn.execute("SELECT pg_advisory_xact_lock(%s)", (MAKING,))
    await conn.execute("CREATE EXTENSION IF NOT EXISTS vector")
    await conn.execute(pg_rows.CATALOGUE)
    # Not to_regclass(): it may remember that there was no catalogue before we had the lock.
    made = await _catalogued(conn, collection)
    if made is not None:
        return made
    made = _Made(secrets.token_hex(8), dimension)
    for statement in pg_rows.table_sql(made.identity, dimension):
        await conn.execute(statement.encode())
    await conn.execute(
        "INSERT INTO unjam_collections (name, identity, dimension) VALUES (%s, %s, %s)",
        (collection, made.identity, dimension),
    )
    return made


async def _forget(collection: str, known: _Made | None, conn: Connection) -> None:
    """The catalogue's row of a table that somebody dropped."""
    identity = known.identity if known else ""
    await conn.execute("SELECT pg_advisory_xact_lock(%s)", (MAKING,))
    row = await _look_up(conn, collection)
    if row is None or (identity and row.identity != identity):
        return
    sql = "DELETE FROM unjam_collections WHERE name = %s AND to_regclass(%s) IS NULL"
    await conn.execute(sql, (collection, pg_rows.table_name(row.identity)))


def _slices(some: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (some[i : i + size] for i in range(0, len(some), size))
