"""The circuit breakers' rows, shared by all processes; ``core.breaker`` decides."""

from __future__ import annotations

import random

import sqlalchemy as sa
from sqlalchemy import Connection

from unjam.core import breaker
from unjam.core.breaker import Breaker
from unjam.stores import schema
from unjam.stores.ledger.tx import Tx

_t = schema.dependencies
_d = schema.documents
_rows = sa.select(
    _t.c.name, _t.c.state, _t.c.reason, _t.c.detail, _t.c.until, _t.c.failures, _t.c.updated_at
)
_LOCK = 0x627265616B  # any constant; "break" in ASCII

WAKE_AT_ONCE = 2000
WAKE_SPREAD_S = 1.5
"""Those who waited for a dependency come back over this time, not in one instant."""


def states(conn: Connection) -> dict[str, Breaker]:
    return {row[0]: Breaker(*row) for row in conn.execute(_rows)}


def report(
    tx: Tx, name: str, reason: str, detail: str, told_s: float | None, checked: bool
) -> Breaker:
    before = _find(tx, name)
    after = breaker.trip(before, reason, detail[:2000], tx.now, told_s, checked=checked)
    if after is not before:
        _keep(tx, after)
    return after


def probe(tx: Tx, name: str) -> bool:
    mine = breaker.probe(_find(tx, name), tx.now)
    if mine is not None:
        _keep(tx, mine)
    return mine is not None


def close(tx: Tx, name: str) -> int:
    """Waiting documents of that dependency are woken, spread over WAKE_SPREAD_S; how many."""
    before = _find(tx, name)
    if before.holds:
        _keep(tx, breaker.passed(before, tx.now))
    query = (
        sa.select(_d.c.id)
        .where(
            _d.c.next_step_at > tx.now + WAKE_SPREAD_S,
            _d.c.reason.in_(breaker.reasons_of(name)),
        )
        .order_by(_d.c.next_step_at)
        .limit(WAKE_AT_ONCE)
    )
    woken = [row for row in tx.ids(query) if row.next_step_at is not None]
    for row in woken:
        tx.change(row, next_step_at=tx.now + random.random() * WAKE_SPREAD_S)
    return len(woken)


def _find(tx: Tx, name: str) -> Breaker:
    tx.dialect.lock(tx.conn, _LOCK)
    found = tx.execute(_rows.where(_t.c.name == name)).first()
    return Breaker(*found) if found else Breaker(name)


def _keep(tx: Tx, row: Breaker) -> None:
    values = {
        "name": row.name,
        "state": row.state,
        "reason": row.reason,
        "detail": row.detail,
        "until": row.until,
        "failures": row.failures,
        "updated_at": row.changed_at,
    }
    tx.upsert(_t, [values], update=tuple(k for k in values if k != "name"))
