"""A store that is full already: searchable documents, written straight into ledger and Chroma."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import sqlalchemy as sa

from bench.corpus import text_of
from bench.house import House, upload
from unjam.core.chunk import Chunk, chunk_id
from unjam.core.document import Pin
from unjam.core.ports import ChunkRow
from unjam.queue.lanes import PROCESSING
from unjam.stores import schema
from unjam.stores.ledger import SqlLedger
from unjam.stores.ledger.dialect import dialect_of
from unjam.stores.vectors_chroma import ChromaVectors
from unjam.testing.fake_vectors import MAKERS

BLOCK = 2_000
CHUNK_BYTES = 800


def fill_store(ours: House, documents: int, chunks_each: int, first: int = 0) -> float:
    """Adds so many searchable documents with vectors of the endpoint's kind; the seconds it took.

    One document goes the ordinary way before, so that collection and pin are as the system makes
    them.
    """
    return asyncio.run(_fill(ours, documents, chunks_each, first))


async def _fill(ours: House, documents: int, chunks_each: int, first: int) -> float:
    before = ours.counts()["searchable"]
    async with httpx.AsyncClient(base_url=ours.url, timeout=60) as client:
        await upload(client, "seed.txt", f"The seed of the store, number {first}.".encode())
    await asyncio.to_thread(ours.wait_searchable, before + 1)
    ledger = await SqlLedger.open(ours.ledger_url, gate_dir=ours.data_dir)
    try:
        (pin,) = await ledger.pins_in_use()
    finally:
        await ledger.close()
    began = time.perf_counter()
    numbers = range(first, first + documents)
    await _fill_blocks(ours, pin, numbers, chunks_each)
    return time.perf_counter() - began


def document_id(number: int) -> str:
    return f"0190{number:028x}"


async def _fill_blocks(ours: House, pin: Pin, numbers: range, chunks_each: int) -> None:
    """Ledger right after Chroma: the watchdog removes chunks of documents that nobody knows."""
    dimension = pin.fingerprint.dimension or 384
    vectors = ChromaVectors(ours.chroma_url)
    pool = [text_of(n, CHUNK_BYTES) for n in range(50)]
    each = max(1, BLOCK // chunks_each)
    try:
        for start in range(0, len(numbers), each):
            some = numbers[start : start + each]
            rows = [
                _chunk(n, i, pool[(n + i) % len(pool)]) for n in some for i in range(chunks_each)
            ]
            block = MAKERS[ours.endpoint_mode]([row.id for row in rows], dimension)
            await vectors.upsert(pin.fingerprint.collection, rows, block)
            await asyncio.to_thread(_fill_ledger, ours.ledger_url, pin, some, chunks_each)
    finally:
        await vectors.close()


def _chunk(number: int, index: int, text: str) -> ChunkRow:
    name = document_id(number)
    chunk = Chunk(index, text, 200, 0, len(text))
    return ChunkRow(chunk_id(name, 1, index), name, 1, "", chunk, f"{number}.txt")


def _fill_ledger(url: str, pin: Pin, numbers: range, chunks_each: int) -> None:
    engine = dialect_of(url, durable=False).writer()
    now = time.time()
    try:
        rows = [_row(n, pin, chunks_each, now) for n in numbers]
        ids = [row["id"] for row in rows]
        accepted = [{"document_id": i, "at": now} for i in ids]
        events = [{"document_id": i, "generation": 1, "at": now, "kind": "accepted"} for i in ids]
        with engine.begin() as conn:
            conn.execute(sa.insert(schema.documents), rows)
            conn.execute(sa.insert(schema.acceptances), accepted)
            conn.execute(sa.insert(schema.events), events)
    finally:
        engine.dispose()


def _row(number: int, pin: Pin, chunks: int, now: float) -> dict[str, Any]:
    content = f"{number:064x}"
    return {
        "id": document_id(number),
        "user_id": "",
        "filename": f"{number}.txt",
        "media_type": "text/plain",
        "size_bytes": CHUNK_BYTES * chunks,
        "content_hash": content,
        "pin_id": pin.id,
        "home_lane": PROCESSING,
        "lane": PROCESSING,
        "created_at": now,
        "updated_at": now,
        "searchable_at": now,
        "state": "searchable",
        "generation": 1,
        "enqueue_seq": 1,
        "token": 1,
        "visible_generation": 1,
        "visible_pin": pin.id,
        "visible_hash": content,
        "chunks": chunks,
        "started_generation": 1,
    }
