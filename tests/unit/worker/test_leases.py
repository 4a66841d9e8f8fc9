"""The lease keeper's thread: it survives its own faults, and forgets what was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from tests.fixtures.ledger import WORKER, accepted, claimed
from unjam.core.ports import Progress, WorkerRef
from unjam.pipeline.run import Attempt
from unjam.stores.ledger import SqlLedger
from unjam.stores.memory import memory_ledger
from unjam.testing.wait import until
from unjam.worker import leases
from unjam.worker.leases import LeaseKeeper


@pytest.fixture
async def book(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqlLedger]:
    monkeypatch.setattr(leases, "RENEW_S", 0.1)
    ledger = await memory_ledger()
    yield ledger
    await ledger.close()


class Renewals:
    """The ledger's ``renew``, of which the second one fails in a way that nobody foresaw."""

    def __init__(self, ledger: SqlLedger) -> None:
        self._ledger = ledger
        self.asked: list[set[str]] = []

    def renew(
        self,
        worker: WorkerRef,
        tokens: Mapping[str, int],
        progress: Sequence[Progress],
        rss_bytes: int = 0,
    ) -> set[str]:
        self.asked.append(set(tokens))
        if len(self.asked) == 2:
            raise RuntimeError("nobody foresaw this")
        return self._ledger.renew(worker, tokens, progress, rss_bytes)


async def test_a_fault_does_not_end_the_leases_of_the_process(book: SqlLedger) -> None:
    claim = await claimed(book, await accepted(book, 1))
    renewals = Renewals(book)
    keeper = LeaseKeeper(renewals, WORKER, lambda _: None)  # type: ignore[arg-type]
    keeper.hold(Attempt(claim))
    keeper.start()

    async def asked() -> int:
        return len(renewals.asked)

    try:
        await until("renewals after the fault", asked, lambda n: n >= 4, deadline_s=10.0)
    finally:
        await keeper.stop()
    assert renewals.asked[-1] == {claim.document_id}


async def test_what_was_lost_is_told_once_and_renewed_no_more(book: SqlLedger) -> None:
    claim = await claimed(book, await accepted(book, 1))
    kept = await claimed(book, await accepted(book, 2))
    renewals = Renewals(book)
    told: list[str] = []
    keeper = LeaseKeeper(renewals, WORKER, told.append)  # type: ignore[arg-type]
    for one in (claim, kept):
        keeper.hold(Attempt(one))
    await book.cancel(claim.document_id)
    keeper.start()

    async def asked() -> int:
        return len(renewals.asked)

    try:
        await until("five renewals", asked, lambda n: n >= 5, deadline_s=10.0)
    finally:
        await keeper.stop()
    await asyncio.sleep(0)
    assert told == [claim.document_id]
    assert renewals.asked[-1] == {kept.document_id}
