"""``unjam migrate-vectors``: fill another vector store, or refill the one in use.

Into another store every visible chunk goes under the id it has: its text from the store in use,
its vector from the embedding cache (what the cache lacks is embedded). Only what is absent is
written, so a run that was cut off goes on where it was, and one that has nothing to do is the
final check. What is lost in the store in use comes back through the audit of vectors, which gives
a document a new generation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from unjam.app.house import House, found, without_password
from unjam.app.services import Services, open_services
from unjam.app.vector_stores import open_vectors
from unjam.core.chunk import Chunk, StoredChunk, chunk_ids
from unjam.core.document import Pin, Ticket
from unjam.core.errors import DependencyDown
from unjam.core.ports import ChunkRow, VectorStore, VisibleChunks, VisibleDocument
from unjam.settings import Settings

Say = Callable[[str], None]

DOCUMENTS = 200
"""A question to the ledger."""

ROWS = 256
"""Chunks on their way at a time: as a document's windows have it."""

ROUNDS = 20
"""Walks over the ledger at most: each but the first has only what became visible meanwhile."""

ASKED = 2_000
"""Ids in a question to a vector store."""

LOOK_EVERY_S = 2.0

BEAT_S = 15.0
"""A worker whose last heartbeat is older than this counts as gone."""


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """*written*: chunks that this run put into another store, or documents that it put back to
    work for the one in use. *left*: ids of documents whose chunks are not all there; when it is
    empty, every searchable document stands in *store* with all of its chunk ids."""

    store: str
    documents: int
    chunks: int
    written: int
    left: tuple[str, ...]


@dataclass(slots=True)
class _Tally:
    documents: int = 0
    chunks: int = 0
    written: int = 0
    left: tuple[str, ...] = ()

    def report(self, store: str) -> MigrationReport:
        return MigrationReport(store, self.documents, self.chunks, self.written, self.left)


async def migrate(
    settings: Settings, url: str = "", *, source: str = "", say: Say = lambda _: None
) -> MigrationReport:
    """Into the store at *url*, else at RAG_VECTOR_STORE_URL, else into the one in use.

    The store in use is what the house says, or *source*. The system may run meanwhile. Filling
    another store needs the one in use to answer; refilling the one in use needs workers.

    Raises:
        SetupError: no system is known here, or a URL is of no kind that is supported.
        DependencyDown: ledger, embedding, or one of the two stores is away.
    """
    source = source or in_use(settings)
    target = url or settings.vector_store_url or source
    chosen = found(settings).model_copy(update={"vector_store_url": source or None})
    services = await open_services(chosen, role="api")
    shown = without_password(target)
    try:
        if shown == without_password(source):
            return await _refill(services, shown, say)
        store = open_vectors(target)
        try:
            await store.ping()
            return await _Filling(services, store, say).run(shown)
        finally:
            await store.close()
    finally:
        await services.close()


def in_use(settings: Settings) -> str:
    """URL of the store that the running system uses; with the password that the environment has
    for it, as the house has none. "": nothing is known."""
    house = House.read(settings.data_dir)
    told = (house.vector_store_url or house.chroma_url) if house else ""
    known = [u for u in (settings.vector_store_url, settings.chroma_url) if u]
    return next((u for u in known if without_password(u) == told), told or (known or [""])[0])


