"""ChromaVectors: chunks and their vectors in a Chroma server, one collection per fingerprint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from unjam.core.chunk import StoredChunk
from unjam.core.errors import DependencyDown
from unjam.core.filters import parse_filter
from unjam.core.lease import UPSERT_TIMEOUT_S
from unjam.core.ports import Candidate, ChunkRow, CollectionFacts, StoredId, Vectors
from unjam.stores import chroma_census
from unjam.stores.chroma_http import CODE, ChromaHttp, CollectionGone
from unjam.stores.chroma_rows import decode_row, encode_upsert, to_where
from unjam.stores.chroma_turns import Turns

READ_TIMEOUT_S = 10.0
PING_TIMEOUT_S = 2.0

ROWS_PER_REQUEST = 128
"""Half a window of a large document. Chroma answers no search meanwhile: beside a store of 100,000
the slowest hundredth of searches took 148 ms at 100 rows a request, 415 ms at 300; a row then costs
1.8 ms of CPU instead of 1.5."""

ROWS_BESIDE_SEARCHES = 25
"""The same while anybody searches on this host."""

IDS_PER_REQUEST = 2000
"""Each id is a bound SQL variable in the server, which has 32,766 of them."""

RESULTS_PER_QUERY = 16_384
"""Likewise each hit, beside the variables of the filter."""

CONFIGURATION: Mapping[str, Any] = {
    # On every write the server reads again all it took since its last sync, and at a sync it
    # writes its id map anew. Server CPU per row (bench/chroma_wall.py), at 100, 200, 500 and 1000
    # (its default) rows a sync: batches of 32 into a small store 0.72, 0.93, 1.25, 1.27 ms; batches
    # of 100 into 30,000 rows 1.9, -, -, 1.3 ms (1.4 at 300).
    "hnsw": {"space": "cosine", "sync_threshold": 200, "batch_size": 100},
    "embedding_function": None,
}

_NOTHING = orjson.dumps({"ids": ["-"], "include": []})


class ChromaVectors:
    """Implements ``ports.VectorStore``.

    One write at a time per process: four concurrent writers get through a third less than one. A
    write ends within *write_timeout_s*, its wait for the others included, so that whatever a
    zombie sent has landed before its chunks are deleted for the second time (law 5); so give
    it some thousands of rows at most.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        write_timeout_s: float = UPSERT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        turns: Path | None = None,
    ) -> None:
        """*turns*: a folder of this host in which its processes see each other's requests."""
        self._http = ChromaHttp(url, headers)
        self._write_s = min(write_timeout_s, UPSERT_TIMEOUT_S)
        self._read_s = read_timeout_s
        self._write = asyncio.Lock()
        self._turns = Turns(turns)
        self._writes = False
        self._ids: dict[str, str] = {}  # collection name → id

    async def upsert(self, collection: str, rows: Sequence[ChunkRow], vectors: Vectors) -> None:
        """Raises DependencyDown (vector_store_down, embedding_dimension_changed)."""
        if len(rows) != len(vectors):
            raise ValueError(f"{len(rows)} rows, {len(vectors)} vectors")
        async with self._turn():
            limits = await self._http.limits(self._read_s)
            self._writes = True
            most = ROWS_BESIDE_SEARCHES if self._turns.searched_lately else ROWS_PER_REQUEST
            for part in _even_slices(len(rows), min(limits.max_batch, most)):
                body = await asyncio.to_thread(
                    encode_upsert, rows[part], vectors[part], base64_vectors=limits.base64_vectors
                )
                async with self._turns.write():
                    await self._on_made(collection, "upsert", body)

    async def delete(self, collection: str, ids: Sequence[str]) -> None:
        """Raises DependencyDown. What is not there is no error."""
        async with self._turn():
            limits = await self._http.limits(self._read_s)
            for part in _slices(len(ids), min(limits.max_batch, IDS_PER_REQUEST)):
                body = orjson.dumps({"ids": ids[part]})
                await self._on_found(collection, "delete", body, self._write_s)

    async def missing(self, collection: str, ids: Sequence[str]) -> list[str]:
        """Raises DependencyDown."""
        there: set[str] = set()
        for part in _slices(len(ids), IDS_PER_REQUEST):
            body = orjson.dumps({"ids": ids[part], "include": []})
            raw = await self._on_found(collection, "get", body, self._read_s)
            there.update(raw["ids"] if raw else ())
        return [i for i in ids if i not in there]

    async def get(self, collection: str, ids: Sequence[str]) -> list[StoredChunk]:
        """Raises DependencyDown."""
        found: dict[str, StoredChunk] = {}
        for part in _slices(len(ids), IDS_PER_REQUEST):
            body = orjson.dumps({"ids": ids[part], "include": ["metadatas"]})
            raw = await self._on_found(collection, "get", body, self._read_s)
            for chunk in _decode(raw["ids"], raw["metadatas"]) if raw else ():
                found[chunk.id] = chunk
        return [found[i] for i in ids if i in found]

    async def query(
        self, collection: str, vector: Vectors, k: int, where: Mapping[str, Any] | None = None
    ) -> list[Candidate]:
        """Nearest first, from an approximate index. *where* is a filter of ``core.filters``.

        Raises:
            UsageError: the filter is wrong.
            DependencyDown: vector_store_down, embedding_dimension_changed.
        """
        clause = to_where(parse_filter(where))
        body = orjson.dumps(
            {
                "query_embeddings": [np.ascontiguousarray(vector, dtype=np.float32)],
                "n_results": min(k, RESULTS_PER_QUERY),
                "where": clause,
                "include": ["metadatas", "distances"],
            },
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        # Whoever writes asks now and then whether it finds itself: nobody waits for that.
        with nullcontext() if self._writes else self._turns.query():
            raw = await self._on_found(collection, "query", body, self._read_s)
        if not raw or not raw["ids"]:
            return []
        score = {
            i: max(-1.0, min(1.0, 1.0 - float(d)))  # cosine distance = 1 − similarity
            for i, d in zip(raw["ids"][0], raw["distances"][0], strict=True)
        }
        chunks = _decode(raw["ids"][0], raw["metadatas"][0])
        return [Candidate(chunk, score[chunk.id]) for chunk in chunks]

    async def collections(self) -> list[str]:
        return await self._http.names(self._read_s)

    async def facts(self, collection: str) -> CollectionFacts | None:
        """Raises DependencyDown."""
        return await chroma_census.facts(self._http, collection, self._read_s)

    async def sign(self, collection: str, owner: str) -> None:
        """Raises DependencyDown."""
        await chroma_census.sign(self._http, collection, owner, self._read_s)

    async def stored(self, collection: str, offset: int, limit: int) -> list[StoredId]:
        """Raises DependencyDown."""
        body = chroma_census.page(offset, limit)
        raw = await self._on_found(collection, "get", body, self._read_s)
        rows = zip(raw["ids"], raw["metadatas"], strict=True) if raw else ()
        return [chroma_census.stored_id(i, m) for i, m in rows]

    async def ping(self) -> None:
        """Raises DependencyDown."""
        await self._http.ping(PING_TIMEOUT_S)

    async def close(self) -> None:
        await self._http.close()
        self._turns.close()

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        """Hold the process's one write; all of it, waiting included, within the time-out."""
        try:
            async with asyncio.timeout(self._write_s), self._write:
                yield
        except TimeoutError:
            raise DependencyDown(
                f"Chroma took no write within {self._write_s:g} s", code=CODE
            ) from None

    async def _on_made(self, collection: str, verb: str, body: bytes) -> None:
        """Call on the collection, making it first where it does not exist (any more)."""

        async def make() -> str:
            made = await self._http.create(collection, CONFIGURATION, self._read_s)
            # Chroma 1.5.9: when the first read of a new collection comes after its first write,
            # a vector of the second write was unreachable in 3 of 100 collections, for good,
            # though get() finds it. With a read before the first write: 0 of 780.
            await self._http.on(made, "get", _NOTHING, self._read_s)
            return made

        try:
            await self._twice(collection, make, verb, body, self._write_s)
        except CollectionGone as e:
            raise DependencyDown(f"Chroma loses collection {collection}: {e}", code=CODE) from None

    async def _on_found(
        self, collection: str, verb: str, body: bytes, timeout_s: float
    ) -> Any | None:
        """Call on the collection; None where it does not exist."""

        async def find() -> str:
            return await self._http.find(collection, self._read_s)

        try:
            return await self._twice(collection, find, verb, body, timeout_s)
        except CollectionGone:
            return None

    async def _twice(
        self,
        collection: str,
        resolve: Callable[[], Awaitable[str]],
        verb: str,
        body: bytes,
        timeout_s: float,
    ) -> Any:
        """With the id we know, else (deleted, or made anew by somebody) with a fresh one."""
        known = self._ids.get(collection)
        if known is not None:
            try:
                return await self._http.on(known, verb, body, timeout_s)
            except CollectionGone:
                self._ids.pop(collection, None)
        fresh = self._ids[collection] = await resolve()
        return await self._http.on(fresh, verb, body, timeout_s)


def _slices(total: int, size: int) -> Iterator[slice]:
    return (slice(i, i + size) for i in range(0, total, size))


def _even_slices(total: int, most: int) -> Iterator[slice]:
    """As few as can be, and alike: a request of 4 rows takes 27 ms, one of 100 takes 104."""
    return _slices(total, -(-total // -(-total // most))) if total else iter(())


def _decode(
    ids: Sequence[str], metadatas: Sequence[Mapping[str, Any] | None]
) -> Iterator[StoredChunk]:
    """The rows that are ours; a foreign row in our collection is passed over."""
    for chunk_id, metadata in zip(ids, metadatas, strict=True):
        try:
            yield decode_row(chunk_id, metadata or {})
        except (KeyError, ValueError):
            continue
