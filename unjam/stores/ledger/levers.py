"""The operator's levers: lanes of documents in line, pauses, knobs, and who used them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from unjam.core.breaker import EVERY_LANE, PAUSE
from unjam.core.document import CLAIMABLE, State, Ticket
from unjam.core.ports import InLine, Strategy
from unjam.core.tuning import KNOBS, check_knob
from unjam.stores import schema
from unjam.stores.ledger import reads
from unjam.stores.ledger.commit import Committer
from unjam.stores.ledger.people import write_audit
from unjam.stores.ledger.tx import Tx

T = TypeVar("T")
_d = schema.documents
_p = schema.dependencies
_in_line = sa.text("state IN ('received', 'queued')")  # word for word the condition of the index
_LINE = (State.QUEUED, State.RECEIVED)
_turn = sa.func.row_number().over(partition_by=_d.c.user_id, order_by=_d.c.id)
_ORDERS: Mapping[Strategy, tuple[sa.ColumnElement[Any], ...]] = {
    "oldest_first": (_d.c.id.asc(),),  # ids grow with the time of acceptance
    "newest_first": (_d.c.id.desc(),),
    "smallest_first": (_d.c.size_bytes.asc(), _d.c.id.asc()),
    "largest_first": (_d.c.size_bytes.desc(), _d.c.id.asc()),
    "fair": (_turn.asc(), _d.c.id.asc()),
}

AT_ONCE = 250
"""Documents a transaction: some milliseconds, in which no heartbeat can be written."""


class Levers:
    """Mixed into ``SqlLedger``, which opens *_committer* and gives *_read*.

    The promises stand in ``core.ports.Ledger``.
    """

    _committer: Committer

    async def _read(self, question: Callable[..., T], *args: Any) -> T:
        raise AssertionError("the ledger brings its own")

    # -- lanes -------------------------------------------------------------------------------
    async def standing_in(self, lane: str, limit: int = 1000) -> list[Ticket]:
        return await self._read(_standing_in, lane, limit)

    async def in_line(
        self, cursor: str = "", limit: int = 2000, *, larger_than: int = -1
    ) -> tuple[list[InLine], str | None]:
        return await self._read(_page_in_line, cursor, limit, larger_than)

    async def ordered(self, lane: str, by: Strategy, limit: int) -> list[Ticket]:
        return await self._read(_ordered, lane, by, limit)

    async def change_lane(self, tickets: Sequence[Ticket], lane: str) -> list[Ticket]:
        moved: list[Ticket] = []
        for start in range(0, len(tickets), AT_ONCE):
            some = tickets[start : start + AT_ONCE]
            moved += await self._committer.submit(
                lambda tx, some=some: _change_lane(tx, some, lane), [t.document_id for t in some]
            )
        return moved

    # -- pauses ------------------------------------------------------------------------------
    async def pause(self, lane: str, by: str) -> None:
        await self._committer.submit(lambda tx: _pause(tx, lane, by))

    async def resume(self, lane: str, by: str) -> list[str]:
        return await self._committer.submit(lambda tx: _resume(tx, lane, by))

    # -- knobs, audit ------------------------------------------------------------------------
    async def set_knobs(self, values: Mapping[str, int | None], by: str) -> None:
        await self._committer.submit(lambda tx: _set_knobs(tx, values, by))

    async def audit_page(
        self, cursor: int | None = None, limit: int = 50
    ) -> tuple[list[dict[str, Any]], int | None]:
        return await self._read(_audit_page, cursor, limit)


# -- lanes ----------------------------------------------------------------------------------
def _standing_in(conn: Connection, lane: str, limit: int) -> list[Ticket]:
    query = reads.tickets.where(_in_line, _d.c.lane == lane)
    return [
        Ticket(*record) for record in conn.execute(query.order_by(_d.c.updated_at).limit(limit))
    ]


def _page_in_line(
    conn: Connection, cursor: str, limit: int, larger_than: int
) -> tuple[list[InLine], str | None]:
    """The queued ones, then the received ones, each by id. *cursor*: ``<state>:<last id>``."""
    state, _, after = cursor.partition(":")
    state = state or State.QUEUED.value
    query = reads.tickets.add_columns(
        _d.c.media_type, _d.c.created_at, _d.c.errors + _d.c.deaths, _d.c.home_lane
    ).where(_d.c.state == state, _d.c.id > after, _d.c.suspect == 0)
    if larger_than >= 0:
        query = query.where(_d.c.size_bytes > larger_than)
    rows = conn.execute(query.order_by(_d.c.id).limit(limit)).all()
    found = [InLine(Ticket(*row[:5]), row[5], row[6], row[7], row[8]) for row in rows]
    if len(found) == limit:
        return found, f"{state}:{found[-1].ticket.document_id}"
    return found, f"{State.RECEIVED.value}:" if state == State.QUEUED else None


def _ordered(conn: Connection, lane: str, by: Strategy, limit: int) -> list[Ticket]:
    query = reads.tickets.where(_in_line, _d.c.lane == lane).order_by(*_ORDERS[by]).limit(limit)
    return [Ticket(*record) for record in conn.execute(query)]


def _change_lane(tx: Tx, tickets: Sequence[Ticket], lane: str) -> list[Ticket]:
    """Its home stays: the next generation, and a retry by a person, begin there again."""
    moved: list[Ticket] = []
    for ticket in tickets:
        row = tx.find(ticket.document_id)
        if row is None or row.enqueue_seq != ticket.enqueue_seq:
            continue
        if State(row.state) not in CLAIMABLE or (ticket.lane or row.lane) == row.lane == lane:
            continue
        moved.append(replace(row.ticket(), lane=ticket.lane or row.lane))
        if row.lane != lane:
            tx.change(row, lane=lane)
    return moved


# -- pauses ---------------------------------------------------------------------------------
def _paused(tx: Tx) -> list[str]:
    query = sa.select(_p.c.name).where(_p.c.name >= PAUSE, _p.c.name < PAUSE + "\x7f")
    return list(tx.conn.execute(query.where(_p.c.state == "open")).scalars())


def _note_pause(tx: Tx, name: str, state: str, detail: str) -> None:
    row = {
        "name": name,
        "state": state,
        "reason": "paused" if state == "open" else "",
        "detail": detail,
        "until": None,
        "failures": 0,
        "updated_at": tx.now,
    }
    tx.upsert(_p, [row], update=("state", "reason", "detail", "until", "updated_at"))


def _pause(tx: Tx, lane: str, by: str) -> None:
    tx.dialect.lock(tx.conn, _LOCK)
    if PAUSE + lane not in _paused(tx):
        _note_pause(tx, PAUSE + lane, "open", f"paused by {by}")
        write_audit(tx, by, "pause", {"queue": lane})


def _resume(tx: Tx, lane: str, by: str) -> list[str]:
    tx.dialect.lock(tx.conn, _LOCK)
    ended = [n for n in _paused(tx) if PAUSE + lane in (n, EVERY_LANE)]
    for name in ended:
        _note_pause(tx, name, "closed", "")
    names = [name.removeprefix(PAUSE) for name in ended]
    if names:
        write_audit(tx, by, "resume", {"queues": names})
    return names


_LOCK = 0x7061757365  # any constant; "pause" in ASCII


# -- knobs, audit ---------------------------------------------------------------------------
def _set_knobs(tx: Tx, values: Mapping[str, int | None], by: str) -> None:
    """Raises UsageError before anything is changed."""
    for name, value in values.items():
        if value is not None or name not in KNOBS:
            check_knob(name, value or 0)
    table = schema.knobs
    before = reads.knobs(tx.conn)
    for name, value in values.items():
        if value == before.get(name):
            continue
        if value is None:
            tx.execute(sa.delete(table).where(table.c.name == name))
        else:
            tx.upsert(table, [{"name": name, "value": value}], update=("value",))
        write_audit(tx, by, "set_knob", {"name": name, "value": value, "before": before.get(name)})


def _audit_page(
    conn: Connection, cursor: int | None, limit: int
) -> tuple[list[dict[str, Any]], int | None]:
    table = schema.audit
    query = sa.select(table.c.id, table.c.at, table.c.by, table.c.action, table.c.data)
    if cursor is not None:
        query = query.where(table.c.id < cursor)
    rows = conn.execute(query.order_by(table.c.id.desc()).limit(limit + 1)).all()
    items = [
        {"id": i, "at": at, "by": by, "action": action, "data": json.loads(data)}
        for i, at, by, action, data in rows[:limit]
    ]
    return items, items[-1]["id"] if len(rows) > limit else None
