"""LanceVectors: chunks and their vectors in LanceDB tables in a folder, one per collection."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from unjam.core.chunk import StoredChunk
from unjam.core.errors import DependencyDown
from unjam.core.filters import parse_filter
from unjam.core.lease import UPSERT_TIMEOUT_S
from unjam.core.ports import Candidate, ChunkRow, CollectionFacts, StoredId, Vectors
from unjam.stores import lance_rows, lance_sync, lance_tending
from unjam.stores.lance_tending import Owners
from unjam.stores.row_tests import last_of_each

T = TypeVar("T")

READ_TIMEOUT_S = 10.0
CODE = "vector_store_down"

IDS_PER_REQUEST = 1000
"""Each is a word of a condition that is parsed."""

TEND_EVERY = 64
"""Writes of a process between two tidyings: each write leaves a fragment and a version."""

PROBES = 32
"""Partitions of the index that a query looks into …"""

REFINE = 4
"""… and how many times *k* of what it finds there is compared again with whole vectors."""

_GONE = ("was not found", "not found:")
_CONFLICT = ("conflict", "concurrent", "retry", "already exists")


class LanceVectors:
    """Implements ``ports.VectorStore`` on the folder *path*, which processes of one host share.

    A commit is the making of a file that must not exist yet; of two at a time one is done again,
    so writers need no server and no lock. One write at a time per process; its wait included it
    ends within *write_timeout_s*. Two processes that insert the same new id at the same moment
    (one of them a zombie) both succeed, and the later one removes what is there twice.
    """

    def __init__(
        self,
        path: Path,
        *,
        write_timeout_s: float = UPSERT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        tend_every: int = TEND_EVERY,
    ) -> None:
        self._path = path
        self._write_s = min(write_timeout_s, UPSERT_TIMEOUT_S)
        self._read_s = read_timeout_s
        self._tend_every = tend_every
        self._write = asyncio.Lock()
        self._db: Any = None
        self._tables: dict[str, Any] = {}
        self._owners = Owners(path)
        self._writes = 0
        self._tending: asyncio.Task[None] | None = None

    async def upsert(self, collection: str, rows: Sequence[ChunkRow], vectors: Vectors) -> None:
        """Raises DependencyDown (vector_store_down, embedding_dimension_changed)."""
        if len(rows) != len(vectors):
            raise ValueError(f"{len(rows)} rows, {len(vectors)} vectors")
        if not rows:
            return
        keep = last_of_each(rows)
        dimension = int(vectors.shape[1])

        async def put(table: Any) -> None:
            self._same_dimension(collection, await table.schema(), dimension)
            data = await asyncio.to_thread(
                lance_rows.table_of, [rows[i] for i in keep], vectors[keep]
            )
            merge = table.merge_insert("id").when_matched_update_all()
            began = lance_sync.now()
            await merge.when_not_matched_insert_all().execute(data)
            for part in _slices([rows[i].id for i in keep]):
                await lance_tending.once_each(self._path, table, part)
            await asyncio.to_thread(lance_sync.sync_since, self._folder(collection), began)

        async with self._turn():
            await self._on(collection, put, made_with=dimension)
        self._count_write(collection)

    async def delete(self, collection: str, ids: Sequence[str]) -> None:
        """Raises DependencyDown. What is not there is no error."""
        if not ids:
            return
        async with self._turn():
            for part in _slices(ids):
                clause = lance_rows.ids_in(part)
                await self._on(collection, lambda table, c=clause: table.delete(c))
        self._count_write(collection)

    async def missing(self, collection: str, ids: Sequence[str]) -> list[str]:
        """Raises DependencyDown."""
        there: set[str] = set()
        for part in _slices(ids):
            there.update(r["id"] for r in await self._find(collection, part, ["id"]))
        return [i for i in ids if i not in there]

    async def get(self, collection: str, ids: Sequence[str]) -> list[StoredChunk]:
        """Raises DependencyDown."""
        found: dict[str, StoredChunk] = {}
        for part in _slices(ids):
            for row in await self._find(collection, part, list(lance_rows.SHOWN)):
                found[row["id"]] = lance_rows.decode_row(row)
        return [found[i] for i in ids if i in found]

    async def query(
        self, collection: str, vector: Vectors, k: int, where: Mapping[str, Any] | None = None
    ) -> list[Candidate]:
        """Nearest first; exact below ``lance_tending.INDEX_FROM_ROWS`` rows, and for those that
        the index does not hold yet. *where* is a filter of ``core.filters``.

        Raises:
            UsageError: the filter is wrong.
            DependencyDown: vector_store_down, embedding_dimension_changed.
        """
        clause = lance_rows.to_sql(parse_filter(where))
        wanted = np.ascontiguousarray(vector, np.float32)

        async def ask(table: Any) -> list[dict[str, Any]]:
            self._same_dimension(collection, await table.schema(), len(wanted))
            query = table.query().nearest_to(wanted).distance_type("cosine").limit(k)
            query = query.nprobes(PROBES).refine_factor(REFINE)
            if clause is not None:
                query = query.where(clause)
            answer = await query.select([*lance_rows.SHOWN, "_distance"]).to_arrow()
            return answer.to_pylist()

        rows = await self._read(collection, ask)
        hits: dict[str, Candidate] = {}
        for row in rows or ():
            score = max(-1.0, min(1.0, 1.0 - float(row["_distance"])))
            hits.setdefault(row["id"], Candidate(lance_rows.decode_row(row), score))
        return list(hits.values())

    async def collections(self) -> list[str]:
        """Raises DependencyDown."""
        with _mapped(self._path):
            return await asyncio.to_thread(self._names)

    def _names(self) -> list[str]:
        self._reachable()
        tables = self._path.glob("*.lance/_versions")
        return sorted(p.parent.name.removesuffix(".lance") for p in tables)

    async def facts(self, collection: str) -> CollectionFacts | None:
        """Raises DependencyDown."""

        async def look(table: Any) -> tuple[str, int]:
            return _identity(await table.schema()), int(await table.count_rows())

        found = await self._read(collection, look)
        if found is None:
            return None
        owners = await asyncio.to_thread(self._owners.of, found[0])
        return CollectionFacts(found[0], found[1], frozenset(owners))

    async def sign(self, collection: str, owner: str) -> None:
        """Raises DependencyDown."""
        facts = await self.facts(collection)
        if facts is not None and owner not in facts.owners:
            with _mapped(self._path):
                await asyncio.to_thread(self._owners.add, facts.identity, owner)

    async def stored(self, collection: str, offset: int, limit: int) -> list[StoredId]:
        """Raises DependencyDown."""

        async def walk(table: Any) -> list[dict[str, Any]]:
            query = table.query().offset(offset).limit(limit)
            return (await query.select(["id", "document_id", "generation"]).to_arrow()).to_pylist()

        rows = await self._read(collection, walk) or ()
        return [StoredId(r["id"], r["document_id"], r["generation"]) for r in rows]

    async def ping(self) -> None:
        """The folder is there, or can be made, and takes writes. Raises DependencyDown."""
        with _mapped(self._path):
            await asyncio.to_thread(self._reachable)

    async def close(self) -> None:
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        self._tables.clear()
        if self._db is not None:
            self._db.close()
            self._db = None

    # -- tables ------------------------------------------------------------------------------
    def _folder(self, collection: str) -> Path:
        return self._path / f"{collection}.lance"

    def _reachable(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(self._path, os.R_OK | os.W_OK | os.X_OK):
            raise OSError(f"{self._path} cannot be written")

    async def _connect(self) -> Any:
        if self._db is None:
            await asyncio.to_thread(self._reachable)
            lancedb = await asyncio.to_thread(load_library)
            # Zero: each read looks for the newest version, which another process may have made.
            self._db = await lancedb.connect_async(
                str(self._path), read_consistency_interval=timedelta(0)
            )
        return self._db

    async def _open(self, collection: str, made_with: int | None) -> Any | None:
        """None: it does not exist, and *made_with* (a dimension) does not ask to make it."""
        known = self._tables.get(collection)
        if known is not None:
            return known
        db = await self._connect()
        try:
            table = await db.open_table(collection)
        except (ValueError, RuntimeError, OSError) as error:
            if not _says(error, _GONE):
                raise
            if made_with is None:
                return None
            schema = await asyncio.to_thread(lance_rows.schema_of, made_with, secrets.token_hex(8))
            table = await db.create_table(collection, schema=schema)  # fails when it exists
            await lance_tending.index_ids(table)
        self._tables[collection] = table
        return table

    async def _on(
        self, collection: str, work: Callable[[Any], Awaitable[T]], made_with: int | None = None
    ) -> T | None:
        """*work* on the table, again after a lost race and once more when the table we knew was
        deleted or made anew by somebody; None where there is no table."""
        anew = True
        with _mapped(self._path):
            while True:
                try:
                    table = await self._open(collection, made_with)
                    return None if table is None else await work(table)
                except (RuntimeError, OSError, ValueError) as error:
                    if _says(error, _GONE) and anew:
                        anew = False
                        self._tables.pop(collection, None)
                    elif _says(error, _CONFLICT):
                        await asyncio.sleep(random.uniform(0.005, 0.05))
                    else:
                        raise

    async def _read(self, collection: str, work: Callable[[Any], Awaitable[T]]) -> T | None:
        try:
            async with asyncio.timeout(self._read_s):
                return await self._on(collection, work)
        except TimeoutError:
            raise self._late("read", self._read_s) from None

    async def _find(
        self, collection: str, ids: Sequence[str], columns: list[str]
    ) -> list[dict[str, Any]]:
        async def ask(table: Any) -> list[dict[str, Any]]:
            query = table.query().where(lance_rows.ids_in(ids)).select(columns)
            return (await query.to_arrow()).to_pylist()

        return await self._read(collection, ask) or []

    def _same_dimension(self, collection: str, schema: Any, dimension: int) -> None:
        held = int(schema.field("vector").type.list_size)
        if held != dimension:
            raise DependencyDown(
                f"collection {collection} holds dimension {held}, got {dimension}",
                code="embedding_dimension_changed",
                retry_after_s=30.0,
            )

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        """Hold the process's one write; all of it, waiting included, within the time-out."""
        try:
            async with asyncio.timeout(self._write_s), self._write:
                yield
        except TimeoutError:
            raise self._late("write", self._write_s) from None

    def _late(self, what: str, limit_s: float) -> DependencyDown:
        detail = f"LanceDB in {self._path} ended no {what} within {limit_s:g} s"
        return DependencyDown(detail, code=CODE)

    # -- tidying -----------------------------------------------------------------------------
    def _count_write(self, collection: str) -> None:
        self._writes += 1
        if self._writes % self._tend_every == 0 and (self._tending is None or self._tending.done()):
            self._tending = asyncio.create_task(self._tend(collection))

    async def _tend(self, collection: str) -> None:
        """Beside the work; nothing waits for it, and the next one does what this one could not."""
        table = self._tables.get(collection)
        if table is not None:
            await lance_tending.tend(self._path, collection, table)


def load_library() -> Any:
    """Import it; once per process, blocking."""
    for name in ("LANCE_LOG", "LANCEDB_LOG"):
        os.environ.setdefault(name, "error")  # it warns of every table that it makes
    return import_module("lancedb")


def _identity(schema: Any) -> str:
    return (schema.metadata or {}).get(lance_rows.IDENTITY, b"").decode()


def _says(error: Exception, words: Sequence[str]) -> bool:
    text = str(error).lower()
    return any(word in text for word in words)


class _mapped:  # noqa: N801 - used as a function
    """What the library and the file system raise becomes DependencyDown."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, TimeoutError) or not isinstance(
            error, RuntimeError | OSError | ValueError
        ):
            return
        detail = f"LanceDB in {self._path}: {str(error)[:300] or type(error).__name__}"
        logging.getLogger(__name__).debug("%s", detail, exc_info=error)
        raise DependencyDown(detail, code=CODE) from None


def _slices(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[i : i + IDS_PER_REQUEST] for i in range(0, len(ids), IDS_PER_REQUEST))
