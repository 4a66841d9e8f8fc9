"""Dead letters in the ledger: evidence, counts, retry and drop by filter, each atomic."""

from __future__ import annotations

import asyncio

import pytest

from tests.fixtures.ledger import PIN, WORKER, accepted, claimed, searchable, submission
from unjam.core.backoff import ERROR_BUDGET
from unjam.core.dead_letters import DeadFilter
from unjam.core.document import State, Ticket
from unjam.core.errors import Conflict, NotFound
from unjam.core.events import EventKind
from unjam.core.outcome import Dead, Done, Retry
from unjam.stores.ledger import SqlLedger

ALL = DeadFilter()


async def dead(ledger: SqlLedger, n: int, reason: str = "corrupt", **more: object) -> str:
    """Accept submission *n* and park it; its id."""
    claim = await claimed(ledger, await accepted(ledger, n, **more))
    settled = await ledger.settle(claim, Dead(reason, f"page {n}", {"signal": "SIGSEGV"}))
    assert settled.state is State.DEAD
    return claim.document_id


async def state_of(ledger: SqlLedger, document_id: str) -> tuple[State, str]:
    document = await ledger.get(document_id)
    assert document is not None
    return document.state, document.reason


async def balanced(ledger: SqlLedger) -> None:
    e = await ledger.equation()
    ends = e.searchable + e.dead + e.cancelled + e.deleted
    assert e.accepted == ends + e.running + e.queued + e.waiting
    assert e.missing == 0
    assert sum((await ledger.dead_by_reason()).values()) == e.dead


async def test_a_letter_carries_its_evidence(ledger: SqlLedger) -> None:
    document_id = await dead(ledger, 1)
    letter = await ledger.dead_letter(document_id)
    assert (letter.document.reason, letter.document.detail) == ("corrupt", "page 1")
    assert letter.evidence["signal"] == "SIGSEGV"
    assert letter.evidence["worker"] == WORKER.id
    assert letter.evidence["step"] == "parsing"
    assert (letter.evidence["errors"], letter.evidence["deaths"]) == (0, 0)
    assert [e.kind for e in letter.history][-2:] == [EventKind.CLAIMED, EventKind.DEAD]
    for other in ("nothing", await searchable(ledger, 2)):
        with pytest.raises(NotFound):
            await ledger.dead_letter(other)


async def test_the_last_error_of_many_is_kept(ledger: SqlLedger) -> None:
    await accepted(ledger, 1)
    for n in range(ERROR_BUDGET):
        (ticket,) = await ledger.pushable(1)
        claim = await claimed(ledger, ticket)
        outcome = Retry("processing_error", f"boom {n}", 0.0, {"traceback": f"line {n}"})
        await ledger.settle(claim, outcome)
        await ledger.wake()
    letter = await ledger.dead_letter("d00000001")
    last = ERROR_BUDGET - 1
    assert letter.document.reason == "errors_exhausted"
    assert letter.evidence["errors"] == ERROR_BUDGET
    assert letter.evidence["last_error"] == f"boom {last}"
    assert letter.evidence["traceback"] == f"line {last}"
    tracebacks = [e.data.get("evidence") for e in letter.history if e.kind is EventKind.WAITING]
    assert tracebacks == [{"traceback": f"line {n}"} for n in range(last)]


async def test_foreign_bytes_in_the_evidence_are_kept_as_text(ledger: SqlLedger) -> None:
    claim = await claimed(ledger, await accepted(ledger, 1))
    nasty = "nul \0, lone \ud800 half"
    dirty = {"stderr": nasty + "x" * 100_000, nasty: [nasty, object(), 1.5, None]}
    await ledger.settle(claim, Dead("parser_crashed", nasty, dirty))
    letter = await ledger.dead_letter(claim.document_id)
    assert "\0" not in letter.document.detail
    assert len(letter.evidence["stderr"]) <= 16_000


async def test_counts_follow_every_change(ledger: SqlLedger) -> None:
    assert await ledger.dead_by_reason() == {}
    for n in range(1, 5):
        await dead(ledger, n, "corrupt" if n < 4 else "empty")
    assert list((await ledger.dead_by_reason()).items()) == [("corrupt", 3), ("empty", 1)]
    await ledger.retry("d00000001")
    await ledger.delete("d00000002")
    await ledger.accept([submission(9, content=4)])  # the same bytes: revived in place
    assert await ledger.dead_by_reason() == {"corrupt": 1}
    await balanced(ledger)


async def test_pages_filter_and_count(ledger: SqlLedger) -> None:
    for n in range(1, 8):
        more = {"user": "ann" if n % 2 else "bob", "media_type": "text/html" if n > 5 else "x/y"}
        await dead(ledger, n, "empty" if n in (2, 5) else "corrupt", **more)
    await searchable(ledger, 8)

    async def walk(which: DeadFilter) -> list[int]:
        found: list[int] = []
        cursor = None
        while True:
            page = await ledger.dead_page(which, cursor=cursor, limit=2)
            found += [int(d.id[1:]) for d in page.items]
            cursor = page.next_cursor
            if cursor is None:
                assert await ledger.count_dead(which) == len(found)
                return found

    assert await walk(ALL) == [7, 6, 5, 4, 3, 2, 1]
    assert await walk(DeadFilter(reason="corrupt")) == [7, 6, 4, 3, 1]
    assert await walk(DeadFilter(user_id="bob")) == [6, 4, 2]
    assert await walk(DeadFilter(reason="corrupt", user_id="bob")) == [6, 4]
    assert await walk(DeadFilter(media_type="text/html")) == [7, 6]
    assert await walk(DeadFilter(ids=["d00000001", "d00000008", "no"])) == [1]
    assert await walk(DeadFilter(reason="never heard of")) == []
    assert await walk(DeadFilter(user_id="")) == []


