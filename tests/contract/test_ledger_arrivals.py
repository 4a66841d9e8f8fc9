"""Arrivals by minute, on both kinds of ledger; ids bound the search, times decide."""

from __future__ import annotations

import time

import sqlalchemy as sa

from tests.fixtures.ledger import accepted
from unjam.stores import schema
from unjam.stores.ledger import SqlLedger
from unjam.stores.ledger.arrivals import _lowest

MINUTE = 29_000_000


def arrive(ledger: SqlLedger, at: float, began: float | None = None) -> None:
    """An acceptance *at* Unix seconds of an upload that *began* then."""
    ids = f"{_lowest(at if began is None else began)}-7abc-8000-{time.monotonic_ns() % 16**12:012x}"
    with ledger._dialect.writer().begin() as conn:
        conn.execute(sa.insert(schema.acceptances).values(document_id=ids, at=at))


async def test_acceptances_are_counted_in_their_minute(ledger: SqlLedger) -> None:
    for second in (0.0, 0.5, 59.999, 60.0, 150.0):
        arrive(ledger, MINUTE * 60 + second)
    assert await ledger.arrivals(MINUTE, MINUTE + 3) == {MINUTE: 3, MINUTE + 1: 1, MINUTE + 2: 1}
    assert await ledger.arrivals(MINUTE + 1, MINUTE + 2) == {MINUTE + 1: 1}
    assert await ledger.arrivals(MINUTE + 3, MINUTE + 60) == {}


async def test_an_upload_counts_when_it_ends(ledger: SqlLedger) -> None:
    """Half an hour of upload: its id is older than the minute that it belongs to."""
    arrive(ledger, MINUTE * 60 + 5, began=MINUTE * 60 - 1800)
    assert await ledger.arrivals(MINUTE, MINUTE + 1) == {MINUTE: 1}
    assert await ledger.arrivals(MINUTE - 31, MINUTE - 1) == {}


async def test_real_uploads_are_seen(ledger: SqlLedger) -> None:
    now = int(time.time() // 60)
    for n in range(1, 4):
        await accepted(ledger, n)
    found = await ledger.arrivals(now - 1, now + 2)
    assert sum(found.values()) == 3
