"""What the ledger forgets, in slices: old events, old idempotency keys, old minutes."""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa

from unjam.stores import schema
from unjam.stores.ledger.counts import add
from unjam.stores.ledger.tx import Tx

DAY_S = 86_400.0
EVENTS_KEPT_S = 30 * DAY_S
KEYS_KEPT_S = 7 * DAY_S
"""An Idempotency-Key is remembered this long; afterwards it is a new one."""
MINUTES_KEPT = 3 * 1440
"""Completions are kept by minute for so many minutes, then by quarter-hour: every time zone's
days begin at one."""
QUARTERS_KEPT = 400 * 1440
_QUARTER = 15


def trim(tx: Tx, limit: int) -> int:
    """Forget at most *limit* rows of each kind; how many of the kind that had most."""
    return max(_events(tx, limit), _keys(tx, limit), _minutes(tx, limit))


def _events(tx: Tx, limit: int) -> int:
    """The oldest, as long as they are past their time; their number by day and kind is kept."""
    table = schema.events
    query = sa.select(table.c.seq, table.c.at, table.c.kind).where(table.c.seq > 0)
    last, days = 0, Counter[tuple[int, str]]()
    for row in tx.execute(query.order_by(table.c.seq).limit(limit)):
        if row.at > tx.now - EVENTS_KEPT_S:
            break
        last = row.seq
        days[int(row.at // DAY_S), row.kind] += 1
    if last:
        tx.execute(sa.delete(table).where(table.c.seq <= last))
        rows = [{"day": day, "kind": kind, "n": n} for (day, kind), n in sorted(days.items())]
        add(tx.conn, tx.dialect, schema.event_days, rows)
    return days.total()


def _keys(tx: Tx, limit: int) -> int:
    table = schema.idempotency
    query = sa.select(table.c.at).where(table.c.at < tx.now - KEYS_KEPT_S)
    found = tx.execute(query.order_by(table.c.at).limit(limit)).scalars().all()
    if found:
        tx.execute(sa.delete(table).where(table.c.at <= found[-1]))
    return len(found)


def _minutes(tx: Tx, limit: int) -> int:
    """Fold minutes into their quarter-hour; drop what is older than a year and a month."""
    table = schema.completions
    now = int(tx.now // 60)
    until = (now - MINUTES_KEPT) // _QUARTER * _QUARTER
    query = sa.select(table.c.minute, table.c.queue, table.c.jobs, table.c.duration_s).where(
        table.c.minute >= until - MINUTES_KEPT,
        table.c.minute < until,
        table.c.minute % _QUARTER != 0,
    )
    rows = tx.execute(query.order_by(table.c.minute, table.c.queue).limit(limit)).all()
    if rows:
        fields = ("minute", "queue", "jobs", "duration_s")
        for minute, *rest in rows:
            row = (minute - minute % _QUARTER, *rest)
            add(tx.conn, tx.dialect, table, [dict(zip(fields, row, strict=True))])
        keys = sa.tuple_(table.c.minute, table.c.queue)
        tx.execute(sa.delete(table).where(keys.in_([(r.minute, r.queue) for r in rows])))
    tx.execute(sa.delete(table).where(table.c.minute < now - QUARTERS_KEPT))
    return len(rows)
