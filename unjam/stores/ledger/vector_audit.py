"""The ledger's half of the audit of vectors: what must be there, what is missing, what may go.

Mixed into ``SqlLedger``. A document with chunks absent from the vector store is noted in ``gaps``
under its visible generation; the note ends by itself when another generation becomes visible, or
when the chunks are seen again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from unjam.core.document import ENDED, Pin, State, Ticket
from unjam.core.errors import UsageError
from unjam.core.events import EventKind
from unjam.core.ports import Keeping, VisibleChunks
from unjam.stores import schema
from unjam.stores.ledger import upkeep
from unjam.stores.ledger.commit import Committer
from unjam.stores.ledger.people import regenerate
from unjam.stores.ledger.tx import Tx

T = TypeVar("T")
_d = schema.documents
_g = schema.gaps
_seen = sa.text("visible_generation > 0 AND shown <> 0")  # literally, as the partial index has it
_AT_ONCE = 400

OVER = frozenset({State.DEAD, State.CANCELLED, State.DELETED})
"""A document's newest generation will never be visible when the document ended so."""


class VectorAuditLedger:
    """The promises stand in ``core.ports.Ledger``."""

    _committer: Committer

    async def _read(self, question: Callable[..., T], *args: Any) -> T:
        raise AssertionError("the ledger brings its own")

    async def visible_chunks(
        self, after: tuple[str, str] = ("", ""), limit: int = 200
    ) -> list[VisibleChunks]:
        return await self._read(_visible_chunks, after, limit)

    async def visible_totals(self) -> dict[str, int]:
        return await self._read(_visible_totals)

    async def note_missing(self, n: int) -> None:
        """*n* documents are missing for another reason than noted gaps."""
        if n < 0:
            raise UsageError(f"{n} documents cannot be missing")
        await self._committer.submit(lambda tx: upkeep.put_meta(tx, "chunks_missing", n))

    async def note_gaps(self, found: Sequence[VisibleChunks]) -> list[Ticket]:
        if not found:
            return []
        ids = [v.document_id for v in found]
        return await self._committer.submit(lambda tx: _note(tx, found), ids)

    async def open_gaps(self, after: str = "", limit: int = 200) -> list[VisibleChunks]:
        return await self._read(_open_gaps, after, limit)

    async def close_gaps(self, whole: Sequence[VisibleChunks] = ()) -> int:
        return await self._committer.submit(lambda tx: _close(tx, whole))

    async def keeping(self, pairs: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Keeping]:
        return await self._read(_keeping, list(pairs))


# -- what must be there ---------------------------------------------------------------------
_columns = (_d.c.id, _d.c.visible_generation, _d.c.chunks, _d.c.visible_pin)


def _found(record: Any) -> VisibleChunks:
    document_id, generation, chunks, pin_id, pin = record
    collection = Pin.from_json(pin).fingerprint.collection
    return VisibleChunks(document_id, generation, chunks, collection, pin_id)


def _visible_chunks(conn: Connection, after: tuple[str, str], limit: int) -> list[VisibleChunks]:
    """In the order of the partial index: by pin, then by id."""
    place = sa.tuple_(_d.c.visible_pin, _d.c.id)
    head = (
        sa.select(*_columns)
        .where(_seen, place > sa.tuple_(*after))
        .order_by(_d.c.visible_pin, _d.c.id)
        .limit(limit)
    )
    pins = _pins(conn)
    return [_found((*record, pins[record[3]])) for record in conn.execute(head)]


def _pins(conn: Connection) -> dict[str, str]:
    query = sa.select(schema.pins.c.id, schema.pins.c.json)
    return {str(i): str(text) for i, text in conn.execute(query)}


def _visible_totals(conn: Connection) -> dict[str, int]:
    """Chunks by collection; one walk over a covering index, 0.1 s at a million documents."""
    total = sa.func.sum(_d.c.chunks)
    query = sa.select(_d.c.visible_pin, total).where(_seen).group_by(_d.c.visible_pin)
    pins = _pins(conn)
    totals: dict[str, int] = {}
    for pin_id, chunks in conn.execute(query):
        collection = Pin.from_json(pins[pin_id]).fingerprint.collection
        totals[collection] = totals.get(collection, 0) + int(chunks)
    return totals


