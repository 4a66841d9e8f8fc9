"""Questions that change nothing. Each runs in one snapshot and walks an index."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from unjam.core.document import LIVE, RUNNING, Document, Pin, State, Ticket
from unjam.core.events import Event, EventKind
from unjam.core.ports import Cleanup, Equation, Page, VisibleDocument, WorkerRef
from unjam.stores import schema
from unjam.stores.ledger.row import FIELDS, Row
from unjam.stores.ledger.tx import names_of
from unjam.stores.ledger.vector_audit import count_gaps

_d = schema.documents
whole = sa.select(*(_d.c[name] for name in FIELDS))
tickets = sa.select(_d.c.id, _d.c.enqueue_seq, _d.c.lane, _d.c.size_bytes, _d.c.user_id)
MAX_PAGE = 500


def documents(conn: Connection, query: sa.Select[Any]) -> list[Document]:
    rows = [Row(*record) for record in conn.execute(query)]
    names = names_of(conn, [r.id for r in rows]) if rows else {}
    return [r.document(names.get(r.id, ())) for r in rows]


def get(conn: Connection, document_id: str) -> Document | None:
    found = documents(conn, whole.where(_d.c.id == document_id))
    return found[0] if found else None


def get_many(conn: Connection, document_ids: Sequence[str]) -> list[Document]:
    return documents(conn, whole.where(_d.c.id.in_(list(document_ids))))


def page(
    conn: Connection, state: State | None, user_id: str | None, cursor: str | None, limit: int
) -> Page:
    """Newest first, by id: UUIDv7s grow with time."""
    limit = max(1, min(limit, MAX_PAGE))
    query = whole.order_by(_d.c.id.desc()).limit(limit + 1)
    query = query.where(_d.c.shown == 1 if state is None else _d.c.state == state.value)
    if user_id is not None:
        query = query.where(_d.c.user_id == user_id)
    if cursor:
        query = query.where(_d.c.id < cursor)
    items = documents(conn, query)
    more = len(items) > limit
    return Page(items[:limit], items[limit - 1].id if more else None)


def find_live(conn: Connection, user_id: str, content_hashes: Sequence[str]) -> dict[str, str]:
    query = sa.select(_d.c.content_hash, _d.c.id).where(
        _d.c.user_id == user_id,
        _d.c.content_hash.in_(content_hashes),
        _d.c.state.in_([s.value for s in LIVE]),
    )
    found: dict[str, str] = {}
    for content_hash, document_id in conn.execute(query.order_by(_d.c.id)):
        found.setdefault(content_hash, document_id)
    return found


def find_idempotent(conn: Connection, user_id: str, key: str) -> tuple[str, str] | None:
    table = schema.idempotency
    query = sa.select(table.c.document_id, table.c.content_hash).where(
        table.c.user_id == user_id, table.c.key == key
    )
    found = conn.execute(query).first()
    return (found[0], found[1]) if found else None


def events(conn: Connection, document_id: str | None, after: int, limit: int) -> list[Event]:
    table = schema.events
    query = sa.select(
        table.c.seq,
        table.c.document_id,
        table.c.generation,
        table.c.at,
        table.c.kind,
        table.c.data,
    ).where(table.c.seq > after)
    if document_id is not None:
        query = query.where(table.c.document_id == document_id)
    return [
        Event(seq, doc, generation, at, EventKind(kind), json.loads(data))
        for seq, doc, generation, at, kind, data in conn.execute(
            query.order_by(table.c.seq).limit(limit)
        )
    ]


def last_event(conn: Connection) -> int:
    return conn.execute(sa.select(sa.func.max(schema.events.c.seq))).scalar() or 0


# -- counts ---------------------------------------------------------------------------------
def _tallies(conn: Connection) -> dict[tuple[str, bool], int]:
    table = schema.tallies
    query = sa.select(table.c.name, table.c.visible, sa.func.sum(table.c.n)).group_by(
        table.c.name, table.c.visible
    )
    return {(name, bool(visible)): int(n) for name, visible, n in conn.execute(query)}


def state_counts(conn: Connection) -> dict[State, int]:
    tallies = _tallies(conn)
    return {s: tallies.get((s, False), 0) + tallies.get((s, True), 0) for s in State}


def equation(conn: Connection) -> Equation:
    """An update of a searchable document counts as searchable until it ends otherwise."""
    tallies = _tallies(conn)
    query = sa.select(schema.meta.c.value).where(schema.meta.c.key == "chunks_missing")
    chunks_missing = int(conn.execute(query).scalar() or 0) + count_gaps(conn)
    accepted = tallies.get(("accepted", False), 0)

    def unseen(*states: State) -> int:
        return sum(tallies.get((s, False), 0) for s in states)

    def both(state: State) -> int:
        return unseen(state) + tallies.get((state, True), 0)

    ended = {s: both(s) for s in (State.DEAD, State.CANCELLED, State.DELETED)}
    rows = sum(both(s) for s in State)
    seen = sum(n for (name, visible), n in tallies.items() if visible and name not in ended)
    return Equation(
        accepted=accepted,
        searchable=seen + unseen(State.SEARCHABLE) - chunks_missing,
        running=unseen(*RUNNING),
        queued=unseen(State.RECEIVED, State.QUEUED),
        waiting=unseen(State.WAITING),
        dead=ended[State.DEAD],
        cancelled=ended[State.CANCELLED],
        deleted=ended[State.DELETED],
        missing=accepted - rows + chunks_missing,
    )


def counters(conn: Connection) -> dict[tuple[str, str], float]:
    table = schema.counters
    query = sa.select(table.c.name, table.c.queue, table.c.value)
    return {(name, queue): float(value) for name, queue, value in conn.execute(query)}


# -- search ---------------------------------------------------------------------------------
def visible(conn: Connection, document_ids: Sequence[str]) -> dict[str, VisibleDocument]:
    found: dict[str, VisibleDocument] = {}
    for start in range(0, len(document_ids), 500):
        query = sa.select(
            _d.c.id, _d.c.visible_generation, _d.c.filename, _d.c.user_id, _d.c.metadata
        ).where(
            _d.c.id.in_(document_ids[start : start + 500]),
            _d.c.visible_generation > 0,
            _d.c.shown == 1,
        )
        for doc, generation, filename, user_id, metadata in conn.execute(query):
            found[doc] = VisibleDocument(doc, generation, filename, user_id, json.loads(metadata))
    return found


def pins_in_use(conn: Connection) -> list[Pin]:
    """One probe of an index per pin that ever was, instead of a walk over the documents."""
    states = [s.value for s in State if s is not State.DELETED]
    shown = (
        sa.select(sa.literal(1))
        .select_from(_d)
        .where(
            _d.c.visible_pin == schema.pins.c.id,
            sa.text("visible_pin <> ''"),
            _d.c.state.in_(states),
        )
        .exists()
    )
    query = sa.select(schema.pins.c.json).where(shown).order_by(schema.pins.c.id)
    return [Pin.from_json(text) for (text,) in conn.execute(query)]


# -- the reconciler -------------------------------------------------------------------------
def pushable(conn: Connection, limit: int) -> list[Ticket]:
    query = tickets.where(_d.c.state == State.RECEIVED.value).order_by(_d.c.id).limit(limit)
    return [Ticket(*record) for record in conn.execute(query)]


def queued_slice(conn: Connection, after_id: str, limit: int) -> list[Ticket]:
    query = tickets.where(_d.c.state == State.QUEUED.value, _d.c.id > after_id)
    return [Ticket(*record) for record in conn.execute(query.order_by(_d.c.id).limit(limit))]


def due_cleanups(conn: Connection, now: float, limit: int) -> list[Cleanup]:
    table, g, pins = schema.cleanups, schema.generations, schema.pins
    names = ("id", "document_id", "generation", "collection", "first", "last", "due_at")
    other = _d.alias()
    held = sa.exists().where(other.c.content_hash == g.c.content_hash, other.c.shown != 0)
    shown = sa.exists().where(
        other.c.visible_hash == g.c.content_hash, sa.text("visible_hash <> ''"), other.c.shown != 0
    )
    purge = sa.case((sa.and_(_d.c.shown == 0, ~held, ~shown), pins.c.json))
    query = (
        sa.select(*(table.c[name] for name in names), purge)
        .outerjoin(_d, _d.c.id == table.c.document_id)
        .outerjoin(
            g, sa.and_(g.c.document_id == table.c.document_id, g.c.generation == table.c.generation)
        )
        .outerjoin(pins, pins.c.id == g.c.pin_id)
        .where(table.c.due_at <= now)
        .order_by(table.c.due_at, table.c.id)
        .limit(limit)
    )
    return [
        Cleanup(*rest, purge=Pin.from_json(pin) if pin else None)
        for *rest, pin in conn.execute(query)
    ]


def unreferenced_blobs(conn: Connection, before: float, limit: int) -> list[str]:
    table = schema.blobs
    query = (
        sa.select(table.c.content_hash)
        .where(table.c.unreferenced_since.is_not(None), table.c.unreferenced_since <= before)
        .order_by(table.c.unreferenced_since)
        .limit(limit)
    )
    return list(conn.execute(query).scalars())


def processes(conn: Connection, lease_now: float) -> list[tuple[WorkerRef, float]]:
    table = schema.processes
    query = sa.select(
        table.c.id, table.c.host, table.c.pid, table.c.version, table.c.kind, table.c.seen
    ).order_by(table.c.id)
    return [
        (WorkerRef(i, host, pid, version, kind), max(0.0, lease_now - seen))
        for i, host, pid, version, kind, seen in conn.execute(query)
    ]


def knobs(conn: Connection) -> dict[str, int]:
    query = sa.select(schema.knobs.c.name, schema.knobs.c.value)
    return {name: int(value) for name, value in conn.execute(query)}


def audit(conn: Connection, limit: int) -> list[dict[str, Any]]:
    table = schema.audit
    query = sa.select(table.c.id, table.c.at, table.c.by, table.c.action, table.c.data)
    return [
        {"id": i, "at": at, "by": by, "action": action, "data": json.loads(data)}
        for i, at, by, action, data in conn.execute(query.order_by(table.c.id.desc()).limit(limit))
    ]


def get_meta(conn: Connection, key: str) -> str | None:
    return conn.execute(sa.select(schema.meta.c.value).where(schema.meta.c.key == key)).scalar()
