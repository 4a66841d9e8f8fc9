"""Tx: one write transaction, shared by every operation of a group.

Operations load documents, change their working copies through ``move`` and ``change``, and note
events, counts and cleanups; everything is written at the end in a few batched statements. Each
state change passes ``move``, so an illegal one cannot reach the database. Rows stay as they were
loaded because the transaction owns the only write lock (SQLite) or locks them (PostgreSQL).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Connection

from unjam.core.document import RUNNING, Document, Pin, State, Ticket, is_legal
from unjam.core.errors import NotFound
from unjam.core.events import EventKind
from unjam.core.lease import CLEANUP_AGAIN_S
from unjam.stores import schema
from unjam.stores.ledger import upserts
from unjam.stores.ledger.counts import write_counts
from unjam.stores.ledger.dialect import Dialect
from unjam.stores.ledger.doubt import EVENTS_LOCK, Mark
from unjam.stores.ledger.row import FIELDS, Row

_d = schema.documents
_columns = [_d.c[name] for name in FIELDS]
_by_ids = sa.select(*_columns).where(_d.c.id.in_(sa.bindparam("ids", expanding=True)))
_insert = sa.insert(_d)
_insert_acceptances = sa.insert(schema.acceptances)
_insert_generations = sa.insert(schema.generations)
_insert_cleanups = sa.insert(schema.cleanups)
_insert_events = sa.insert(schema.events)
_update = sa.update(_d).where(_d.c.id == sa.bindparam("key"))
CHUNK = 500


class Tx:
    """Not thread-safe; lives inside one BEGIN … COMMIT. ``now`` and ``lease_now`` are fixed."""

    def __init__(self, conn: Connection, dialect: Dialect, pins: dict[str, Pin], lane: str) -> None:
        self.conn = conn
        self.dialect = dialect
        self.suspect_lane = lane
        self.now, self.lease_now, version = dialect.moment(conn)
        self.newer = version if version > schema.HEAD else ""
        """The ledger's version, when a newer program has migrated it."""
        self.changes = 0  # grows with each change noted; a failed operation must leave it alone
        self._pins = pins
        self._rows: dict[str, Row | None] = {}
        self._new: dict[str, Row] = {}
        self._hot: dict[str, Row] = {}
        self._cold: set[str] = set()
        self._events: list[dict[str, Any]] = []
        self._counts: dict[tuple[str, str], float] = {}
        self._acceptances: list[dict[str, Any]] = []
        self._generations: list[dict[str, Any]] = []
        self._flips: list[dict[str, Any]] = []
        self._cleanups: list[dict[str, Any]] = []
        self._names: dict[tuple[str, str], dict[str, Any]] = {}
        self._linked: dict[str, int] = {}
        self._loose: set[str] = set()
        self._kept_pins: set[str] = set()
        self._contents: dict[tuple[str, str], list[Row]] = {}

    # -- documents ---------------------------------------------------------------------------
    def load(self, ids: Iterable[str], *, free: bool = False) -> None:
        """Fetch (and on PostgreSQL lock) the documents in few statements; with *free* only those
        that nobody has locked."""
        wanted = sorted({i for i in ids if i not in self._rows})
        select = self.dialect.locking(_by_ids, _d.c.id, free=free)
        for start in range(0, len(wanted), CHUNK):
            part = wanted[start : start + CHUNK]
            if not free:
                self._rows.update(dict.fromkeys(part))
            for record in self.conn.execute(select, {"ids": part}):
                self._rows[record[0]] = Row(*record)

    def find(self, document_id: str) -> Row | None:
        if document_id not in self._rows:
            self.load([document_id])
        return self._rows[document_id]

    def need(self, document_id: str) -> Row:
        """Raises NotFound."""
        row = self.find(document_id)
        if row is None:
            raise NotFound(f"there is no document {document_id}")
        return row

    def copies(self, user_id: str, hashes: Sequence[str]) -> dict[str, list[Row]]:
        """Content hash → this user's documents with these bytes, deleted ones left out.

        Asks the database without a flush, and adds what this transaction made itself: uploads
        that share a group cost one query each.
        """
        query = sa.select(_d.c.id).where(
            _d.c.user_id == user_id, _d.c.content_hash.in_(hashes), schema.is_shown
        )
        ids = [record[0] for record in self.conn.execute(query.order_by(_d.c.id))]
        self.load(ids)
        rows = {i: self._rows[i] for i in ids}
        found: dict[str, list[Row]] = {}
        for content_hash in dict.fromkeys(hashes):
            rows.update({r.id: r for r in self._contents.get((user_id, content_hash), ())})
        for row in rows.values():
            if row is not None and row.shown:
                found.setdefault(row.content_hash, []).append(row)
        return found

    def add(self, row: Row) -> None:
        self.changes += 1
        self._rows[row.id] = row
        self._new[row.id] = row
        self._contents.setdefault((row.user_id, row.content_hash), []).append(row)

    def accepted(self, row: Row) -> None:
        """The row's id joins the append-only acceptances, which the equation counts."""
        self._acceptances.append({"document_id": row.id, "at": self.now})

    def change(self, row: Row, **values: object) -> None:
        """Note new column values; the state has a verb of its own."""
        assert "state" not in values
        self._note(row, values)

    def move(
        self,
        row: Row,
        target: State,
        kind: EventKind,
        data: Mapping[str, Any] | None = None,
        **values: object,
    ) -> None:
        """One legal step, with its event. Leaving the running states ends lease and token."""
        source = State(row.state)
        if not is_legal(source, target):
            raise AssertionError(f"illegal move {source} -> {target} of {row.id}")
        if source in RUNNING and target not in RUNNING:
            self._note(row, _NO_LEASE)
        self._note(row, {"state": target.value, "updated_at": self.now, **values})
        self.event(row, kind, {"from": source.value, "to": target.value, **(data or {})})

    def _note(self, row: Row, values: Mapping[str, object]) -> None:
        self.changes += 1
        for name, value in values.items():
            setattr(row, name, value)
        if "content_hash" in values:
            self._contents.setdefault((row.user_id, row.content_hash), []).append(row)
        if row.id in self._new:
            return
        self._hot[row.id] = row
        if not schema.HOT_SET.issuperset(values):
            self._cold.add(row.id)

    def to_work(self, row: Row, kind: EventKind, why: str, **values: object) -> Ticket:
        """→ received, under a new enqueue sequence; older tickets become stale."""
        merged: dict[str, object] = {
            "enqueue_seq": row.enqueue_seq + 1,
            "reason": why if why in _SHOWN_WHYS else "",
            "detail": "",
            "next_step_at": None,
            **values,
        }
        data = {"why": why, "seq": row.enqueue_seq + 1}
        self.move(row, State.RECEIVED, kind, data, **merged)
        return row.ticket()

    # -- what travels along ------------------------------------------------------------------
    def event(self, row: Row, kind: EventKind, data: Mapping[str, Any]) -> None:
        self.changes += 1
        self._events.append(
            {
                "document_id": row.id,
                "generation": row.generation,
                "at": self.now,
                "kind": kind.value,
                "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")),
            }
        )

    def count(self, name: str, queue: str, by: float = 1.0) -> None:
        self.changes += 1
        key = (name, queue)
        self._counts[key] = self._counts.get(key, 0.0) + by

    def generation(self, row: Row) -> None:
        """The row's newest generation begins."""
        self._generations.append(
            {
                "document_id": row.id,
                "generation": row.generation,
                "content_hash": row.content_hash,
                "pin_id": row.pin_id,
                "size_bytes": row.size_bytes,
                "media_type": row.media_type,
                "created_at": self.now,
            }
        )

    def flip(self, row: Row) -> None:
        """The row's newest generation became visible."""
        self._flips.append(
            {"doc": row.id, "gen": row.generation, "chunks": row.chunks, "visible_at": self.now}
        )

    def clean_abandoned(self, row: Row) -> None:
        """Its newest generation will never be visible: whatever chunks it stored must go."""
        if row.generation > row.visible_generation and row.started_generation == row.generation:
            self._clean(row, row.generation, row.pin_id, -1)

    def clean_visible(self, row: Row) -> None:
        """The chunks that search shows now are about to be superseded or deleted."""
        if row.visible_generation and row.chunks:
            self._clean(row, row.visible_generation, row.visible_pin, row.chunks)

    def _clean(self, row: Row, generation: int, pin_id: str, last: int) -> None:
        for due_at in (self.now, self.now + CLEANUP_AGAIN_S):
            self._cleanups.append(
                {
                    "document_id": row.id,
                    "generation": generation,
                    "collection": self.pin(pin_id).fingerprint.collection,
                    "first": 0,
                    "last": last,
                    "due_at": due_at,
                }
            )

    def unlink(self, *hashes: str) -> None:
        """These blobs lost a reference; whether it was the last one is looked up at the end."""
        self._loose.update(h for h in hashes if h)

    def pin(self, pin_id: str) -> Pin:
        if pin_id not in self._pins:
            query = sa.select(schema.pins.c.json).where(schema.pins.c.id == pin_id)
            self._pins[pin_id] = Pin.from_json(self.conn.execute(query).scalar_one())
        return self._pins[pin_id]

    def name(self, row: Row, filename: str, metadata: str) -> None:
        """Its bytes arrived under a further name, or with other metadata."""
        self.changes += 1
        self._names[row.id, filename] = {
            "document_id": row.id,
            "filename": filename,
            "metadata": metadata,
            "at": self.now,
        }

    def link(self, content_hash: str, size_bytes: int) -> None:
        """The blob is referenced (again)."""
        self.changes += 1
        self._linked[content_hash] = size_bytes

    def keep_pin(self, pin: Pin) -> None:
        if pin.id in self._kept_pins:
            return
        self._kept_pins.add(pin.id)
        self.upsert(
            schema.pins,
            [{"id": pin.id, "fingerprint_id": pin.fingerprint.id, "json": pin.to_json()}],
            update=(),
        )

    # -- statements --------------------------------------------------------------------------
    def execute(self, statement: sa.Executable, values: Any = None) -> sa.CursorResult[Any]:
        """Run a statement that must see what this transaction changed so far."""
        self.flush()
        if not isinstance(statement, sa.Select):
            self.changes += 1
        return cast("sa.CursorResult[Any]", self.conn.execute(statement, values))

    def ids(self, statement: sa.Select[Any], *, free: bool = False) -> list[Row]:
        """The documents whose ids *statement* selects, loaded, in its order; with *free* without
        those that another transaction has locked: a stuck one holds up its own documents only."""
        found = [record[0] for record in self.execute(statement)]
        self.load(found, free=free)
        return [row for i in found if (row := self._rows.get(i)) is not None]

    def upsert(
        self, table: sa.Table, rows: Sequence[Mapping[str, Any]], update: Sequence[str]
    ) -> None:
        """INSERT … ON CONFLICT (primary key) DO UPDATE the named columns, or nothing."""
        self.changes += 1
        statement = upserts.upsert(self.dialect.name, table, tuple(update))
        self.conn.execute(statement, list(rows))

    def flush(self) -> None:
        """Write the working copies; queries by state need it first."""
        if self._new:
            self.conn.execute(_insert, [row.values() for row in self._new.values()])
            self._new.clear()
        hot = [r.hot_values() for i, r in self._hot.items() if i not in self._cold]
        cold = [r.values("key") for i, r in self._hot.items() if i in self._cold]
        for values in (hot, cold):  # two statements: indexes of cold columns are left in peace
            if values:
                self.conn.execute(_update, values)
        self._hot.clear()
        self._cold.clear()
        if self._names:
            self.upsert(schema.names, list(self._names.values()), update=("metadata",))
            self._names.clear()

    def finish(self) -> None:
        """Write all that is left; the caller commits."""
        self.flush()
        if self._acceptances:
            self.conn.execute(_insert_acceptances, self._acceptances)
        if self._generations:
            self.conn.execute(_insert_generations, self._generations)
        if self._flips:
            self.conn.execute(_flip_generation, self._flips)
        if self._cleanups:
            self.conn.execute(_insert_cleanups, self._cleanups)
        if self._linked:
            rows = [
                {"content_hash": h, "size_bytes": n, "unreferenced_since": None}
                for h, n in sorted(self._linked.items())
            ]
            self.upsert(schema.blobs, rows, update=("unreferenced_since",))
        for content_hash in sorted(self._loose):
            self._mark_unreferenced(content_hash)
        if self._events or self._counts:
            # Held until COMMIT: events become visible in the order of their numbers, so that a
            # reader who remembers the last number it saw misses none.
            self.dialect.lock(self.conn, EVENTS_LOCK)
        if self._events:
            self.conn.execute(_insert_events, self._events)
        if self._counts:
            write_counts(self.conn, self.dialect, self._counts, self.now)

    def mark(self) -> Mark | None:
        """By what this transaction is known again, once it is written; None: by nothing."""
        if not self._events:
            return None
        last = self._events[-1]
        return Mark(last["document_id"], last["at"], last["kind"])

    def _mark_unreferenced(self, content_hash: str) -> None:
        # The blob's row is locked before the references are looked at: of two transactions that
        # drop the last two references, the second one sees what the first one did.
        row = sa.select(schema.blobs.c.content_hash).where(
            schema.blobs.c.content_hash == content_hash
        )
        self.conn.execute(self.dialect.locking(row, schema.blobs.c.content_hash))
        if not self.referenced(content_hash):
            self.conn.execute(
                sa.update(schema.blobs)
                .where(schema.blobs.c.content_hash == content_hash)
                .values(unreferenced_since=self.now)
            )

    def referenced(self, content_hash: str) -> bool:
        """Whether a document that is not deleted has it as its newest or visible content."""
        newest = sa.select(_d.c.id).where(_d.c.content_hash == content_hash, schema.is_shown)
        shown = sa.select(_d.c.id).where(
            _d.c.visible_hash == content_hash, sa.text("visible_hash <> ''"), schema.is_shown
        )
        return any(self.conn.execute(q.limit(1)).first() for q in (newest, shown))

    def document(self, row: Row) -> Document:
        """The public record, further names included."""
        self.flush()
        return row.document(names_of(self.conn, [row.id]).get(row.id, ()))


_NO_LEASE: Mapping[str, object] = {"worker": "", "lease_until": None, "alone": 0}
_SHOWN_WHYS = frozenset({"worker_died", "handed_back"})
_g = schema.generations
_flip_generation = (
    sa.update(_g)
    .where(_g.c.document_id == sa.bindparam("doc"), _g.c.generation == sa.bindparam("gen"))
    .values(chunks=sa.bindparam("chunks"), visible_at=sa.bindparam("visible_at"))
)
_NAMES_SHOWN = 100


def names_of(conn: Connection, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Document id → further names under which its bytes arrived, oldest first, at most 100."""
    table = schema.names
    query = (
        sa.select(table.c.document_id, table.c.filename)
        .where(table.c.document_id.in_(ids))
        .order_by(table.c.document_id, table.c.at, table.c.filename)
    )
    found: dict[str, list[str]] = {}
    for document_id, filename in conn.execute(query):
        found.setdefault(document_id, []).append(filename)
    return {i: tuple(several[:_NAMES_SHOWN]) for i, several in found.items()}
