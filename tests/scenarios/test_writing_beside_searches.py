"""Chroma answers no search while it takes rows: while anybody searches it gets few at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.scenarios.test_chroma_outages import batch
from unjam.stores.vectors_chroma import ROWS_BESIDE_SEARCHES, ROWS_PER_REQUEST, ChromaVectors


class Counted(ChromaVectors):
    upserts = 0

    async def _twice(self, collection: str, resolve: Any, verb: str, *rest: Any) -> Any:
        self.upserts += verb == "upsert"
        return await super()._twice(collection, resolve, verb, *rest)


async def test_writes_are_small_while_another_process_searches(
    chroma_url: str, collection: str, tmp_path: Path
) -> None:
    writer, api = Counted(chroma_url, turns=tmp_path), ChromaVectors(chroma_url, turns=tmp_path)
    rows, vectors = batch("d", 0, ROWS_PER_REQUEST)
    await writer.upsert(collection, rows, vectors)
    assert writer.upserts == 1
    await writer.query(collection, vectors[0], 5)  # to see whether it finds itself
    again, more = batch("e", 1, ROWS_PER_REQUEST)
    await writer.upsert(collection, again, more)
    assert writer.upserts == 2

    await api.query(collection, vectors[0], 5)
    last, most = batch("f", 2, ROWS_PER_REQUEST)
    await writer.upsert(collection, last, most)
    assert writer.upserts == 2 + ROWS_PER_REQUEST // ROWS_BESIDE_SEARCHES
    ids = [row.id for some in (rows, again, last) for row in some]
    assert await api.missing(collection, ids) == []
    await writer.close()
    await api.close()