# -- what is missing ------------------------------------------------------------------------
def _still() -> sa.ColumnElement[bool]:
    """The note of this row of ``gaps`` holds: a look at one document each, whatever there is."""
    ended = [s.value for s in ENDED if s is not State.SEARCHABLE]
    return (
        sa.select(sa.literal(1))
        .select_from(_d)
        .where(
            _d.c.id == _g.c.document_id,
            _d.c.visible_generation == _g.c.generation,
            _d.c.shown != 0,
            _d.c.state.not_in(ended),
        )
        .correlate(_g)
        .exists()
    )


def count_gaps(conn: Connection) -> int:
    """Documents that search should show, and cannot in full; costs by their number."""
    query = sa.select(sa.func.count()).select_from(_g).where(_still())
    return conn.execute(query).scalar_one()


def _note(tx: Tx, found: Sequence[VisibleChunks]) -> list[Ticket]:
    """Those still shown under that generation. Who works on a newer one already is only noted."""
    tickets: list[Ticket] = []
    noted: list[dict[str, Any]] = []
    for one in found:
        row = tx.find(one.document_id)
        if row is None or not row.shown or row.visible_generation != one.generation:
            continue
        if State(row.state) in OVER:
            continue
        noted.append({"document_id": row.id, "generation": one.generation, "at": tx.now})
        if row.state == State.SEARCHABLE:
            # With the pin it has: its vectors are in the cache under that one.
            tickets.append(regenerate(tx, row, EventKind.UPDATED, "vectors_missing", None))
    if noted:
        tx.upsert(_g, noted, update=("generation", "at"))
    if tickets:
        upkeep.note_vectors_lost(tx, len(tickets))
    return tickets


def _open_gaps(conn: Connection, after: str, limit: int) -> list[VisibleChunks]:
    noted = (
        sa.select(_g.c.document_id)
        .where(_g.c.document_id > after, _still())
        .order_by(_g.c.document_id)
        .limit(limit)
    )
    ids = list(conn.execute(noted).scalars())
    pins = _pins(conn) if ids else {}
    query = sa.select(*_columns).where(_d.c.id.in_(ids)).order_by(_d.c.id)
    return [_found((*record, pins[record[3]])) for record in conn.execute(query)] if ids else []


def _close(tx: Tx, whole: Sequence[VisibleChunks]) -> int:
    """Forget the notes on *whole*, and those that ended by themselves."""
    for one in whole:
        here = (_g.c.document_id == one.document_id) & (_g.c.generation == one.generation)
        tx.execute(sa.delete(_g).where(here))
    over = sa.select(_g.c.document_id).where(~_still()).limit(_AT_ONCE)
    ids = [i for (i,) in tx.execute(over)]
    if ids:
        tx.execute(sa.delete(_g).where(_g.c.document_id.in_(ids)))
    return len(whole) + len(ids)


# -- what may go ----------------------------------------------------------------------------
def _keeping(conn: Connection, pairs: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Keeping]:
    """Ask after the vector store: a chunk seen there had its generation in the ledger before."""
    ids = sorted({document_id for document_id, _ in pairs})
    rows: dict[str, Any] = {}
    for start in range(0, len(ids), _AT_ONCE):
        query = sa.select(_d.c.id, _d.c.state, _d.c.generation, _d.c.visible_generation, _d.c.shown)
        part = ids[start : start + _AT_ONCE]
        rows |= {r.id: r for r in conn.execute(query.where(_d.c.id.in_(part)))}
    return {pair: _judge(rows.get(pair[0]), pair[1]) for pair in pairs}


def _judge(row: Any, generation: int) -> Keeping:
    if row is None:
        return "unknown"
    if not row.shown:
        return "over"
    if generation == row.visible_generation:
        return "kept"
    newest = generation == row.generation and State(row.state) not in OVER
    return "kept" if newest else "over"
