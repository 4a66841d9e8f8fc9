"""The reconciler's audits and clean-ups against the shipped doubles and a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
import redis

from tests.fixtures.ledger import PIN, accepted
from unjam.core.chunk import Chunk, chunk_id
from unjam.core.document import Ticket
from unjam.core.ports import ChunkRow, Cleanup, Ledger, Queue
from unjam.queue.memory import MemoryQueue
from unjam.queue.rq_queue import RqQueue
from unjam.stores.ledger import SqlLedger
from unjam.stores.memory import memory_ledger
from unjam.stores.memory_vectors import MemoryVectors
from unjam.watchdog import reconcile
from unjam.watchdog.reconcile import CLEANUP_BLOCK, Reconciler


def reconciler(ledger: Ledger, queue: Queue, vectors: MemoryVectors | None = None) -> Reconciler:
    nothing = cast(Any, None)
    return Reconciler(
        ledger=ledger,
        queue=queue,
        vectors=vectors or MemoryVectors(),
        blobs=nothing,
        embedder=nothing,
        current_pin=lambda: PIN,
        is_alive=lambda _: True,
    )


@pytest.fixture
async def book() -> AsyncIterator[SqlLedger]:
    ledger = await memory_ledger()
    yield ledger
    await ledger.close()


async def waiting(ledger: Ledger, queue: Queue, n: int) -> list[Ticket]:
    tickets = [await accepted(ledger, k) for k in range(1, n + 1)]
    await queue.push(tickets)
    await ledger.mark_pushed(tickets)
    return tickets


async def in_lanes(ledger: Ledger, queue: Queue) -> list[bool]:
    """Of each queued document, whether a lane holds it."""
    return list(await queue.present(await ledger.queued_slice("", 1000)))


class LosesWhileAudited(MemoryQueue):
    """All data is lost while the fifth slice is looked at, when four were found in place."""

    looks = 0

    async def present(self, tickets: Sequence[Ticket]) -> list[bool]:
        self.looks += 1
        if self.looks == 5:
            self.lose_everything()
        return await super().present(tickets)


async def test_data_lost_during_the_audit_is_found_by_the_next(
    book: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "SLICE", 2)
    queue = LosesWhileAudited()
    await waiting(book, queue, 12)
    keeper = reconciler(book, queue)
    await keeper.audit_a_slice()
    assert queue.looks > 5
    await keeper.audit_a_slice()
    assert await in_lanes(book, queue) == [True] * 12


async def test_a_redis_that_restarted_with_older_data_is_audited_whole(
    book: SqlLedger, redis_url: str, valkey_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "SLICE", 2)
    queue = RqQueue(redis_url)
    keeper = reconciler(book, queue)
    try:
        await keeper.audit_a_slice()
        await waiting(book, queue, 10)
        assert await queue.epoch() > 0
        # Its epoch survived, its lanes did not: as after a restart from an older copy.
        with redis.Redis.from_url(valkey_server.admin_url) as admin:
            kept = {k: admin.get(k) for k in admin.keys("rag:epoch*")}  # type: ignore[union-attr]
            admin.flushall()
            admin.mset({**kept, "rag:epoch:whole": "1 anotherrun 0"})  # type: ignore[dict-item]
        assert await queue.epoch() < 0
        await keeper.audit_a_slice()
        assert await in_lanes(book, queue) == [True] * 10
        assert await queue.epoch() > 0
    finally:
        await queue.close()


@pytest.mark.parametrize("hole", [0, 1, 3])
async def test_an_abandoned_generation_goes_though_its_first_windows_never_came(
    book: SqlLedger, hole: int
) -> None:
    vectors = MemoryVectors()
    first = hole * CLEANUP_BLOCK
    rows = [
        ChunkRow(chunk_id("d", 1, i), "d", 1, "", Chunk(i, f"text {i}", 1, 0, 1), "f")
        for i in range(first, first + 300)
    ]
    await vectors.upsert("c", rows, np.eye(300, 8, dtype=np.float32))
    keeper = reconciler(book, MemoryQueue(), vectors)
    await keeper._clean(Cleanup(1, "d", 1, "c", 0, -1, 0.0))
    assert len(await vectors.missing("c", [r.id for r in rows])) == 300
