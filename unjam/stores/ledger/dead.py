"""Dead letters: count, look, retry, drop. Every verb is one transaction over what matches then."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.ext.compiler import compiles

from unjam.core.dead_letters import AT_ONCE, DeadFilter, DeadLetter
from unjam.core.document import Document, Pin, State, Ticket
from unjam.core.errors import Conflict, NotFound
from unjam.core.events import Event, EventKind
from unjam.core.ports import Page
from unjam.stores import schema, triggers
from unjam.stores.ledger import reads
from unjam.stores.ledger.people import regenerate, write_audit
from unjam.stores.ledger.row import Row
from unjam.stores.ledger.tx import CHUNK, Tx

_d = schema.documents
_dead = sa.text("state = 'dead'")  # literally, as the partial index has it


class _DeadOfReason(sa.ColumnElement[Any]):
    """``_dead`` beside a reason: SQLite, which has no statistics, is told that it excludes little,
    or it would walk all dead ones by ix_documents_state."""

    inherit_cache = True
    type = sa.types.NullType()  # a Boolean would be compared to 1


@compiles(_DeadOfReason)
def _plain(_element: _DeadOfReason, _compiler: Any, **_: Any) -> str:
    return _dead.text


@compiles(_DeadOfReason, "sqlite")
def _excluding_little(_element: _DeadOfReason, _compiler: Any, **_: Any) -> str:
    return f"likelihood({_dead.text}, 0.99)"


_HISTORY = 50
EVIDENCE_CHARS = 16_000
"""Of one text in the evidence."""


# -- looking --------------------------------------------------------------------------------
def by_reason(conn: Connection) -> dict[str, int]:
    table = schema.tallies
    prefix = triggers.DEAD_TALLY
    total = sa.func.sum(table.c.n)
    # ';' follows ':', so this is the range of the prefix.
    query = (
        sa.select(table.c.name, total)
        .where(table.c.name >= prefix, table.c.name < prefix[:-1] + ";")
        .group_by(table.c.name)
    )
    counts = {name.removeprefix(prefix): int(n) for name, n in conn.execute(query)}
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {reason: n for reason, n in ordered if n > 0}


def _conditions(which: DeadFilter) -> Iterator[sa.ColumnElement[Any] | sa.TextClause]:
    if which.reason is None:
        yield _dead
    else:
        yield _DeadOfReason()
        yield _d.c.reason == which.reason
    if which.user_id is not None:
        yield _d.c.user_id == which.user_id
    if which.media_type is not None:
        yield _d.c.media_type == which.media_type


def count(conn: Connection, which: DeadFilter) -> int:
    if which.ids is None and which.user_id is None and which.media_type is None:
        reasons = by_reason(conn)
        return sum(reasons.values()) if which.reason is None else reasons.get(which.reason, 0)
    query = sa.select(sa.func.count()).select_from(_d).where(*_conditions(which))
    if which.ids is None:
        return conn.execute(query).scalar_one()
    return sum(conn.execute(query.where(_d.c.id.in_(p))).scalar_one() for p in _parts(which.ids))


def _parts(ids: Sequence[str]) -> Iterator[list[str]]:
    every = sorted(set(ids))
    for start in range(0, len(every), CHUNK):
        yield every[start : start + CHUNK]


def page(conn: Connection, which: DeadFilter, cursor: str | None, limit: int) -> Page:
    limit = max(1, min(limit, reads.MAX_PAGE))
    query = reads.whole.where(*_conditions(which)).order_by(_d.c.id.desc()).limit(limit + 1)
    if which.ids is not None:
        query = query.where(_d.c.id.in_(list(which.ids)))
    if cursor:
        query = query.where(_d.c.id < cursor)
    items: list[Document] = reads.documents(conn, query)
    more = len(items) > limit
    return Page(items[:limit], items[limit - 1].id if more else None)


def letter(conn: Connection, document_id: str) -> DeadLetter:
    document = reads.get(conn, document_id)
    if document is None or document.state is not State.DEAD:
        raise NotFound(f"no dead letter {document_id}")
    table = schema.events
    query = (
        sa.select(
            table.c.seq,
            table.c.document_id,
            table.c.generation,
            table.c.at,
            table.c.kind,
            table.c.data,
        )
        .where(table.c.document_id == document_id)
        .order_by(table.c.seq.desc())
        .limit(_HISTORY)
    )
    history = [
        Event(seq, doc, generation, at, EventKind(kind), json.loads(data))
        for seq, doc, generation, at, kind, data in conn.execute(query)
    ][::-1]
    # Old events are summarised some day; the row still says when and why.
    death = next((e for e in reversed(history) if e.kind is EventKind.DEAD), None)
    evidence: Mapping[str, Any] = death.data.get("evidence", {}) if death else {}
    return DeadLetter(document, death.at if death else document.updated_at, evidence, history)


# -- acting ---------------------------------------------------------------------------------
def _matching(tx: Tx, which: DeadFilter, expected: int | None, limit: int) -> list[Row]:
    """Those that match now, oldest first, locked. Raises Conflict: not *expected* many."""
    if expected is not None:
        tx.flush()
        found = count(tx.conn, which)
        if found != expected:
            raise _changed(expected, found)
    rows = list(_select(tx, which, min(limit, AT_ONCE)))
    # On PostgreSQL somebody may have moved one between the look and the lock.
    still = [row for row in rows if row.state == State.DEAD]
    if expected is not None and len(still) != min(expected, limit, AT_ONCE):
        raise _changed(expected, len(still))
    return still


def _select(tx: Tx, which: DeadFilter, limit: int) -> Iterator[Row]:
    query = sa.select(_d.c.id).where(*_conditions(which)).order_by(_d.c.id)
    if which.ids is None:
        yield from tx.ids(query.limit(limit))
        return
    for part in _parts(which.ids):
        rows = tx.ids(query.where(_d.c.id.in_(part)).limit(limit))
        limit -= len(rows)
        yield from rows


def _changed(expected: int, found: int) -> Conflict:
    return Conflict(
        f"{found} dead letters match, not {expected}; nothing was changed",
        code="count_changed",
        hint="Look again, and repeat the call with the new number.",
    )


def retry_many(
    tx: Tx, which: DeadFilter, expected: int | None, limit: int, pin: Pin | None, by: str
) -> list[Ticket]:
    rows = _matching(tx, which, expected, limit)
    tickets = [_retry(tx, row, pin, "asked") for row in rows]
    write_audit(tx, by, "dlq_retry", {"filter": which.fields(), "count": len(tickets)})
    return tickets


def _retry(tx: Tx, row: Row, pin: Pin | None, why: str) -> Ticket:
    return regenerate(tx, row, EventKind.RETRIED, why, pin, slo_since=tx.now)


def drop_many(tx: Tx, which: DeadFilter, expected: int | None, limit: int, by: str) -> list[str]:
    """→ cancelled, not deleted: a dead update's older generation stays searchable, the original
    stays for whoever changes their mind, and destroying bytes has a verb of its own."""
    rows = _matching(tx, which, expected, limit)
    for row in rows:
        data = {"reason": "dropped", "was": row.reason}
        tx.move(
            row,
            State.CANCELLED,
            EventKind.CANCELLED,
            data,
            reason="dropped",
            next_step_at=None,
            slo_since=None,
        )
    write_audit(tx, by, "dlq_drop", {"filter": which.fields(), "count": len(rows)})
    return [row.id for row in rows]


def revive(tx: Tx, tickets: Sequence[Ticket], pin: Pin | None) -> list[Ticket]:
    """A ticket of an earlier death revives nothing: the sequence must be the row's own."""
    tx.load(t.document_id for t in tickets)
    revived: list[Ticket] = []
    for ticket in tickets:
        row = tx.find(ticket.document_id)
        if row and row.state == State.DEAD and row.enqueue_seq == ticket.enqueue_seq:
            revived.append(_retry(tx, row, pin, "requeued"))
    return revived


# -- evidence -------------------------------------------------------------------------------
def plain(value: Any) -> Any:
    """*value* as JSON that every database keeps: no NUL, no lone surrogate, no endless text."""
    if isinstance(value, str):
        text = value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        return text[-EVIDENCE_CHARS:]
    if isinstance(value, Mapping):
        pairs: Mapping[Any, Any] = value
        return {plain(str(k)): plain(v) for k, v in pairs.items()}
    if isinstance(value, (list, tuple)):
        items: Sequence[Any] = value
        return [plain(v) for v in items]
    return value if isinstance(value, (int, float, bool)) or value is None else plain(str(value))


def evidence_of(tx: Tx, row: Row, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the ledger knows of an attempt that ended for good, and what the attempt gave."""
    known = {
        "worker": row.worker,
        "step": row.state,
        "done": row.progress_done,
        "total": row.progress_total,
        "held_s": round(max(0.0, tx.now - row.claimed_at), 3) if row.claimed_at else None,
        "errors": row.errors,
        "deaths": row.deaths,
        "throttles": row.throttles,
    }
    return plain({**known, **given})