# -- into another store ---------------------------------------------------------------------
class _Filling:
    def __init__(self, services: Services, target: VectorStore, say: Say) -> None:
        self._services = services
        self._target = target
        self._say = say
        self._signed: set[str] = set()

    async def run(self, shown: str) -> MigrationReport:
        """Walk until a walk has nothing to write: that one is the check."""
        written = 0
        tally = _Tally()
        for _ in range(ROUNDS):
            tally = await self._walk()
            written += tally.written
            tally.written, seen = written, tally.written
            self._say(f"{tally.documents} documents, {tally.chunks} chunks, {seen} written")
            if not seen:
                break
        return tally.report(shown)

    async def _walk(self) -> _Tally:
        tally = _Tally()
        left: list[str] = []
        pins = {p.id: p for p in await self._services.ledger.pins_in_use()}
        async for page in _pages(self._services):
            documents = await self._services.ledger.visible([v.document_id for v in page])
            for pin_id in dict.fromkeys(v.pin_id for v in page):
                some = [v for v in page if v.pin_id == pin_id]
                pin = pins.get(pin_id)
                if pin is None:  # became visible meanwhile: the next walk has it
                    left += [v.document_id for v in some]
                    continue
                n, short = await self._copy(pin, some, documents)
                tally.written += n
                left += short
            tally.documents += len(page)
            tally.chunks += sum(v.chunks for v in page)
            if tally.documents % (DOCUMENTS * 10) == 0:
                self._say(f"{tally.documents} documents looked at, {tally.written} chunks written")
        tally.left = tuple(dict.fromkeys(left))
        return tally

    async def _copy(
        self,
        pin: Pin,
        some: Sequence[VisibleChunks],
        documents: Mapping[str, VisibleDocument],
    ) -> tuple[int, list[str]]:
        """(chunks written, documents of which chunks are absent from the store in use)."""
        collection = pin.fingerprint.collection
        wanted = [
            (i, v.document_id)
            for v in some
            if v.document_id in documents
            and documents[v.document_id].generation == v.generation  # else: replaced just now
            for i in chunk_ids(v.document_id, v.generation, v.chunks)
        ]
        written = 0
        short: list[str] = []
        for start in range(0, len(wanted), ASKED):
            part = dict(wanted[start : start + ASKED])
            absent = await self._target.missing(collection, list(part))
            for first in range(0, len(absent), ROWS):
                ids = absent[first : first + ROWS]
                chunks = await self._services.vectors.get(collection, ids)
                there = {c.id for c in chunks}
                short += [part[i] for i in ids if i not in there]
                if chunks:
                    await self._write(pin, chunks, documents)
                    written += len(chunks)
        return written, short

    async def _write(
        self, pin: Pin, chunks: Sequence[StoredChunk], documents: Mapping[str, VisibleDocument]
    ) -> None:
        """Upsert and confirm. Raises DependencyDown."""
        collection = pin.fingerprint.collection
        vectors = await self._services.embedder.passages([c.text for c in chunks], pin)
        rows = [_row(c, documents[c.document_id]) for c in chunks]
        await self._target.upsert(collection, rows, vectors)
        absent = await self._target.missing(collection, [r.id for r in rows])
        if absent:
            raise DependencyDown(
                f"{len(absent)} chunks are absent after an acknowledged upsert",
                code="vector_store_down",
                hint="Check the new store's disk and log, and run it again: it goes on from here.",
            )
        if collection not in self._signed:
            await self._target.sign(collection, self._services.ledger.id)
            self._signed.add(collection)


def _row(chunk: StoredChunk, document: VisibleDocument) -> ChunkRow:
    text = chunk.text
    return ChunkRow(
        id=chunk.id,
        document_id=chunk.document_id,
        generation=chunk.generation,
        user_id=document.user_id,
        chunk=Chunk(chunk.index, text, 0, 0, len(text), chunk.page, chunk.section),
        filename=document.filename,
        metadata=document.metadata,
    )


async def _pages(services: Services) -> AsyncIterator[list[VisibleChunks]]:
    after = ("", "")
    while page := await services.ledger.visible_chunks(after, DOCUMENTS):
        yield page
        after = (page[-1].pin_id, page[-1].document_id)


# -- into the store in use ------------------------------------------------------------------
async def _refill(services: Services, shown: str, say: Say) -> MigrationReport:
    """Whatever lacks chunks is put back to work, until nothing lacks any more. Workers do it:
    from the originals, with vectors of the cache."""
    begun = 0
    told = -1
    while True:
        tally, short = await _look(services)
        begun += len(await _begin(services, short))
        tally.left = tuple(v.document_id for v in short)
        tally.written = begun
        if not short or not await _workers(services):
            return tally.report(shown)
        if told != len(short):
            told = len(short)
            say(f"{told} of {tally.documents} documents lack chunks; workers store them again")
        await asyncio.sleep(LOOK_EVERY_S)


async def _look(services: Services) -> tuple[_Tally, list[VisibleChunks]]:
    tally = _Tally()
    short: list[VisibleChunks] = []
    async for page in _pages(services):
        for one in page:
            tally.documents += 1
            tally.chunks += one.chunks
            for start in range(0, one.chunks, ASKED):
                end = min(one.chunks, start + ASKED)
                ids = chunk_ids(one.document_id, one.generation, end, start)
                if await services.vectors.missing(one.collection, ids):
                    short.append(one)
                    break
    return tally, short


async def _begin(services: Services, short: Sequence[VisibleChunks]) -> list[Ticket]:
    tickets: list[Ticket] = []
    for start in range(0, len(short), DOCUMENTS):
        tickets += await services.ledger.note_gaps(short[start : start + DOCUMENTS])
    return tickets


async def _workers(services: Services) -> bool:
    beats = await services.ledger.processes()
    return any(p.kind in ("worker", "stock") and age_s < BEAT_S for p, age_s in beats)