async def test_retry_by_filter_is_exact_and_audited(ledger: SqlLedger) -> None:
    for n in range(1, 5):
        await dead(ledger, n, "empty" if n == 4 else "corrupt")
    tickets = await ledger.retry_many(
        DeadFilter(reason="corrupt"), expected=3, pin=PIN, by="operator"
    )
    assert [t.document_id for t in tickets] == ["d00000001", "d00000002", "d00000003"]
    for ticket in tickets:
        document = await ledger.get(ticket.document_id)
        assert document is not None
        assert (document.state, document.generation) == (State.RECEIVED, 2)
        assert (document.enqueue_seq, document.errors) == (ticket.enqueue_seq, 0)
    assert await state_of(ledger, "d00000004") == (State.DEAD, "empty")
    assert await ledger.retry_many(DeadFilter(reason="corrupt")) == []
    note = (await ledger.audit())[1]
    assert (note["by"], note["action"]) == ("operator", "dlq_retry")
    assert note["data"] == {"filter": {"reason": "corrupt"}, "count": 3}
    for ticket in tickets:
        assert (await ledger.settle(await claimed(ledger, ticket), Done(1))).moved
    await balanced(ledger)


async def test_another_number_than_expected_changes_nothing(ledger: SqlLedger) -> None:
    for n in range(1, 4):
        await dead(ledger, n)
    before = await ledger.last_event()
    for verb in (ledger.retry_many, ledger.drop_many):
        for which in (ALL, DeadFilter(user_id="ann"), DeadFilter(ids=["d00000001", "d00000002"])):
            with pytest.raises(Conflict) as caught:
                await verb(which, expected=17)
            assert caught.value.code == "count_changed"
    assert await ledger.last_event() == before
    assert await ledger.audit() == []
    assert len(await ledger.retry_many(DeadFilter(ids=["d00000001", "d00000002"]), expected=2)) == 2


async def test_ids_that_are_not_dead_are_left_alone(ledger: SqlLedger) -> None:
    await dead(ledger, 1)
    alive = await searchable(ledger, 2)
    which = DeadFilter(ids=["d00000001", alive, "d99999999", "d00000001"])
    assert [t.document_id for t in await ledger.retry_many(which)] == ["d00000001"]
    assert (await state_of(ledger, alive))[0] is State.SEARCHABLE


async def test_a_limit_takes_the_oldest(ledger: SqlLedger) -> None:
    for n in range(1, 6):
        await dead(ledger, n)
    first = await ledger.retry_many(ALL, expected=5, limit=2)
    assert [t.document_id for t in first] == ["d00000001", "d00000002"]
    rest = DeadFilter(ids=[f"d{n:08d}" for n in range(1, 6)])
    assert await ledger.drop_many(rest, limit=2) == ["d00000003", "d00000004"]
    assert await ledger.count_dead(ALL) == 1


async def test_a_dropped_one_can_be_had_back(ledger: SqlLedger) -> None:
    document_id = await dead(ledger, 1)
    assert await ledger.drop_many(ALL, expected=1, by="operator") == [document_id]
    assert await state_of(ledger, document_id) == (State.CANCELLED, "dropped")
    last = (await ledger.events(document_id))[-1]
    assert (last.kind, last.data["was"]) == (EventKind.CANCELLED, "corrupt")
    assert (await ledger.audit())[0]["action"] == "dlq_drop"
    await balanced(ledger)
    claim = await claimed(ledger, await ledger.retry(document_id))
    assert (await ledger.settle(claim, Done(2))).moved


async def test_dropping_a_dead_update_leaves_what_search_shows(ledger: SqlLedger) -> None:
    document_id = await searchable(ledger, 1)
    replaced = await ledger.replace(document_id, submission(0, content=77))
    claim = await claimed(ledger, Ticket(document_id, replaced.enqueue_seq))
    await ledger.settle(claim, Dead("corrupt", ""))
    await ledger.drop_many(DeadFilter(reason="corrupt"))
    assert (await ledger.visible([document_id]))[document_id].generation == 1
    await balanced(ledger)


async def test_only_the_ticket_it_died_under_revives_it(ledger: SqlLedger) -> None:
    document_id = await dead(ledger, 1)
    document = await ledger.get(document_id)
    assert document is not None
    right = Ticket(document_id, document.enqueue_seq)
    early = Ticket(document_id, document.enqueue_seq - 1)
    assert await ledger.revive([early, Ticket("nobody", 1)]) == []
    (ticket,) = await ledger.revive([right, right])
    assert ticket.enqueue_seq == right.enqueue_seq + 1
    assert await ledger.revive([right]) == []


async def test_two_retries_at_once_meet_each_letter_once(
    ledger: SqlLedger, ledger_url: str
) -> None:
    for n in range(1, 31):
        await dead(ledger, n)
    other = await SqlLedger.open(ledger_url, durable=False)
    try:
        answers = await asyncio.gather(
            *(x.retry_many(ALL) for x in (ledger, other)),
            *(x.drop_many(ALL) for x in (ledger, other)),
        )
    finally:
        await other.close()
    ids = [t if isinstance(t, str) else t.document_id for some in answers for t in some]
    assert sorted(ids) == [f"d{n:08d}" for n in range(1, 31)]
    await balanced(ledger)
