"""The reconciler's half: outbox, orphans, expired leases, waking, cleanups, blobs, leaders.

Each costs by what is wrong, not by what waits: every query here walks an index of just that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from unjam.core.document import State, Ticket
from unjam.core.events import EventKind
from unjam.stores import schema
from unjam.stores.ledger.claims import SLO_S
from unjam.stores.ledger.row import Row
from unjam.stores.ledger.tx import Tx

_d = schema.documents
_leased = sa.text("worker <> ''")


# -- lanes ----------------------------------------------------------------------------------
def mark_pushed(tx: Tx, tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        row = tx.find(ticket.document_id)
        if row and row.state == State.RECEIVED and row.enqueue_seq == ticket.enqueue_seq:
            data = {"lane": row.lane, "seq": row.enqueue_seq}
            # It stands in line since it was received: its age does not begin anew.
            tx.move(row, State.QUEUED, EventKind.QUEUED, data, updated_at=row.updated_at)


def requeue(tx: Tx, tickets: Sequence[Ticket], why: str) -> list[Ticket]:
    moved: list[Ticket] = []
    for ticket in tickets:
        row = tx.find(ticket.document_id)
        if row and row.state == State.QUEUED and row.enqueue_seq == ticket.enqueue_seq:
            since = row.updated_at
            moved.append(tx.to_work(row, EventKind.REQUEUED, why, updated_at=since))
    return moved


def wake(tx: Tx, limit: int) -> list[Ticket]:
    query = (
        sa.select(_d.c.id)
        .where(_d.c.next_step_at <= tx.now)
        .order_by(_d.c.next_step_at)
        .limit(limit)
    )
    due = tx.ids(query, free=True)
    return [tx.to_work(row, EventKind.REQUEUED, "due") for row in due if _waits(row)]


def _waits(row: Row) -> bool:
    # On PostgreSQL somebody may have moved it between the look and the lock.
    return row.state == State.WAITING


# -- leases ---------------------------------------------------------------------------------
def retire(tx: Tx, worker_id: str) -> None:
    """A clean end makes no suspects: what it still held goes back to work, free."""
    query = sa.select(_d.c.id).where(_leased, _d.c.worker == worker_id)
    for row in tx.ids(query):
        if row.worker == worker_id:
            tx.change(row, token=row.token + 1)
            tx.to_work(row, EventKind.REQUEUED, "handed_back")
    tx.execute(sa.delete(schema.processes).where(schema.processes.c.id == worker_id))
    tx.execute(sa.delete(schema.leaders).where(schema.leaders.c.holder == worker_id))


def count_late(tx: Tx, slo_s: float = SLO_S, limit: int = 500) -> int:
    """Count what is not searchable *slo_s* after it was accepted, each generation once."""
    query = (
        sa.select(_d.c.id)
        .where(_d.c.slo_since.is_not(None), _d.c.slo_since <= tx.now - slo_s)
        .order_by(_d.c.slo_since)
        .limit(limit)
    )
    late = [row for row in tx.ids(query, free=True) if row.slo_since is not None]
    for row in late:
        tx.change(row, slo_since=None)
        tx.count("slo_total", row.lane)
        tx.count("slo_late", row.lane)
    return len(late)


# -- blobs, cleanups ------------------------------------------------------------------------
def finish_cleanups(tx: Tx, ids: Sequence[int]) -> None:
    if ids:
        tx.execute(sa.delete(schema.cleanups).where(schema.cleanups.c.id.in_(list(ids))))


def forget_blob(tx: Tx, content_hash: str) -> bool:
    """True: the row is gone and the file may go. Looks at the references themselves again."""
    table = schema.blobs
    query = sa.select(table.c.unreferenced_since).where(table.c.content_hash == content_hash)
    since = tx.execute(tx.dialect.locking(query, table.c.content_hash)).first()
    if since is None or since[0] is None:
        return False
    if tx.referenced(content_hash):
        statement = sa.update(table).where(table.c.content_hash == content_hash)
        tx.execute(statement.values(unreferenced_since=None))
        return False
    tx.execute(sa.delete(table).where(table.c.content_hash == content_hash))
    return True


# -- the house ------------------------------------------------------------------------------
def lead(tx: Tx, role: str, holder: str, ttl_s: float) -> bool:
    table = schema.leaders
    tx.dialect.lock(tx.conn, _LEAD_LOCK)
    query = sa.select(table.c.holder, table.c.until).where(table.c.role == role)
    now = tx.execute(query).first()
    if now is not None and now.holder != holder and now.until > tx.lease_now:
        return False
    row = {"role": role, "holder": holder, "until": tx.lease_now + ttl_s}
    tx.upsert(table, [row], update=("holder", "until"))
    return True


_LEAD_LOCK = 0x6C656164  # any constant; "lead" in ASCII


VECTORS_LOST = "vectors_lost"
"""JSON: since when, until when, and of how many documents chunks were found missing lately."""
LATELY_S = 30.0


def note_vectors_lost(tx: Tx, documents: int) -> None:
    """It stands longer than the gap, which vectors from the cache fill within a second."""
    before = json.loads(get_meta(tx, VECTORS_LOST) or "{}")
    if tx.now - before.get("at", 0.0) > LATELY_S:
        before = {"since": tx.now, "documents": 0}
    now = {**before, "at": tx.now, "documents": before["documents"] + documents}
    put_meta(tx, VECTORS_LOST, json.dumps(now))


REDIS_LOST = "redis_lost_at"
"""When Redis was last seen without its epoch, or with an older one: its data was lost."""


def bump_epoch(tx: Tx, seen: int) -> int:
    tx.dialect.lock(tx.conn, _LEAD_LOCK)
    own = int(get_meta(tx, "epoch") or 0)
    value = max(own, seen) + 1
    put_meta(tx, "epoch", value)
    if 0 < own != seen:
        put_meta(tx, REDIS_LOST, tx.now)
    return value


def get_meta(tx: Tx, key: str) -> str | None:
    query = sa.select(schema.meta.c.value).where(schema.meta.c.key == key)
    return tx.execute(query).scalar()


def put_meta(tx: Tx, key: str, value: Any) -> None:
    tx.upsert(schema.meta, [{"key": key, "value": str(value)}], update=("value",))
