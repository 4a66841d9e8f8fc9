"""People's wishes and the reconciler's questions."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.fixtures.ledger import PIN, WORKER, accepted, claimed, searchable, submission
from unjam.core.document import Fingerprint, Pin, State, Ticket
from unjam.core.errors import Conflict, NotFound, UsageError
from unjam.core.events import EventKind
from unjam.core.lease import CLEANUP_AGAIN_S
from unjam.core.outcome import Dead, Done, Snooze
from unjam.core.ports import Equation
from unjam.stores.ledger import SqlLedger
from unjam.stores.memory import memory_ledger

NEW_PIN = Pin(Fingerprint("local", "other-model"), 256, 32, "local")


async def test_list_pages_newest_first(ledger: SqlLedger) -> None:
    await ledger.accept([submission(n, user="ann" if n % 2 else "bob") for n in range(1, 11)])
    await ledger.cancel("d00000003")
    await ledger.delete("d00000005")

    async def walk(**filters: object) -> list[int]:
        found: list[int] = []
        cursor = None
        while True:
            page = await ledger.list(cursor=cursor, limit=2, **filters)  # type: ignore[arg-type]
            assert len(page.items) <= 2
            found += [int(d.id[1:]) for d in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found

    assert await walk() == [10, 9, 8, 7, 6, 4, 3, 2, 1]
    assert await walk(user_id="ann") == [9, 7, 3, 1]
    assert await walk(state=State.RECEIVED) == [10, 9, 8, 7, 6, 4, 2, 1]
    assert await walk(state=State.RECEIVED, user_id="ann") == [9, 7, 1]
    assert await walk(state=State.DELETED) == [5]
    assert await walk(user_id="nobody") == []


async def test_the_equation_counts_every_state(ledger: SqlLedger) -> None:
    await ledger.accept([submission(n) for n in range(1, 10)])
    tickets = {int(t.document_id[1:]): t for t in await ledger.pushable(10)}
    claims = {n: await claimed(ledger, tickets[n]) for n in range(1, 6)}
    await ledger.settle(claims[1], Done(3))
    await ledger.settle(claims[2], Snooze("queue_down", "", 60))
    await ledger.settle(claims[3], Dead("empty", ""))
    await ledger.mark_pushed([tickets[6]])
    await ledger.cancel(tickets[7].document_id)
    await ledger.delete(tickets[8].document_id)
    assert await ledger.equation() == Equation(
        accepted=9,
        searchable=1,
        running=2,
        queued=2,
        waiting=1,
        dead=1,
        cancelled=1,
        deleted=1,
        missing=0,
    )
    counts = await ledger.state_counts()
    assert set(counts) == set(State)
    assert (counts[State.RECEIVED], counts[State.QUEUED], counts[State.PARSING]) == (1, 1, 2)
    await ledger.note_missing(1)
    equation = await ledger.equation()
    assert (equation.searchable, equation.missing) == (0, 1)


async def test_a_lost_row_is_missing(ledger: SqlLedger) -> None:
    import sqlalchemy as sa

    await accepted(ledger, 1)
    for table in ("generations", "documents"):
        column = "id" if table == "documents" else "document_id"
        await ledger._committer.submit(
            lambda tx, t=table, c=column: (
                tx.execute(sa.text(f"DELETE FROM {t} WHERE {c} = 'd00000001'")) and None
            )
        )
    equation = await ledger.equation()
    assert (equation.accepted, equation.queued, equation.missing) == (1, 0, 1)


async def test_the_outbox(ledger: SqlLedger) -> None:
    await ledger.accept([submission(n) for n in range(1, 6)])
    tickets = await ledger.pushable(3)
    assert [t.document_id for t in tickets] == ["d00000001", "d00000002", "d00000003"]
    assert tickets[0] == Ticket("d00000001", 1, "rag_processing", 101)
    stale = replace(tickets[1], enqueue_seq=9)
    await ledger.mark_pushed([tickets[0], stale, Ticket("nobody", 1)])
    await ledger.mark_pushed([tickets[0]])  # twice is once
    assert [t.document_id for t in await ledger.pushable(2)] == ["d00000002", "d00000003"]
    assert await ledger.queued_slice("", 10) == [tickets[0]]
    assert await ledger.queued_slice("d00000001", 10) == []
    kinds = [e.kind for e in await ledger.events("d00000001")]
    assert kinds == [EventKind.ACCEPTED, EventKind.QUEUED]
    (again,) = await ledger.requeue([tickets[0], tickets[2]], "orphan")
    assert again.enqueue_seq == 2
    assert again in await ledger.pushable(10)


async def test_cancel(ledger: SqlLedger) -> None:
    ticket = await accepted(ledger, 1)
    assert (await ledger.cancel(ticket.document_id)).reason == "cancelled_by_user"
    assert (await ledger.cancel(ticket.document_id)).state is State.CANCELLED
    assert not await ledger.pushable(10)
    document_id = await searchable(ledger, 2)
    with pytest.raises(Conflict):
        await ledger.cancel(document_id)
    with pytest.raises(NotFound):
        await ledger.cancel("nobody")


async def test_cancelling_an_update_leaves_the_old_one_visible(ledger: SqlLedger) -> None:
    document_id = await searchable(ledger, 1)
    await ledger.replace(document_id, submission(2))
    await ledger.cancel(document_id)
    assert (await ledger.visible([document_id]))[document_id].generation == 1
    assert (await ledger.equation()).cancelled == 1


async def test_retry(ledger: SqlLedger) -> None:
    claim = await claimed(ledger, await accepted(ledger, 1))
    with pytest.raises(Conflict):
        await ledger.retry(claim.document_id)
    await ledger.settle(claim, Dead("corrupt", "bad"))
    ticket = await ledger.retry(claim.document_id)
    document = await ledger.get(claim.document_id)
    assert document is not None
    assert (document.state, document.generation, document.errors) == (State.RECEIVED, 2, 0)
    assert (await claimed(ledger, ticket)).pin == PIN
    await ledger.cancel(claim.document_id)
    ticket = await ledger.retry(claim.document_id, NEW_PIN)
    again = await claimed(ledger, ticket)
    assert (again.generation, again.pin) == (3, NEW_PIN)
    with pytest.raises(NotFound):
        await ledger.retry("nobody")


async def test_delete_schedules_everything_for_removal(ledger: SqlLedger) -> None:
    document_id = await searchable(ledger, 1, chunks=7)
    await ledger.replace(document_id, submission(2))
    (ticket,) = await ledger.pushable(10)
    await claimed(ledger, ticket)  # the second generation is being stored
    await ledger.delete(document_id)
    await ledger.delete(document_id)
    cleanups = await ledger.due_cleanups()
    assert sorted((c.generation, c.first, c.last) for c in cleanups) == [(1, 0, 7), (2, 0, -1)]
    assert {c.collection for c in cleanups} == {PIN.fingerprint.collection}
    await ledger.finish_cleanups([c.id for c in cleanups])
    assert await ledger.due_cleanups() == []
    assert sorted(await ledger.unreferenced_blobs(-1)) == [f"{1:064x}", f"{2:064x}"]
    assert await ledger.visible([document_id]) == {}
    tombstone = await ledger.get(document_id)
    assert tombstone is not None
    assert (tombstone.state, tombstone.filename, tombstone.names) == (State.DELETED, "", ())
    with pytest.raises(NotFound):
        await ledger.delete("nobody")
    for verb in (ledger.cancel, ledger.retry):
        with pytest.raises(NotFound):
            await verb(document_id)


async def test_cleanups_come_twice(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    document_id = await searchable(ledger, 1)
    await ledger.delete(document_id)
    (first,) = await ledger.due_cleanups()
    await ledger.finish_cleanups([first.id])
    assert await ledger.due_cleanups() == []
    clock = ledger._dialect.clock
    monkeypatch.setattr(
        ledger._dialect,
        "clock",
        lambda conn: tuple(t + CLEANUP_AGAIN_S + 1 for t in clock(conn)),
    )
    (second,) = await ledger.due_cleanups()
    assert replace(second, id=first.id, due_at=first.due_at) == first


async def test_blobs_go_only_while_unreferenced(ledger: SqlLedger) -> None:
    content = f"{1:064x}"
    await ledger.delete(await searchable(ledger, 1))
    assert await ledger.unreferenced_blobs(3600) == []
    assert await ledger.unreferenced_blobs(-1) == [content]
    await ledger.accept([submission(2, content=1)])  # an upload links it again
    assert await ledger.unreferenced_blobs(-1) == []
    assert await ledger.forget_blob(content) is False
    await ledger.delete("d00000002")
    assert await ledger.forget_blob(content) is True
    assert await ledger.forget_blob(content) is False
    assert await ledger.unreferenced_blobs(-1) == []


async def test_two_last_references_dropped_at_once(ledger: SqlLedger, ledger_url: str) -> None:
    second = await SqlLedger.open(ledger_url, durable=False)
    try:
        for n in range(1, 9):
            one = await accepted(ledger, n, user="ann", content=n)
            two = await accepted(ledger, 100 + n, user="bob", content=n)
            await asyncio.gather(ledger.delete(one.document_id), second.delete(two.document_id))
        assert len(await ledger.unreferenced_blobs(-1)) == 8
    finally:
        await second.close()


async def test_a_new_model_builds_beside(ledger: SqlLedger) -> None:
    ids = [await searchable(ledger, n) for n in range(1, 6)]
    assert await ledger.pins_in_use() == [PIN]
    assert await ledger.repin(PIN, 10) == []
    await ledger.accept([submission(9, pin=NEW_PIN)])
    first = await ledger.repin(NEW_PIN, 2)
    assert len(first) == 2
    assert len(await ledger.repin(NEW_PIN, 10)) == 3
    assert await ledger.repin(NEW_PIN, 10) == []
    assert {v.generation for v in (await ledger.visible(ids)).values()} == {1}
    assert (await ledger.equation()).searchable == 5
    claim = await claimed(ledger, first[0])
    assert (claim.pin, claim.generation) == (NEW_PIN, 2)
    await ledger.settle(claim, Done(3))
    assert sorted(p.id for p in await ledger.pins_in_use()) == sorted([PIN.id, NEW_PIN.id])
    (cleanup,) = await ledger.due_cleanups()
    assert cleanup.collection == PIN.fingerprint.collection


async def test_events_are_tailed_without_a_gap(ledger: SqlLedger, ledger_url: str) -> None:
    """While two processes write, a reader who remembers the last number misses nothing."""
    second = await SqlLedger.open(ledger_url, durable=False)
    seen: list[int] = []
    done = asyncio.Event()

    async def tail() -> None:
        while True:
            last = done.is_set()
            batch = await ledger.events(None, after=seen[-1] if seen else 0)
            seen.extend(e.seq for e in batch)
            if last and not batch:
                return

    async def write(via: SqlLedger, base: int) -> None:
        for n in range(base, base + 40):
            await via.accept([submission(n)])

    tailing = asyncio.create_task(tail())
    await asyncio.gather(*(write((ledger, second)[k % 2], 1 + 1000 * k) for k in range(4)))
    done.set()
    await tailing
    await second.close()
    assert seen == [e.seq for e in await ledger.events(None, limit=1000)]
    assert len(seen) == 160
    assert await ledger.last_event() == seen[-1]


async def test_one_leader(ledger: SqlLedger) -> None:
    assert await ledger.lead("reconciler", "a", 60)
    assert not await ledger.lead("reconciler", "b", 60)
    assert await ledger.lead("reconciler", "a", -1)
    assert await ledger.lead("reconciler", "b", 60)
    assert await ledger.lead("watchdog", "a", 60)


async def test_knobs_are_bounded_and_audited(ledger: SqlLedger) -> None:
    assert await ledger.knobs() == {}
    await ledger.set_knob("RAG_EMBEDDING_BATCH_SIZE", 16, "ann")
    await ledger.set_knob("RAG_EMBEDDING_BATCH_SIZE", 8, "bob")
    assert await ledger.knobs() == {"RAG_EMBEDDING_BATCH_SIZE": 8}
    for name, value in (("RAG_EMBEDDING_BATCH_SIZE", 0), ("PATH", 1)):
        with pytest.raises(UsageError):
            await ledger.set_knob(name, value, "eve")
    newest, _ = await ledger.audit()
    assert (newest["by"], newest["data"]["before"], newest["data"]["value"]) == ("bob", 16, 8)


async def test_the_epoch_grows(ledger: SqlLedger) -> None:
    assert await ledger.bump_epoch() == 0
    assert await ledger.bump_epoch(0) == 1
    assert await ledger.bump_epoch(7) == 8
    assert await ledger.bump_epoch(2) == 9
    assert await ledger.bump_epoch() == 9


async def test_names_of_users_in_any_script(ledger: SqlLedger) -> None:
    name = "보고서 \U0001f4c4 'quoted'; DROP TABLE documents.txt"
    await ledger.accept([submission(1, user="사용자", filename=name)])
    document = await ledger.get("d00000001")
    assert document is not None
    assert (document.user_id, document.filename) == ("사용자", name)


async def test_several_event_loops_share_one_ledger(ledger: SqlLedger) -> None:
    def elsewhere(base: int) -> int:
        async def run() -> int:
            answers = await asyncio.gather(
                *(ledger.accept([submission(base + n)]) for n in range(20))
            )
            return len(answers)

        return asyncio.run(run())

    counts = await asyncio.gather(*(asyncio.to_thread(elsewhere, 100 * k) for k in range(1, 4)))
    assert sum(counts) == 60
    assert (await ledger.equation()).accepted == 60


async def test_the_double_forgets() -> None:
    double = await memory_ledger()
    await searchable(double, 1)
    assert ((await double.equation()).searchable, await double.knobs()) == (1, {})
    assert double.renew(WORKER, {}, []) == set()
    await double.close()
    again = await memory_ledger()
    assert (await again.equation()).accepted == 0
    assert again.id != double.id
    await again.close()
