"""A worker's dealings with the ledger: claim, renew, report, settle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from unjam.core.backoff import ERROR_BUDGET
from unjam.core.breaker import paused_lanes
from unjam.core.document import (
    CLAIMABLE,
    RUNNING,
    Claim,
    ClaimAnswer,
    ClaimKind,
    State,
    Ticket,
    is_legal,
)
from unjam.core.errors import LeaseLost
from unjam.core.events import EventKind
from unjam.core.lease import LEASE_S
from unjam.core.outcome import Dead, Done, Outcome, Release, Retry, Snooze
from unjam.core.ports import Progress, Settled, WorkerRef
from unjam.stores import schema
from unjam.stores.ledger import dependencies
from unjam.stores.ledger.dead import evidence_of, plain
from unjam.stores.ledger.row import Row
from unjam.stores.ledger.tx import Tx

DURATION_BUCKETS_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
SLO_S = 300.0
"""A document should be searchable this long after it was accepted."""
STEPS = {State.PARSING: 1, State.CHUNKING: 2, State.EMBEDDING: 3, State.STORING: 4}
_SLOTS_LOCK = 0x736C6F7473  # any constant; "slots" in ASCII
_d = schema.documents
_leased = sa.select(sa.func.count()).select_from(_d).where(sa.text("worker <> ''"))


# -- claim ----------------------------------------------------------------------------------
def claim(
    tx: Tx, tickets: Sequence[Ticket], worker: WorkerRef, max_concurrent: int
) -> list[ClaimAnswer]:
    """Slots are counted under one lock, so that the cap holds over all processes."""
    tx.dialect.lock(tx.conn, _SLOTS_LOCK)
    free = max_concurrent - tx.execute(_leased).scalar_one()
    paused = paused_lanes(dependencies.states(tx.conn))
    answers: list[ClaimAnswer] = []
    for ticket in tickets:
        row = tx.find(ticket.document_id)
        fresh = row is not None and row.enqueue_seq == ticket.enqueue_seq
        if row is None or not fresh or State(row.state) not in CLAIMABLE:
            answers.append(ClaimAnswer(ClaimKind.STALE, ticket))
        elif free <= 0 or not paused.isdisjoint((row.lane, "*")):
            answers.append(ClaimAnswer(ClaimKind.NO_SLOT, ticket))
        else:
            free -= 1
            answers.append(ClaimAnswer(ClaimKind.CLAIMED, ticket, _lease(tx, row, worker)))
    return answers


def _lease(tx: Tx, row: Row, worker: WorkerRef) -> Claim:
    if row.started_generation < row.generation:
        tx.count("jobs_started", row.lane)
    token = row.token + 1
    tx.move(
        row,
        State.PARSING,
        EventKind.CLAIMED,
        {"worker": worker.id, "token": token},
        token=token,
        worker=worker.id,
        lease_until=tx.lease_now + LEASE_S,
        claimed_at=tx.now,
        started_generation=row.generation,
        reason="",
        detail="",
        next_step_at=None,
        alone=0,
    )
    return Claim(
        document_id=row.id,
        generation=row.generation,
        token=token,
        enqueue_seq=row.enqueue_seq,
        user_id=row.user_id,
        filename=row.filename,
        media_type=row.media_type,
        size_bytes=row.size_bytes,
        content_hash=row.content_hash,
        pin=tx.pin(row.pin_id),
        lane=row.lane,
        visible_generation=row.visible_generation,
        errors=row.errors,
        deaths=row.deaths,
        suspect=bool(row.suspect),
        metadata=json.loads(row.metadata),
        created_at=row.created_at,
        claimed_at=tx.now,
        stored=row.progress_done,
    )


def _holds(row: Row | None, token: int) -> bool:
    return row is not None and row.token == token and State(row.state) in RUNNING


# -- renew, report --------------------------------------------------------------------------
def renew(
    tx: Tx,
    worker: WorkerRef,
    tokens: Mapping[str, int],
    progress: Sequence[Progress],
    rss_bytes: int = 0,
) -> set[str]:
    """Extend what the process still holds; the ids it has lost come back."""
    lost: set[str] = set()
    for document_id, token in tokens.items():
        row = tx.find(document_id)
        if row is not None and _holds(row, token):
            tx.change(row, lease_until=tx.lease_now + LEASE_S)
        else:
            lost.add(document_id)
    for p in progress:
        row = tx.find(p.document_id)
        if row is not None and _holds(row, p.token):
            _advance(tx, row, p)
        else:
            lost.add(p.document_id)
    alive(tx, worker, rss_bytes)
    return lost


def alive(tx: Tx, worker: WorkerRef, rss_bytes: int = 0) -> None:
    row = {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "kind": worker.kind,
        "seen": tx.lease_now,
        "rss_bytes": rss_bytes,
    }
    tx.upsert(schema.processes, [row], update=tuple(k for k in row if k != "id"))


def report(tx: Tx, progress: Progress) -> None:
    row = tx.find(progress.document_id)
    if row is None or not _holds(row, progress.token):
        raise LeaseLost(f"{progress.document_id} belongs to somebody else now")
    _advance(tx, row, progress)


def _advance(tx: Tx, row: Row, p: Progress) -> None:
    """Progress of one generation never goes back, though a new claim counts from zero."""
    # A renewal may carry what a report has already overtaken: then the step stays.
    if p.state in RUNNING and p.state != row.state and is_legal(State(row.state), p.state):
        data = {"done": p.done, "total": p.total}
        tx.move(row, p.state, EventKind.STAGE, data)
    tx.change(
        row,
        progress_done=max(row.progress_done, p.done),
        progress_total=p.total or row.progress_total,
        alone=int(p.alone),
        updated_at=tx.now,
    )


# -- settle ---------------------------------------------------------------------------------
def settle(tx: Tx, held: Claim, outcome: Outcome) -> Settled:
    """The end of a claim; without a valid token nothing changes."""
    row = tx.find(held.document_id)
    if row is None or not _holds(row, held.token):
        state = State(row.state) if row else State.DELETED
        gone = state in (State.CANCELLED, State.DELETED)
        return Settled(held.document_id, False, state, cancelled=gone)
    ticket: Ticket | None = None
    match outcome:
        case Done():
            _flip(tx, row, outcome)
        case Retry():
            _retry(tx, row, outcome)
            ticket = row.ticket() if row.state == State.DEAD else None
        case Snooze():
            if outcome.reason == "vector_store_down":
                tx.count("vector_store_errors", row.lane)
            throttles = row.throttles + outcome.throttle
            wait(tx, row, outcome.reason, outcome.detail, outcome.after_s, throttles=throttles)
        case Dead():
            bury(tx, row, outcome)
            ticket = row.ticket()
        case Release():
            ticket = tx.to_work(row, EventKind.REQUEUED, outcome.reason)
    return Settled(row.id, True, State(row.state), ticket)


def _flip(tx: Tx, row: Row, done: Done) -> None:
    """Publish the newest generation (law 5)."""
    assert row.generation > row.visible_generation, "a generation becomes visible once"
    took = max(0.0, tx.now - (row.claimed_at or tx.now))
    lane = row.lane
    tx.clean_visible(row)
    before = row.visible_hash
    if row.slo_since is not None:
        tx.count("slo_total", lane)
        if tx.now - row.slo_since > SLO_S:
            tx.count("slo_late", lane)
    tx.move(
        row,
        State.SEARCHABLE,
        EventKind.SEARCHABLE,
        {"chunks": done.chunks, "stage_ms": dict(done.stage_ms), "duration_s": took},
        visible_generation=row.generation,
        visible_hash=row.content_hash,
        visible_pin=row.pin_id,
        chunks=done.chunks,
        progress_done=done.chunks,
        progress_total=done.chunks,
        searchable_at=tx.now,
        reason="",
        detail="",
        next_step_at=None,
        slo_since=None,
        suspect=0,
        deaths=0,
        death_done=0,
        death_step=0,
        lane=row.home_lane,
    )
    tx.flip(row)
    if done.index_suspect:
        tx.event(row, EventKind.INDEX_SUSPECT, {"chunks": done.chunks})
    if before != row.content_hash:
        tx.unlink(before)
    _count_completion(tx, lane, took)


def _count_completion(tx: Tx, lane: str, took_s: float) -> None:
    tx.count("jobs_completed", lane)
    tx.count("duration_sum", lane, took_s)
    for edge in DURATION_BUCKETS_S:
        if took_s <= edge:
            tx.count(f"duration_le:{edge}", lane)
    tx.count("duration_le:+Inf", lane)


def _retry(tx: Tx, row: Row, outcome: Retry) -> None:
    errors = row.errors + 1
    if errors >= ERROR_BUDGET:
        tx.change(row, errors=errors)
        last = {"last_reason": outcome.reason, "last_error": outcome.detail}
        bury(tx, row, Dead("errors_exhausted", outcome.detail, {**last, **outcome.evidence}))
        return
    evidence = outcome.evidence
    wait(tx, row, outcome.reason, outcome.detail, outcome.after_s, evidence, errors=errors)


def wait(
    tx: Tx,
    row: Row,
    reason: str,
    detail: str,
    after_s: float,
    evidence: Mapping[str, Any] | None = None,
    **values: object,
) -> None:
    """→ waiting, with a reason and a next step time (law 8)."""
    until = tx.now + max(0.0, after_s)
    detail = plain(detail)
    data: dict[str, Any] = {"reason": reason, "detail": detail, "until": until}
    if evidence:
        data["evidence"] = plain(evidence)
    values = {"reason": reason, "detail": detail, "next_step_at": until, **values}
    tx.move(row, State.WAITING, EventKind.WAITING, data, **values)


def bury(tx: Tx, row: Row, dead: Dead) -> None:
    """→ dead, with evidence; partial chunks go.

    It is parked under a sequence of its own: whoever still executes the last job (RQ writes that
    job's end after ours) cannot touch the dead letter.
    """
    tx.count("jobs_failed", row.lane)
    detail = plain(dead.detail)
    evidence = evidence_of(tx, row, dead.evidence)
    data = {"reason": dead.reason, "detail": detail, "evidence": evidence}
    tx.clean_abandoned(row)
    tx.move(
        row,
        State.DEAD,
        EventKind.DEAD,
        data,
        enqueue_seq=row.enqueue_seq + 1,
        reason=dead.reason,
        detail=detail,
        next_step_at=None,
    )
