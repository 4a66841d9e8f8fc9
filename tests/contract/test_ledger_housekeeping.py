"""Figures, lines, what is forgotten, bookmarks, stray blobs, and starting over after a restore."""

from __future__ import annotations

import time
from typing import Any

import pytest
import sqlalchemy as sa

from tests.fixtures.ledger import PIN, accepted, claimed, searchable, submission
from unjam.core.document import State, Ticket
from unjam.core.events import EventKind
from unjam.core.outcome import Dead, Done
from unjam.core.ports import Completed
from unjam.stores import schema
from unjam.stores.ledger import SqlLedger, opening, trim
from unjam.stores.ledger.dialect import dialect_of

DAY_S = 86_400


def write(ledger: SqlLedger, *statements: sa.Executable) -> None:
    with ledger._dialect.writer().begin() as conn:
        for statement in statements:
            conn.execute(statement)


def read(ledger: SqlLedger, statement: sa.Executable) -> list[tuple[Any, ...]]:
    with ledger._reader.connect() as conn:
        return [tuple(row) for row in conn.execute(statement)]


# -- figures --------------------------------------------------------------------------------
async def test_completions_are_counted_by_minute_and_lane(ledger: SqlLedger) -> None:
    first = int(time.time() // 60)
    await searchable(ledger, 1)
    await searchable(ledger, 2)
    await searchable(ledger, 3, lane="rag_pdf")
    dead = await claimed(ledger, await accepted(ledger, 4))
    await ledger.settle(dead, Dead("empty", ""))
    end = int(time.time() // 60) + 1
    found = await ledger.completions(first, end)
    jobs: dict[str, int] = {}
    for row in found:
        assert first <= row.minute < end and row.duration_s >= 0
        jobs[row.queue] = jobs.get(row.queue, 0) + row.jobs
    assert jobs == {"rag_processing": 2, "rag_pdf": 1}
    assert await ledger.completions(end, end + 60) == []
    assert (await ledger.counters())["jobs_completed", "rag_processing"] == 2


async def test_a_document_stands_in_line_since_it_was_received(ledger: SqlLedger) -> None:
    ticket = await accepted(ledger, 1)
    await accepted(ledger, 2, lane="rag_pdf")
    before = await ledger.in_line_since(["rag_processing", "rag_pdf", "rag_low"])
    assert set(before) == {"rag_processing", "rag_pdf"}
    await ledger.mark_pushed([ticket])
    (again,) = await ledger.requeue([Ticket("d00000001", 1, "rag_processing")], "absent")
    await ledger.mark_pushed([again])
    assert await ledger.in_line_since(["rag_processing"]) == {
        "rag_processing": before["rag_processing"]
    }
    await claimed(ledger, again)
    assert await ledger.in_line_since(["rag_processing"]) == {}


async def test_an_older_ledgers_completions_come_out_of_its_events(ledger_url: str) -> None:
    def fill(conn: sa.Connection) -> None:
        opening.upgrade(conn, "0004")
        conn.execute(sa.insert(schema.meta), {"key": "ledger_id", "value": "old-ledger"})
        document = sa.insert(schema.documents).values(
            id="d1", user_id="", filename="a", media_type="", size_bytes=1, content_hash="0",
            pin_id="p", home_lane="rag_pdf", created_at=1.0, state="searchable", lane="rag_pdf",
            updated_at=1.0,
        )  # fmt: skip
        conn.execute(document)
        rows = [
            {"document_id": "d1", "generation": 1, "at": 6000.0 + n, "kind": kind, "data": data}
            for n, (kind, data) in enumerate(
                [
                    ("searchable", '{"duration_s": 1.5}'),
                    ("searchable", '{"chunks": 3}'),
                    ("dead", "{}"),
                ]
            )
        ]
        conn.execute(sa.insert(schema.events), rows)

    engine = dialect_of(ledger_url).writer()
    with engine.begin() as conn:
        fill(conn)
    engine.dispose()
    opened = await SqlLedger.open(ledger_url)
    try:
        assert await opened.completions(0, 1000) == [Completed(100, "rag_pdf", 2, 1.5)]
    finally:
        await opened.close()


# -- forgetting -----------------------------------------------------------------------------
async def test_old_events_are_forgotten_in_slices_and_their_number_is_kept(
    ledger: SqlLedger,
) -> None:
    for n in range(1, 5):
        await searchable(ledger, n)
    everything = await ledger.events(None, limit=1000)
    then = time.time() - 31 * DAY_S
    table = schema.events
    old = sa.update(table).where(table.c.document_id != "d00000004").values(at=then)
    write(ledger, old)
    mine = [e for e in everything if e.document_id == "d00000004"]
    rounds = 0
    while await ledger.trim(5) == 5:
        rounds += 1
    assert rounds == (len(everything) - len(mine)) // 5
    assert await ledger.events(None, limit=1000) == mine
    kept = read(ledger, sa.select(schema.event_days.c.kind, schema.event_days.c.n))
    assert dict(kept) == {"accepted": 3, "claimed": 3, "searchable": 3}
    assert (await ledger.equation()).accepted == 4  # acceptances are no events
    await searchable(ledger, 5)
    assert (await ledger.events("d00000005"))[0].seq > everything[-1].seq


async def test_a_younger_event_in_between_holds_the_later_ones(ledger: SqlLedger) -> None:
    """Numbers are forgotten in order, so that whoever reads behind a number misses none."""
    await accepted(ledger, 1)
    await accepted(ledger, 2)
    table = schema.events
    stale = sa.update(table).where(table.c.document_id == "d00000002")
    write(ledger, stale.values(at=time.time() - 31 * DAY_S))
    assert await ledger.trim() == 0
    assert len(await ledger.events(None)) == 2


async def test_idempotency_keys_last_a_week(ledger: SqlLedger) -> None:
    await ledger.accept([submission(1, idempotency_key="old")])
    await ledger.accept([submission(2, idempotency_key="new")])
    table = schema.idempotency
    eight_days = time.time() - 8 * DAY_S
    write(ledger, sa.update(table).where(table.c.key == "old").values(at=eight_days))
    await ledger.trim()
    assert await ledger.find_idempotent("ann", "old") is None
    assert await ledger.find_idempotent("ann", "new") is not None


async def test_old_minutes_are_folded_and_the_sum_stays(ledger: SqlLedger) -> None:
    now = int(time.time() // 60)
    start = (now - trim.MINUTES_KEPT) // 15 * 15 - 30
    rows = [
        {"minute": start + i, "queue": "rag_processing", "jobs": 1, "duration_s": 0.5}
        for i in range(30)
    ]
    ancient = {**rows[0], "minute": now - trim.QUARTERS_KEPT - 1}
    young = {**rows[0], "minute": now - 61}
    write(ledger, sa.insert(schema.completions).values([*rows, ancient, young]))
    while await ledger.trim(7) == 7:
        pass
    found = await ledger.completions(0, now + 1)
    assert [(c.minute, c.jobs, c.duration_s) for c in found] == [
        (start, 15, 7.5),
        (start + 15, 15, 7.5),
        (now - 61, 1, 0.5),
    ]


# -- blobs, bookmarks -----------------------------------------------------------------------
async def test_stray_blobs_become_unreferenced_and_known_ones_stay(ledger: SqlLedger) -> None:
    await accepted(ledger, 1)
    known, stray = f"{1:064x}", "ab" * 32
    assert await ledger.adopt_blobs({known: 101, stray: 7}) == 1
    assert await ledger.adopt_blobs({known: 101, stray: 7}) == 0
    assert await ledger.unreferenced_blobs(0.0) == [stray]
    assert not await ledger.forget_blob(known)
    assert await ledger.forget_blob(stray)


async def test_an_upload_of_an_adopted_blob_links_it_again(ledger: SqlLedger) -> None:
    stray = f"{2:064x}"
    await ledger.adopt_blobs({stray: 7})
    await accepted(ledger, 2)
    assert await ledger.unreferenced_blobs(0.0) == []
    assert not await ledger.forget_blob(stray)


async def test_bookmarks(ledger: SqlLedger) -> None:
    assert await ledger.bookmark("webhook") is None
    await ledger.set_bookmark("webhook", 7)
    await ledger.set_bookmark("slack", 9)
    assert (await ledger.bookmark("webhook"), await ledger.bookmark("slack")) == (7, 9)


# -- after a restore ------------------------------------------------------------------------
@pytest.mark.parametrize("clean", [False, True])
async def test_after_a_restore_documents_start_over(ledger: SqlLedger, clean: bool) -> None:
    await searchable(ledger, 1)  # shown
    await searchable(ledger, 2)
    await ledger.replace("d00000002", submission(2, content=22))  # shown, an update waits …
    claim = await claimed(ledger, Ticket("d00000002", 2, "rag_processing"))
    await ledger.settle(claim, Dead("encrypted", ""))  # … and died
    dead = await claimed(ledger, await accepted(ledger, 3))
    await ledger.settle(dead, Dead("empty", ""))
    await accepted(ledger, 4)
    await ledger.cancel((await accepted(ledger, 5)).document_id)
    await ledger.delete(await searchable(ledger, 6))
    await claimed(ledger, await accepted(ledger, 7))
    owed = len(await ledger.due_cleanups())

    begun, after, rounds = 0, "", 0
    while True:
        n, next_ = await ledger.rebuild(after, 2, clean=clean)
        begun, rounds = begun + n, rounds + 1
        if next_ is None:
            break
        after = next_
    assert (begun, rounds) == (4, 4)
    equation = await ledger.equation()
    assert (equation.queued, equation.dead, equation.cancelled, equation.deleted) == (4, 1, 1, 1)
    assert equation.missing == equation.searchable == equation.running == 0
    assert await ledger.visible(["d00000001", "d00000002"]) == {}
    assert (len(await ledger.due_cleanups()) > owed) == clean
    reborn = await ledger.get("d00000002")
    assert reborn is not None and reborn.state is State.RECEIVED
    assert reborn.content_hash == f"{2:064x}" and reborn.generation > 1000  # what was shown
    assert await ledger.unreferenced_blobs(0.0) == [f"{6:064x}", f"{22:064x}"]
    for ticket in await ledger.pushable(10):
        claim = await claimed(ledger, ticket)
        assert claim.pin == PIN and (await ledger.settle(claim, Done(3))).moved
    assert (await ledger.equation()).searchable == 4
    last = (await ledger.events("d00000001"))[-1]
    assert last.kind is EventKind.SEARCHABLE
