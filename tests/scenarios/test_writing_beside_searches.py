"""Chroma answers no search while it takes rows: while anybody searches it gets few at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.scenarios.test_chroma_outages import batch
from unjam.stores.vectors_chroma import ROWS_BESIDE_SEARCHES, ROWS_PER_REQUEST, ChromaVectors


class Counted(ChromaVectors):
    """Remembers how many rows each upsert had."""

    def __init__(self, url: str, **more: Any) -> None:
        super().__init__(url, **more)
        self.upserts: list[int] = []

    async def _twice(
        self, collection: str, resolve: Any, verb: str, body: bytes, timeout_s: float
    ) -> Any:
        if verb == "upsert":
            self.upserts.append(len(json.loads(body)["ids"]))
        return await super()._twice(collection, resolve, verb, body, timeout_s)


async def test_writes_are_small_while_another_process_searches(
    chroma_url: str, collection: str, tmp_path: Path
) -> None:
    writer, api = Counted(chroma_url, turns=tmp_path), ChromaVectors(chroma_url, turns=tmp_path)
    rows, vectors = batch("d", 0, ROWS_PER_REQUEST)
    await writer.upsert(collection, rows, vectors)
    assert len(writer.upserts) == 1
    await writer.query(collection, vectors[0], 5)  # to see whether it finds itself
    again, more = batch("e", 1, ROWS_PER_REQUEST)
    await writer.upsert(collection, again, more)
    assert len(writer.upserts) == 2

    await api.query(collection, vectors[0], 5)
    last, most = batch("f", 2, ROWS_PER_REQUEST)
    await writer.upsert(collection, last, most)
    assert max(writer.upserts[2:]) <= ROWS_BESIDE_SEARCHES
    assert sum(writer.upserts[2:]) == ROWS_PER_REQUEST
    ids = [row.id for some in (rows, again, last) for row in some]
    assert await api.missing(collection, ids) == []
    await writer.close()
    await api.close()


async def test_no_request_carries_a_handful_of_rows(chroma_url: str, collection: str) -> None:
    writer = Counted(chroma_url)
    for number, total in enumerate((1, ROWS_PER_REQUEST, ROWS_PER_REQUEST + 2)):
        await writer.upsert(collection, *batch(f"d{number}", number, total))
    half = ROWS_PER_REQUEST // 2 + 1
    assert writer.upserts == [1, ROWS_PER_REQUEST, half, half]
    await writer.close()
