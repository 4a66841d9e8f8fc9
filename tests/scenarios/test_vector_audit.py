"""Chunks that vanish from Chroma come back from the cache, without a text being embedded again."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np

from unjam.core.chunk import Chunk, chunk_id, chunk_ids
from unjam.core.document import Document, State
from unjam.core.ports import ChunkRow
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended
from unjam.watchdog.audit_vectors import VectorAudit


def text(word: str) -> str:
    return "\n\n".join(f"{word} {n}: the survey of {word} goes on for long." for n in range(30))


async def all_back(stack: Stack, ids: list[str]) -> dict[str, Document]:
    """All searchable again under a newer generation, and nothing counts as missing."""

    async def missing() -> int:
        return (await stack.services.ledger.equation()).missing

    await until("nothing is missing", missing, lambda n: n == 0, deadline_s=60)
    found = await until_ended(stack.services.ledger, ids)
    for document in found.values():
        assert document.state is State.SEARCHABLE
        wanted = set(chunk_ids(document.id, document.visible_generation, document.chunks))
        assert await stack.chunk_ids(document.id, 64) >= wanted
        (hit, *_) = await stack.services.retriever.search(
            "survey", k=3, filter={"document_id": document.id}
        )
        assert hit.document_id == document.id
    return found


async def embedded(fake: FakeOpenAI) -> int:
    return (await asyncio.to_thread(fake.stats))["embedded"]


async def test_missing_chunks_come_back_without_embedding_again(
    stack: Stack, fake_openai: FakeOpenAI
) -> None:
    ledger, vectors = stack.services.ledger, stack.services.vectors
    stack.worker()
    ids = [await stack.add(text(word)) for word in ("alpha", "bravo", "charlie")]
    before = await until_ended(ledger, ids)
    paid = await embedded(fake_openai)
    here = stack.services.current_pin().fingerprint.collection
    await vectors.delete(here, [chunk_id(ids[1], 1, 2), chunk_id(ids[1], 1, 3)])
    await stack.reconcile()
    equation = await ledger.equation()
    assert (equation.accepted, equation.missing) == (3, 1)
    await stack.reconcile()  # rings for it
    after = await all_back(stack, ids)
    assert [after[i].visible_generation for i in ids] == [1, 2, 1]
    assert after[ids[1]].chunks == before[ids[1]].chunks
    # The search of `all_back` asks one text of its own.
    assert await embedded(fake_openai) - paid <= 1


async def test_a_replaced_chroma_is_filled_again_from_the_cache(
    stack: Stack, fake_openai: FakeOpenAI
) -> None:
    ledger = stack.services.ledger
    stack.worker()
    stack.watchdog()
    ids = [await stack.add(text(f"word{n}")) for n in range(5)]
    await until_ended(ledger, ids)
    paid = await embedded(fake_openai)
    here = stack.services.current_pin().fingerprint.collection
    base = "/api/v2/tenants/default_tenant/databases/default_database/collections"
    async with httpx.AsyncClient(base_url=stack.chroma_url) as http:
        assert (await http.delete(f"{base}/{here}")).is_success

    async def generations() -> set[int]:
        return {d.visible_generation for d in await ledger.get_many(ids)}

    await until("all are built anew", generations, lambda g: g == {2}, deadline_s=40)
    await all_back(stack, ids)
    assert await embedded(fake_openai) - paid <= 1


async def test_foreign_chunks_go_and_those_in_the_making_stay(
    stack: Stack, fake_openai: FakeOpenAI
) -> None:
    ledger, vectors = stack.services.ledger, stack.services.vectors
    worker = stack.worker()
    shown = await stack.add(text("alpha"))
    await until_ended(ledger, [shown])
    await worker.stop()
    here = stack.services.current_pin().fingerprint.collection
    width = (await stack.services.embedder.query("alpha", stack.services.current_pin())).shape[0]
    making = await stack.add(text("bravo"))

    async def put(document_id: str, generation: int) -> list[str]:
        rows = [
            ChunkRow(
                chunk_id(document_id, generation, i),
                document_id,
                generation,
                "",
                Chunk(i, f"left over {i}", 1, 0, 1),
                "x.txt",
            )
            for i in range(3)
        ]
        await vectors.upsert(here, rows, np.eye(3, width, dtype=np.float32))
        return [row.id for row in rows]

    kept = await put(making, 1)
    stray = await put("nobody", 1) + await put(shown, 9)
    audit = VectorAudit(ledger, vectors, foreign_s=0.0, walk_every_s=0.0)
    await audit.check()

    async def left() -> list[Any]:
        await audit.walk()
        return await vectors.missing(here, stray)

    await until("strays are gone", left, lambda gone: set(gone) == set(stray))
    assert await vectors.missing(here, kept) == []
    document = await ledger.get(shown)
    assert document is not None
    wanted = chunk_ids(shown, 1, document.chunks)
    assert await vectors.missing(here, wanted) == []
