"""QdrantVectors: chunks and their vectors in a Qdrant server, one collection per fingerprint."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from unjam.core.chunk import StoredChunk
from unjam.core.errors import DependencyDown
from unjam.core.filters import parse_filter
from unjam.core.lease import UPSERT_TIMEOUT_S
from unjam.core.ports import Candidate, ChunkRow, CollectionFacts, StoredId, Vectors
from unjam.stores import qdrant_rows
from unjam.stores.apart import apart
from unjam.stores.row_tests import last_of_each

T = TypeVar("T")

READ_TIMEOUT_S = 10.0
PING_TIMEOUT_S = 2.0
CODE = "vector_store_down"
ROWS_PER_REQUEST = 300
IDS_PER_REQUEST = 2000

BOOK = "unjam-collections"
"""A collection of our own: a point for each other one, with its identity and its owners."""

FAST_FIELDS = ("tokens", "user_id", "document_id", "filename")

_FAILURES = (ApiException, ResponseHandlingException, ResourceExhaustedResponse, OSError)


class QdrantVectors:
    """Implements ``ports.VectorStore``. One write at a time per process.

    *client*: another one than the server's at *url*, such as the library's local mode in tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        client: AsyncQdrantClient | None = None,
        write_timeout_s: float = UPSERT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._write_s = min(write_timeout_s, UPSERT_TIMEOUT_S)
        self._read_s = read_timeout_s
        self._url = url
        self._client = client or AsyncQdrantClient(
            url=url,
            api_key=api_key,
            timeout=int(self._write_s) or 1,
            check_compatibility=False,
        )
        self._write = asyncio.Lock()
        self._known: dict[str, int] = {}  # collection → dimension
        self._walks: dict[str, tuple[int, Any]] = {}  # collection → rows walked, the next id

    async def upsert(self, collection: str, rows: Sequence[ChunkRow], vectors: Vectors) -> None:
        """Raises DependencyDown (vector_store_down, embedding_dimension_changed)."""
        if len(rows) != len(vectors):
            raise ValueError(f"{len(rows)} rows, {len(vectors)} vectors")
        if not rows:
            return
        keep = last_of_each(rows)
        kept = [rows[i] for i in keep]
        floats = await asyncio.to_thread(apart, kept, vectors[keep])

        async def write() -> None:
            await self._ready(collection, int(vectors.shape[1]))
            for part in _slices(range(len(kept))):
                points = [
                    models.PointStruct(
                        id=qdrant_rows.point_id(kept[i].id),
                        vector=floats[i].tolist(),
                        payload=qdrant_rows.payload_of(kept[i]),
                    )
                    for i in part
                ]
                await self._client.upsert(collection, points, wait=True)

        await self._in_turn(collection, write)

    async def delete(self, collection: str, ids: Sequence[str]) -> None:
        """Raises DependencyDown. What is not there is no error."""

        async def write() -> None:
            if await self._client.collection_exists(collection):
                for part in _slices(ids, IDS_PER_REQUEST):
                    points: Any = [qdrant_rows.point_id(i) for i in part]
                    await self._client.delete(
                        collection, models.PointIdsList(points=points), wait=True
                    )

        if ids:
            await self._in_turn(collection, write)

    async def missing(self, collection: str, ids: Sequence[str]) -> list[str]:
        """Raises DependencyDown."""
        there = {str(p["id"]) for p in await self._find(collection, ids, ["id"])}
        return [i for i in ids if i not in there]

    async def get(self, collection: str, ids: Sequence[str]) -> list[StoredChunk]:
        """Raises DependencyDown."""
        found = {str(p["id"]): p for p in await self._find(collection, ids, True)}
        return [qdrant_rows.chunk_of(found[i]) for i in ids if i in found]

    async def query(
        self, collection: str, vector: Vectors, k: int, where: Mapping[str, Any] | None = None
    ) -> list[Candidate]:
        """Nearest first, from an approximate index. *where* is a filter of ``core.filters``.

        Raises:
            UsageError: the filter is wrong.
            DependencyDown: vector_store_down, embedding_dimension_changed.
        """
        said = qdrant_rows.to_filter(parse_filter(where))
        chosen = None if said is None else models.Filter.model_validate(said)

        async def ask() -> list[Candidate]:
            dimension = await self._dimension(collection)
            if dimension is None:
                return []
            self._same_dimension(collection, dimension, len(vector))
            answer = await self._client.query_points(
                collection,
                query=np.asarray(vector, np.float32).tolist(),
                query_filter=chosen,
                limit=k,
                with_payload=True,
            )
            return [
                Candidate(qdrant_rows.chunk_of(p.payload), max(-1.0, min(1.0, p.score)))
                for p in answer.points
                if p.payload and "document_id" in p.payload
            ]

        return await self._bounded(collection, ask, self._read_s)

    async def collections(self) -> list[str]:
        """Raises DependencyDown."""

        async def ask() -> list[str]:
            found = (await self._client.get_collections()).collections
            return sorted(c.name for c in found if c.name != BOOK)

        return await self._bounded("", ask, self._read_s)

    async def facts(self, collection: str) -> CollectionFacts | None:
        """Raises DependencyDown."""

        async def ask() -> CollectionFacts | None:
            if not await self._client.collection_exists(collection):
                return None
            noted = await self._noted(collection)
            rows = (await self._client.count(collection, exact=True)).count
            owners = {w.removeprefix("owner:") for w in noted if w.startswith("owner:")}
            return CollectionFacts(str(noted.get("identity", "")), rows, frozenset(owners))

        return await self._bounded(collection, ask, self._read_s)

    async def sign(self, collection: str, owner: str) -> None:
        """Raises DependencyDown."""

        async def note() -> None:
            if await self._client.collection_exists(collection):
                # One key each: two ledgers that sign at the same moment do not meet.
                await self._client.set_payload(
                    BOOK,
                    {f"owner:{owner}": True},
                    points=[qdrant_rows.point_id(f"collection:{collection}")],
                    wait=True,
                )

        await self._bounded(collection, note, self._read_s)

    async def stored(self, collection: str, offset: int, limit: int) -> list[StoredId]:
        """Qdrant pages by the id that comes next: a walk that goes on where the last page ended
        costs that page, any other one all that lies before.

        Raises DependencyDown.
        """

        async def walk() -> list[StoredId]:
            if not await self._client.collection_exists(collection):
                return []
            walked, after = self._walks.pop(collection, (0, None))
            if walked != offset:
                walked, after = 0, None
            found: list[Any] = []
            while walked < offset + limit:
                page, after = await self._client.scroll(
                    collection,
                    limit=min(IDS_PER_REQUEST, offset + limit - walked),
                    offset=after,
                    with_payload=["id", "document_id", "generation"],
                )
                found += page[max(0, offset - walked) :]
                walked += len(page)
                if after is None:
                    return [_stored_id(p) for p in found]
            self._walks[collection] = (walked, after)
            return [_stored_id(p) for p in found]

        return await self._bounded(collection, walk, self._read_s)

    async def ping(self) -> None:
        """Raises DependencyDown."""

        async def ask() -> None:
            await self._client.get_collections()

        await self._bounded("", ask, PING_TIMEOUT_S)

    async def close(self) -> None:
        await self._client.close()

    # -- collections -------------------------------------------------------------------------
    async def _find(
        self, collection: str, ids: Sequence[str], payload: Any
    ) -> list[Mapping[str, Any]]:
        async def ask() -> list[Mapping[str, Any]]:
            if not await self._client.collection_exists(collection):
                return []
            found: list[Mapping[str, Any]] = []
            for part in _slices(ids, IDS_PER_REQUEST):
                points = await self._client.retrieve(
                    collection, [qdrant_rows.point_id(i) for i in part], with_payload=payload
                )
                found += [p.payload for p in points if p.payload and "id" in p.payload]
            return found

        return await self._bounded(collection, ask, self._read_s) if ids else []

    async def _dimension(self, collection: str) -> int | None:
        known = self._known.get(collection)
        if known is not None:
            return known
        if not await self._client.collection_exists(collection):
            return None
        params = (await self._client.get_collection(collection)).config.params.vectors
        assert isinstance(params, models.VectorParams)
        self._known[collection] = params.size
        return params.size

    async def _ready(self, collection: str, dimension: int) -> None:
        """The collection is there, of this dimension, and stands in the book."""
        held = await self._dimension(collection)
        if held is not None:
            self._same_dimension(collection, held, dimension)
            return
        await self._made(BOOK, 1)
        await self._client.upsert(
            BOOK,
            [
                models.PointStruct(
                    id=qdrant_rows.point_id(f"collection:{collection}"),
                    vector=[1.0],
                    payload={"name": collection, "identity": secrets.token_hex(8)},
                )
            ],
            wait=True,
        )
        await self._made(collection, dimension)
        for field in FAST_FIELDS:
            await self._client.create_payload_index(
                collection, field, models.PayloadSchemaType.KEYWORD, wait=True
            )
        self._known[collection] = dimension

    async def _made(self, name: str, dimension: int) -> None:
        """Created, by us or by somebody who was faster."""
        if await self._client.collection_exists(name):
            return
        vectors = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
        try:
            await self._client.create_collection(name, vectors_config=vectors)
        except (ApiException, ValueError):
            if not await self._client.collection_exists(name):
                raise

    async def _noted(self, collection: str) -> Mapping[str, Any]:
        if not await self._client.collection_exists(BOOK):
            return {}
        point = qdrant_rows.point_id(f"collection:{collection}")
        found = await self._client.retrieve(BOOK, [point], with_payload=True)
        return (found[0].payload or {}) if found else {}

    def _same_dimension(self, collection: str, held: int, dimension: int) -> None:
        if held != dimension:
            self._known.pop(collection, None)
            raise DependencyDown(
                f"collection {collection} holds dimension {held}, got {dimension}",
                code="embedding_dimension_changed",
                retry_after_s=30.0,
            )

    async def _in_turn(self, collection: str, write: Callable[[], Awaitable[None]]) -> None:
        """Hold the process's one write; all of it, waiting included, within the time-out."""

        async def whole() -> None:
            async with self._write:
                try:
                    await write()
                except (ApiException, ValueError) as error:
                    if not _gone(error):
                        raise
                    self._known.pop(collection, None)  # deleted by somebody: made anew, once
                    await write()

        await self._bounded(collection, whole, self._write_s)

    async def _bounded(
        self, collection: str, work: Callable[[], Awaitable[T]], within_s: float
    ) -> T:
        try:
            async with asyncio.timeout(within_s):
                return await work()
        except TimeoutError:
            detail = f"Qdrant at {self._url} did not answer within {within_s:g} s"
        except (*_FAILURES, ValueError) as error:
            self._known.pop(collection, None)
            text = " ".join(str(error).split())[:300] or type(error).__name__
            detail = f"Qdrant at {self._url}: {text}"
        raise DependencyDown(detail, code=CODE)


def _gone(error: Exception) -> bool:
    text = str(error).lower()
    return "not found" in text or "doesn't exist" in text


def _stored_id(point: Any) -> StoredId:
    payload: Mapping[str, Any] = point.payload or {}
    if not {"id", "document_id", "generation"} <= payload.keys():
        return StoredId(str(point.id), "", 0)
    return StoredId(payload["id"], payload["document_id"], payload["generation"])


def _slices(some: Sequence[T], size: int = ROWS_PER_REQUEST) -> Iterator[Sequence[T]]:
    return (some[i : i + size] for i in range(0, len(some), size))
