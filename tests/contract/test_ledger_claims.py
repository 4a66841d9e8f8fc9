"""Claims: leases, fencing, settling, deaths, budgets."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.fixtures.ledger import WORKER, accepted, claimed, searchable, submission
from unjam.core.backoff import ERROR_BUDGET
from unjam.core.document import ClaimKind, State, Ticket
from unjam.core.errors import LeaseLost
from unjam.core.events import EventKind
from unjam.core.outcome import Dead, Done, Release, Retry, Snooze
from unjam.core.ports import Progress, WorkerRef
from unjam.stores.ledger import SqlLedger
from unjam.stores.ledger.tx import Tx

OTHER = replace(WORKER, id="worker-2", pid=2)


async def lapse(ledger: SqlLedger) -> None:
    """Let every lease run out now."""

    def run(tx: Tx) -> None:
        tx.execute(sa.text("UPDATE documents SET lease_until = 0 WHERE worker <> ''"))

    await ledger._committer.submit(run)


async def test_claim_needs_the_newest_ticket(ledger: SqlLedger) -> None:
    ticket = await accepted(ledger, 1)
    await ledger.mark_pushed([ticket])
    (moved,) = await ledger.requeue([ticket], "orphan")
    assert moved.enqueue_seq == ticket.enqueue_seq + 1
    answers = await ledger.claim([ticket, Ticket("nobody", 1), moved, moved], WORKER, 10)
    assert [a.kind for a in answers] == ["stale", "stale", "claimed", "stale"]
    assert answers[2].claim is not None
    assert answers[2].claim.token == 1


async def test_the_cap_holds_over_all_processes(ledger: SqlLedger, ledger_url: str) -> None:
    await ledger.accept([submission(n) for n in range(1, 21)])
    tickets = await ledger.pushable(20)
    second = await SqlLedger.open(ledger_url, durable=False)
    try:
        answers = await asyncio.gather(
            *((ledger, second)[i % 2].claim([t], WORKER, 5) for i, t in enumerate(tickets))
        )
    finally:
        await second.close()
    kinds = [a.kind for (a,) in answers]
    assert kinds.count(ClaimKind.CLAIMED) == 5
    assert kinds.count(ClaimKind.NO_SLOT) == 15


async def test_started_counts_a_generation_once(ledger: SqlLedger) -> None:
    ticket = await accepted(ledger, 1)
    for _ in range(3):
        claim = await claimed(ledger, ticket)
        settled = await ledger.settle(claim, Release())
        assert settled.ticket is not None
        ticket = settled.ticket
    assert (await ledger.counters())["jobs_started", "rag_processing"] == 1


async def test_done_flips_and_counts(ledger: SqlLedger) -> None:
    claim = await claimed(ledger, await accepted(ledger, 1))
    settled = await ledger.settle(claim, Done(4, {"parse": 1.5}))
    assert (settled.moved, settled.state) == (True, State.SEARCHABLE)
    document = await ledger.get(claim.document_id)
    assert document is not None
    assert (document.chunks, document.visible_generation, document.worker) == (4, 1, "")
    assert document.searchable_at is not None
    counters = await ledger.counters()
    for name in ("jobs_completed", "slo_total", "duration_le:1", "duration_le:+Inf"):
        assert counters[name, "rag_processing"] == 1, name
    assert ("slo_late", "rag_processing") not in counters
    last = (await ledger.events(claim.document_id))[-1]
    assert last.kind is EventKind.SEARCHABLE
    assert last.data["stage_ms"] == {"parse": 1.5}


async def test_a_token_is_good_for_one_end(ledger: SqlLedger) -> None:
    claim = await claimed(ledger, await accepted(ledger, 1))
    assert (await ledger.settle(claim, Snooze("queue_down", "away", 60))).moved
    before = await ledger.events(None)
    for outcome in (Done(9), Dead("empty", ""), Release(), Retry("x", "", 1)):
        assert not (await ledger.settle(claim, outcome)).moved
    with pytest.raises(LeaseLost):
        await ledger.report(Progress(claim.document_id, claim.token, State.STORING))
    assert ledger.renew(WORKER, {claim.document_id: claim.token}, []) == {claim.document_id}
    assert await ledger.events(None) == before


async def test_waiting_has_reason_and_time(ledger: SqlLedger) -> None:
    claim = await claimed(ledger, await accepted(ledger, 1))
    await ledger.settle(claim, Snooze("embedding_throttled", "429", 3600, throttle=True))
    document = await ledger.get(claim.document_id)
    assert document is not None
    assert (document.state, document.reason) == (State.WAITING, "embedding_throttled")
    assert document.next_step_at is not None
    assert (document.errors, document.throttles) == (0, 1)
    assert await ledger.wake() == []
    ticket = await ledger.retry(claim.document_id)
    claim = await claimed(ledger, ticket)
    assert claim.generation == 1
    await ledger.settle(claim, Snooze("queue_down", "away", 0))
    (woken,) = await ledger.wake()
    assert woken.document_id == claim.document_id
    assert await ledger.wake() == []


async def test_errors_end_in_dead_letters_snoozes_never(ledger: SqlLedger) -> None:
    ticket = await accepted(ledger, 1)
    for n in range(1, ERROR_BUDGET + 1):
        for outcome in (Snooze("vector_store_down", "away", 0), Retry("bad", f"error {n}", 0)):
            settled = await ledger.settle(await claimed(ledger, ticket), outcome)
            if settled.state is State.WAITING:
                (ticket,) = await ledger.wake()
    document = await ledger.get(ticket.document_id)
    assert document is not None
    assert (document.state, document.reason) == (State.DEAD, "errors_exhausted")
    assert document.detail == f"error {ERROR_BUDGET}"
    assert (await ledger.counters())["jobs_failed", "rag_processing"] == 1
    assert [c.last for c in await ledger.due_cleanups()] == [-1]


async def test_cancel_and_delete_are_told_to_the_holder(ledger: SqlLedger) -> None:
    one = await claimed(ledger, await accepted(ledger, 1))
    two = await claimed(ledger, await accepted(ledger, 2))
    await ledger.cancel(one.document_id)
    await ledger.delete(two.document_id)
    lost = ledger.renew(WORKER, {one.document_id: one.token, two.document_id: two.token}, [])
    assert lost == {one.document_id, two.document_id}
    for claim, state in ((one, State.CANCELLED), (two, State.DELETED)):
        settled = await ledger.settle(claim, Done(3))
        assert (settled.moved, settled.cancelled, settled.state) == (False, True, state)


async def test_renewal_keeps_a_lease_and_carries_progress(ledger: SqlLedger) -> None:
    claim = await claimed(ledger, await accepted(ledger, 1))
    await lapse(ledger)
    progress = Progress(claim.document_id, claim.token, State.EMBEDDING, 5, 10)
    tokens = {claim.document_id: claim.token}
    assert await asyncio.to_thread(ledger.renew, WORKER, tokens, [progress]) == set()
    assert await ledger.expire() == []
    await ledger.report(replace(progress, state=State.STORING, done=7))
    # a renewal that was overtaken by a report takes nothing back
    assert ledger.renew(WORKER, tokens, [replace(progress, state=State.PARSING)]) == set()
    document = await ledger.get(claim.document_id)
    assert document is not None
    assert (document.state, document.progress_done) == (State.STORING, 7)
    ((worker, age),) = await ledger.processes()
    assert worker == WORKER
    assert age < 5


async def test_a_clean_end_makes_no_suspects(ledger: SqlLedger) -> None:
    claim = await claimed(ledger, await accepted(ledger, 1))
    other = await claimed(ledger, await accepted(ledger, 2), OTHER)
    ledger.renew(WORKER, {claim.document_id: claim.token}, [])
    await ledger.retire(WORKER.id)
    assert await ledger.processes() == []
    document = await ledger.get(claim.document_id)
    assert document is not None
    assert (document.state, document.suspect, document.reason) == (
        State.RECEIVED,
        False,
        "handed_back",
    )
    assert not (await ledger.settle(claim, Done(1))).moved
    assert (await ledger.settle(other, Done(1))).moved


async def test_expired_leases_only(ledger: SqlLedger) -> None:
    await claimed(ledger, await accepted(ledger, 1))
    assert await ledger.expire() == []
    assert await ledger.expire(["somebody-else"]) == []


async def test_no_lease_is_judged_after_an_outage(ledger: SqlLedger) -> None:
    import time

    await claimed(ledger, await accepted(ledger, 1))
    await lapse(ledger)
    ledger._writer.last_failure = time.monotonic()
    assert await ledger.expire() == []
    assert len(await ledger.expire([WORKER.id])) == 1


async def test_late_documents_are_counted_once(ledger: SqlLedger) -> None:
    await searchable(ledger, 1)
    await accepted(ledger, 2)
    gone = await accepted(ledger, 3)
    await ledger.cancel(gone.document_id)
    assert await ledger.count_late(slo_s=300) == 0
    assert await ledger.count_late(slo_s=-1) == 1
    assert await ledger.count_late(slo_s=-1) == 0
    (ticket,) = await ledger.pushable(10)
    await ledger.settle(await claimed(ledger, ticket), Done(1))
    counters = await ledger.counters()
    assert counters["slo_total", "rag_processing"] == 2
    assert counters["slo_late", "rag_processing"] == 1


async def test_many_settlements_meet_in_groups(ledger: SqlLedger) -> None:
    await ledger.accept([submission(n) for n in range(1, 101)])
    answers = await ledger.claim(await ledger.pushable(100), WORKER, 100)
    claims = [a.claim for a in answers if a.claim]
    settled = await asyncio.gather(*(ledger.settle(c, Done(1)) for c in [*claims, *claims]))
    assert sum(s.moved for s in settled) == 100
    assert (await ledger.counters())["jobs_completed", "rag_processing"] == 100
    assert (await ledger.equation()).searchable == 100


async def test_worker_ref_is_updated(ledger: SqlLedger) -> None:
    ledger.renew(WORKER, {}, [])
    ledger.renew(replace(WORKER, version="0.2"), {}, [])
    ((worker, _),) = await ledger.processes()
    assert worker == WorkerRef("worker-1", "host", 1, "0.2")
