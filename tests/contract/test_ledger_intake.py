"""How documents come in: creation, duplicates, idempotency, replacement."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.fixtures.ledger import PIN, accepted, claimed, searchable, submission
from unjam.core.document import AcceptKind, State
from unjam.core.errors import NotFound
from unjam.core.events import EventKind
from unjam.core.outcome import Dead, Done
from unjam.stores.ledger import SqlLedger

OTHER_PIN = replace(PIN, chunk_tokens=512)


async def test_accept_is_readable_at_once(ledger: SqlLedger) -> None:
    (answer,) = await ledger.accept([submission(1, metadata={"a": "가"})])
    assert answer.kind is AcceptKind.CREATED
    document = await ledger.get(answer.document_id)
    assert document is not None
    assert document.state is State.RECEIVED
    assert document.metadata == {"a": "가"}
    assert document.generation == 1
    assert [t.document_id for t in await ledger.pushable(10)] == [document.id]
    assert [e.kind for e in await ledger.events(document.id)] == [EventKind.ACCEPTED]
    assert await ledger.get("nobody") is None


async def test_same_bytes_twice_in_one_call(ledger: SqlLedger) -> None:
    first, second = await ledger.accept([submission(1), submission(2, content=1)])
    assert (first.kind, second.kind) == (AcceptKind.CREATED, AcceptKind.DUPLICATE)
    assert second.document_id == first.document_id
    document = await ledger.get(first.document_id)
    assert document is not None
    assert document.names == ("file-2.txt",)
    assert await ledger.get("d00000002") is None


async def test_same_bytes_at_the_same_moment(ledger: SqlLedger, ledger_url: str) -> None:
    second = await SqlLedger.open(ledger_url, durable=False)
    try:
        calls = [(ledger, second)[n % 2].accept([submission(n, content=7)]) for n in range(1, 21)]
        answers = [a for (a,) in await asyncio.gather(*calls)]
    finally:
        await second.close()
    assert sorted(a.kind for a in answers) == ["created"] + ["duplicate"] * 19
    assert len({a.document_id for a in answers}) == 1


async def test_users_do_not_share_documents(ledger: SqlLedger) -> None:
    one = await searchable(ledger, 1, user="ann")
    two = await searchable(ledger, 2, user="bob", content=1)
    await ledger.delete(one)
    assert set(await ledger.visible([one, two])) == {two}
    assert await ledger.unreferenced_blobs(-1) == []
    await ledger.delete(two)
    assert await ledger.unreferenced_blobs(-1) == [f"{1:064x}"]


async def test_a_dead_copy_is_revived_in_place(ledger: SqlLedger) -> None:
    claim = await claimed(ledger, await accepted(ledger, 1))
    await ledger.settle(claim, Dead("encrypted", "locked"))
    (answer,) = await ledger.accept([submission(2, content=1, pin=OTHER_PIN)])
    assert answer.kind is AcceptKind.REVIVED
    assert answer.document_id == claim.document_id
    document = await ledger.get(claim.document_id)
    assert document is not None
    assert (document.state, document.generation, document.reason) == (State.RECEIVED, 2, "")
    (ticket,) = await ledger.pushable(10)
    again = await claimed(ledger, ticket)
    assert again.pin == OTHER_PIN


@pytest.mark.parametrize("end", ["cancel", "delete"])
async def test_ended_copies_are_no_duplicates(ledger: SqlLedger, end: str) -> None:
    ticket = await accepted(ledger, 1)
    await getattr(ledger, end)(ticket.document_id)
    assert await ledger.find_live("ann", [f"{1:064x}"]) == {}
    (answer,) = await ledger.accept([submission(2, content=1)])
    assert answer.kind is AcceptKind.CREATED
    assert await ledger.find_live("ann", [f"{1:064x}"]) == {f"{1:064x}": "d00000002"}


async def test_idempotency_key(ledger: SqlLedger) -> None:
    one = submission(1, idempotency_key="k")
    assert (await ledger.accept([one]))[0].kind is AcceptKind.CREATED
    replayed, conflict, other = await ledger.accept(
        [
            replace(one, document_id="d2"),
            submission(3, idempotency_key="k"),
            submission(4, user="bob", idempotency_key="k"),
        ]
    )
    assert (replayed.kind, replayed.document_id) == (AcceptKind.REPLAYED, "d00000001")
    assert (conflict.kind, conflict.document_id) == (AcceptKind.CONFLICT, "d00000001")
    assert other.kind is AcceptKind.CREATED
    assert await ledger.find_idempotent("ann", "k") == ("d00000001", f"{1:064x}")
    assert await ledger.find_idempotent("ann", "unknown") is None
    assert (await ledger.equation()).accepted == 2


async def test_needs_blob_writes_nothing(ledger: SqlLedger) -> None:
    hashed = submission(1, blob_durable=False, idempotency_key="k")
    (answer,) = await ledger.accept([hashed])
    assert answer.kind is AcceptKind.NEEDS_BLOB
    assert await ledger.events(None) == []
    assert await ledger.find_idempotent("ann", "k") is None
    await ledger.accept([submission(1)])
    (answer,) = await ledger.accept([replace(hashed, document_id="d2")])
    assert answer.kind is AcceptKind.DUPLICATE


async def test_replace_keeps_the_old_one_visible(ledger: SqlLedger) -> None:
    document_id = await searchable(ledger, 1)
    answer = await ledger.replace(document_id, submission(2, metadata={"v": 2}))
    assert answer.kind is AcceptKind.CREATED
    assert (await ledger.visible([document_id]))[document_id].generation == 1
    equation = await ledger.equation()
    assert (equation.searchable, equation.queued, equation.missing) == (1, 0, 0)
    (ticket,) = await ledger.pushable(10)
    claim = await claimed(ledger, ticket)
    assert (claim.generation, claim.visible_generation) == (2, 1)
    await ledger.settle(claim, Done(5))
    assert (await ledger.visible([document_id]))[document_id].generation == 2
    # the old generation's exact chunks go, now and once more later
    cleanups = await ledger.due_cleanups()
    assert [(c.generation, c.first, c.last) for c in cleanups] == [(1, 0, 3)]
    assert await ledger.unreferenced_blobs(-1) == [f"{1:064x}"]


async def test_replace_takes_the_token_of_a_running_claim(ledger: SqlLedger) -> None:
    claim = await claimed(ledger, await accepted(ledger, 1))
    await ledger.replace(claim.document_id, submission(2))
    settled = await ledger.settle(claim, Done(3))
    assert not settled.moved
    document = await ledger.get(claim.document_id)
    assert document is not None
    assert (document.state, document.visible_generation) == (State.RECEIVED, 0)
    # whatever the first generation stored must go, though nobody knows how much it was
    assert [(c.generation, c.last) for c in await ledger.due_cleanups()] == [(1, -1)]


async def test_replace_with_the_same_is_no_new_generation(ledger: SqlLedger) -> None:
    document_id = await searchable(ledger, 1)
    answer = await ledger.replace(document_id, submission(9, content=1))
    assert answer.kind is AcceptKind.DUPLICATE
    document = await ledger.get(document_id)
    assert document is not None
    assert (document.generation, document.state) == (1, State.SEARCHABLE)


async def test_a_to_b_to_a(ledger: SqlLedger) -> None:
    document_id = await searchable(ledger, 1)
    for content in (2, 1):
        await ledger.replace(document_id, submission(1, content=content))
        (ticket,) = await ledger.pushable(10)
        await ledger.settle(await claimed(ledger, ticket), Done(3))
    assert (await ledger.visible([document_id]))[document_id].generation == 3
    assert [c.generation for c in await ledger.due_cleanups()] == [1, 2]
    assert await ledger.unreferenced_blobs(-1) == [f"{2:064x}"]


async def test_replace_of_nothing(ledger: SqlLedger) -> None:
    with pytest.raises(NotFound):
        await ledger.replace("nobody", submission(1))
    ticket = await accepted(ledger, 1)
    await ledger.delete(ticket.document_id)
    with pytest.raises(NotFound):
        await ledger.replace(ticket.document_id, submission(2))


async def test_one_failing_operation_fails_alone(ledger: SqlLedger) -> None:
    ticket = await accepted(ledger, 1)
    results = await asyncio.gather(
        ledger.accept([submission(2)]),
        ledger.delete("nobody"),
        ledger.cancel(ticket.document_id),
        ledger.accept([submission(3)]),
        return_exceptions=True,
    )
    assert [type(r).__name__ for r in results] == ["list", "NotFound", "Document", "list"]
    assert (await ledger.equation()).accepted == 3
