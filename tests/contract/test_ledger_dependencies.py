"""Circuit breakers in the ledger: one row for all processes, and whom its closing wakes."""

from __future__ import annotations

import asyncio
import time

import sqlalchemy as sa

from tests.fixtures.ledger import WORKER, accepted, claimed, submission
from unjam.core import breaker
from unjam.core.document import State
from unjam.core.lease import LEASE_S
from unjam.core.outcome import Snooze
from unjam.stores import schema
from unjam.stores.ledger import SqlLedger, backlog
from unjam.stores.ledger.tx import Tx
from unjam.testing.wait import until


async def test_closed_until_somebody_reports(ledger: SqlLedger) -> None:
    assert await ledger.dependency_states() == {}
    assert not await ledger.probe_dependency("chroma")
    opened = await ledger.report_dependency("chroma", "vector_store_down", "refused")
    assert opened == (await ledger.dependency_states())["chroma"]
    assert (opened.state, opened.reason, opened.detail) == ("open", "vector_store_down", "refused")
    assert opened.until is not None and time.time() < opened.until + 1.0
    # reported by many, opened once
    again = await asyncio.gather(
        *(ledger.report_dependency("chroma", "vector_store_down", str(n)) for n in range(20))
    )
    assert again == [opened] * 20


async def test_one_probe_at_a_time(ledger: SqlLedger) -> None:
    await ledger.report_dependency("redis", "queue_down", "away")

    async def contend() -> int:
        return sum(await asyncio.gather(*(ledger.probe_dependency("redis") for _ in range(8))))

    assert await until("a probe", contend) == 1
    assert (await ledger.dependency_states())["redis"].state == "half_open"
    failed = await ledger.report_dependency("redis", "queue_down", "still away")
    assert (failed.state, failed.detail) == ("open", "still away")


async def test_what_it_was_told_is_kept(ledger: SqlLedger) -> None:
    now = await ledger.report_dependency("embedding", "embedding_throttled", "429", 40.0)
    assert now.until is not None
    assert 35.0 < now.until - time.time() < 45.0
    assert not await ledger.probe_dependency("embedding")


async def test_closing_wakes_who_waits_for_it_and_nobody_else(ledger: SqlLedger) -> None:
    for n, reason in enumerate(["vector_store_down"] * 5 + ["embedding_down"], 1):
        claim = await claimed(ledger, await accepted(ledger, n))
        await ledger.settle(claim, Snooze(reason, "away", 300.0))
    await ledger.report_dependency("chroma", "vector_store_down")
    assert await ledger.wake() == []
    assert await ledger.close_dependency("chroma") == 5
    assert not (await ledger.dependency_states())["chroma"].holds
    woken: list[str] = []

    async def wake() -> list[str]:
        woken.extend(t.document_id for t in await ledger.wake())
        return woken

    await until("the five", wake, lambda ids: len(ids) == 5, deadline_s=5.0)
    assert sorted(woken) == [f"d{n:08d}" for n in range(1, 6)]
    other = await ledger.get("d00000006")
    assert other is not None and other.state is State.WAITING and other.errors == 0
    assert await ledger.close_dependency("chroma") == 0


async def test_one_that_closes_and_opens_again_is_remembered(ledger: SqlLedger) -> None:
    await ledger.report_dependency("chroma", "vector_store_down")
    await ledger.close_dependency("chroma")
    again = await ledger.report_dependency("chroma", "vector_store_down")
    assert again.failures == 2
    assert (again.until or 0.0) - again.changed_at > breaker.FIRST_PROBE_S


async def test_no_lease_is_judged_by_who_comes_after_a_silence(
    ledger: SqlLedger, ledger_url: str
) -> None:
    """A watchdog that starts at the end of an outage has not seen that nobody could renew."""
    await claimed(ledger, await accepted(ledger, 1))
    ledger.renew(WORKER, {}, [])

    def age(tx: Tx) -> None:
        then = tx.lease_now - LEASE_S * 3
        tx.execute(sa.update(schema.documents).values(lease_until=then))
        tx.execute(sa.update(schema.processes).values(seen=then))

    await ledger._committer.submit(age)
    late = await SqlLedger.open(ledger_url, durable=False)
    try:
        assert await late.expire() == []
        # the same, but the worker is known to be dead
        assert [t.document_id for t in await late.expire([WORKER.id])] == ["d00000001"]
    finally:
        await late.close()


async def test_the_backlog_is_what_stands_in_line(ledger: SqlLedger) -> None:
    nothing = await ledger.backlog()
    assert (nothing.documents, nothing.size_bytes, nothing.oldest_s) == (0, 0, 0.0)
    await ledger.accept([submission(n, size_bytes=1000) for n in range(1, 11)])
    (first, *_) = await ledger.pushable(10)
    await claimed(ledger, first)
    await ledger.mark_pushed((await ledger.pushable(10))[:4])

    def age(tx: Tx) -> None:
        of = schema.documents.c.id == "d00000003"
        tx.execute(sa.update(schema.documents).where(of).values(updated_at=tx.now - 500.0))

    await ledger._committer.submit(age)
    line = await ledger.backlog()
    assert (line.documents, line.size_bytes) == (9, 9000)
    assert 500.0 <= line.oldest_s < 510.0


async def test_a_long_backlog_is_estimated(ledger: SqlLedger, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(backlog, "SAMPLE", 10)
    await ledger.accept([submission(n, size_bytes=1000) for n in range(1, 101)])
    line = await ledger.backlog()
    assert (line.documents, line.size_bytes) == (100, 100_000)
