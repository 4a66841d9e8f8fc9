"""The audit of vectors, step by step, against the shipped doubles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
import pytest

from tests.fixtures.ledger import PIN, accepted, claimed, searchable
from unjam.core.chunk import Chunk, chunk_id, chunk_ids
from unjam.core.document import State
from unjam.core.outcome import Done
from unjam.core.ports import ChunkRow
from unjam.stores.ledger import SqlLedger
from unjam.stores.memory import memory_ledger
from unjam.stores.memory_vectors import MemoryVectors
from unjam.watchdog import audit_vectors
from unjam.watchdog.audit_vectors import VectorAudit

HERE = PIN.fingerprint.collection


@pytest.fixture
async def book() -> AsyncIterator[SqlLedger]:
    ledger = await memory_ledger()
    yield ledger
    await ledger.close()


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


async def store(vectors: MemoryVectors, document_id: str, generation: int, count: int) -> None:
    rows = [
        ChunkRow(
            chunk_id(document_id, generation, i),
            document_id,
            generation,
            "",
            Chunk(i, f"text {i}", 1, 0, 1),
            "f",
        )
        for i in range(count)
    ]
    await vectors.upsert(HERE, rows, np.eye(count, 8, dtype=np.float32))


def audit(book: SqlLedger, vectors: MemoryVectors, clock: Clock) -> VectorAudit:
    return VectorAudit(book, vectors, clock, foreign_s=60, walk_every_s=0, count_every_s=0)


async def test_a_missing_chunk_counts_at_once_and_its_document_starts_over(
    book: SqlLedger,
) -> None:
    vectors = MemoryVectors()
    ids = [await searchable(book, n, chunks=3) for n in (1, 2, 3)]
    for document_id in ids:
        await store(vectors, document_id, 1, 3)
    await vectors.delete(HERE, [chunk_id(ids[1], 1, 2)])
    await audit(book, vectors, Clock()).check()
    equation = await book.equation()
    assert (equation.missing, equation.searchable) == (1, 2)
    states = [d.state for d in sorted(await book.get_many(ids), key=lambda d: d.id)]
    assert states == [State.SEARCHABLE, State.RECEIVED, State.SEARCHABLE]
    # The next generation becomes visible: nothing is missing any more.
    (ticket,) = await book.pushable(10)
    claim = await claimed(book, ticket)
    assert claim.pin == PIN
    await store(vectors, ids[1], 2, 3)
    await book.settle(claim, Done(3))
    equation = await book.equation()
    assert (equation.missing, equation.searchable) == (0, 3)


async def test_chunks_that_come_back_by_themselves_are_missing_no_more(book: SqlLedger) -> None:
    vectors = MemoryVectors()
    document_id = await searchable(book, 1, chunks=3)
    keeper = audit(book, vectors, Clock())
    await keeper.check()
    assert (await book.equation()).missing == 1
    await store(vectors, document_id, 1, 3)
    await keeper.check()
    assert (await book.equation()).missing == 0


async def test_a_long_document_is_looked_at_to_its_end_in_bounded_slices(
    book: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_vectors, "SLICE", 10)
    asked: list[int] = []

    class Counting(MemoryVectors):
        async def missing(self, collection, ids):  # type: ignore[no-untyped-def]
            asked.append(len(ids))
            return await super().missing(collection, ids)

    vectors = Counting()
    first = await searchable(book, 1, chunks=34)
    second = await searchable(book, 2, chunks=4)
    await store(vectors, first, 1, 34)
    await store(vectors, second, 1, 4)
    await vectors.delete(HERE, [chunk_id(first, 1, 33)])
    keeper = audit(book, vectors, Clock())
    keeper.count_every_s = float("inf")
    keeper._count_due = float("inf")
    for _ in range(3):
        await keeper.check()
        assert (await book.equation()).missing == 0
    await keeper.check()
    assert (await book.equation()).missing == 1
    assert max(asked) <= 10


async def test_a_collection_made_anew_has_everything_looked_at_at_once(
    book: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_vectors, "DOCUMENTS", 2)
    vectors = MemoryVectors()
    ids = [await searchable(book, n, chunks=2) for n in range(1, 8)]
    for document_id in ids:
        await store(vectors, document_id, 1, 2)
    keeper = audit(book, vectors, Clock())
    await keeper.check()
    assert not keeper.whole
    vectors.drop(HERE)
    await keeper.check()
    assert (await book.equation()).missing == 7
    assert {d.state for d in await book.get_many(ids)} == {State.RECEIVED}


async def test_fewer_rows_than_wanted_start_a_whole_audit_once(
    book: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_vectors, "DOCUMENTS", 1)
    vectors = MemoryVectors()
    ids = [await searchable(book, n, chunks=2) for n in range(1, 9)]
    for document_id in ids:
        await store(vectors, document_id, 1, 2)
    keeper = audit(book, vectors, Clock())
    await keeper.check()
    await vectors.delete(HERE, [chunk_id(ids[7], 1, 0)])  # far behind the next slice
    await keeper.check()
    await keeper.check()
    assert (await book.equation()).missing == 1
    began: list[int] = []
    monkeypatch.setattr(VectorAudit, "ask_for_all", lambda self: began.append(1))
    for _ in range(3):
        await keeper.check()
    assert began == [], "what is on its way back is no news"


async def test_only_what_nobody_needs_goes_and_only_after_a_while(book: SqlLedger) -> None:
    vectors = MemoryVectors()
    clock = Clock()
    shown = await searchable(book, 1, chunks=2)
    await store(vectors, shown, 1, 2)
    making = await claimed(book, await accepted(book, 2))
    await store(vectors, making.document_id, 1, 2)
    await store(vectors, shown, 7, 2)  # a generation that the ledger never gave out
    await store(vectors, "stranger", 1, 2)
    keeper = audit(book, vectors, clock)
    await keeper.check()  # signs the collection as this ledger's
    for _ in range(3):
        await keeper.walk()
    clock.now += 59
    await keeper.walk()
    assert len(await vectors.stored(HERE, 0, 100)) == 8
    clock.now += 2
    await keeper.walk()
    left = {row.id for row in await vectors.stored(HERE, 0, 100)}
    assert left == {*chunk_ids(shown, 1, 2), *chunk_ids(making.document_id, 1, 2)}


async def test_chunks_of_another_ledger_in_the_same_collection_are_left_alone(
    book: SqlLedger,
) -> None:
    vectors = MemoryVectors()
    clock = Clock()
    shown = await searchable(book, 1, chunks=2)
    await store(vectors, shown, 1, 2)
    await store(vectors, "theirs", 1, 2)
    await vectors.sign(HERE, "another-ledger")
    keeper = audit(book, vectors, clock)
    await keeper.check()
    for _ in range(4):
        await keeper.walk()
        clock.now += 61
    assert len(await vectors.stored(HERE, 0, 100)) == 4
