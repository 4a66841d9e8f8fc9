"""The ledger's half of the audit of vectors, on every kind of ledger."""

from __future__ import annotations

from tests.fixtures.ledger import PIN, accepted, claimed, searchable, submission
from unjam.core.document import State
from unjam.core.outcome import Dead, Done
from unjam.stores.ledger import SqlLedger


async def test_what_must_be_there_is_walked_in_slices_and_added_up(ledger: SqlLedger) -> None:
    ids = [await searchable(ledger, n, chunks=n) for n in (1, 2, 3)]
    await accepted(ledger, 4)
    await ledger.delete(ids[1])
    first = await ledger.visible_chunks(limit=1)
    (one,) = first
    rest = await ledger.visible_chunks((one.pin_id, one.document_id))
    assert [(v.document_id, v.chunks) for v in (*first, *rest)] == [(ids[0], 1), (ids[2], 3)]
    assert await ledger.visible_totals() == {PIN.fingerprint.collection: 4}


async def test_a_gap_is_missing_until_another_generation_is_visible(ledger: SqlLedger) -> None:
    document_id = await searchable(ledger, 1)
    found = await ledger.visible_chunks()
    (ticket,) = await ledger.note_gaps(found)
    assert await ledger.note_gaps(found) == []  # it is on its way already
    equation = await ledger.equation()
    assert (equation.accepted, equation.searchable, equation.missing) == (1, 0, 1)
    assert await ledger.open_gaps() == found
    claim = await claimed(ledger, ticket)
    assert (claim.generation, claim.visible_generation, claim.pin) == (2, 1, PIN)
    await ledger.settle(claim, Done(3))
    equation = await ledger.equation()
    assert (equation.searchable, equation.missing) == (1, 0)
    assert await ledger.open_gaps() == []
    assert await ledger.close_gaps() == 1
    assert document_id == claim.document_id


async def test_what_is_no_longer_visible_so_is_left_alone(ledger: SqlLedger) -> None:
    document_id = await searchable(ledger, 1)
    found = await ledger.visible_chunks()
    await ledger.delete(document_id)
    assert await ledger.note_gaps(found) == []
    assert (await ledger.equation()).missing == 0
    again = await searchable(ledger, 2)
    old = await ledger.visible_chunks()
    await ledger.replace(again, submission(3, content=9))
    (ticket,) = await ledger.pushable(5)
    await ledger.settle(await claimed(ledger, ticket), Done(1))
    assert await ledger.note_gaps(old) == []


async def test_a_gap_of_a_document_that_is_being_updated_is_only_counted(
    ledger: SqlLedger,
) -> None:
    document_id = await searchable(ledger, 1)
    found = await ledger.visible_chunks()
    await ledger.replace(document_id, submission(2, content=9))
    assert await ledger.note_gaps(found) == []
    equation = await ledger.equation()
    assert (equation.searchable, equation.missing) == (0, 1)
    await ledger.close_gaps(found)
    assert (await ledger.equation()).missing == 0


async def test_which_generations_keep_their_chunks(ledger: SqlLedger) -> None:
    document_id = await searchable(ledger, 1)
    dead = await claimed(ledger, await accepted(ledger, 2))
    await ledger.settle(dead, Dead("empty", "nothing in it"))
    deleted = await searchable(ledger, 3)
    await ledger.delete(deleted)
    making = await claimed(ledger, await accepted(ledger, 4))
    asked = {
        (document_id, 1): "kept",
        (document_id, 2): "over",
        (dead.document_id, 1): "over",
        (deleted, 1): "over",
        (making.document_id, 1): "kept",
        ("stranger", 1): "unknown",
    }
    assert await ledger.keeping(list(asked)) == asked
    document = await ledger.get(making.document_id)
    assert document is not None
    assert document.state is State.PARSING
