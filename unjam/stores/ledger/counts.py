"""What a transaction counted is written once, at its end: counters, and completions by minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from unjam.stores import schema
from unjam.stores.ledger import upserts
from unjam.stores.ledger.dialect import Dialect

Counts = Mapping[tuple[str, str], float]
"""(counter, queue) → how much it grows."""


def write_counts(conn: Connection, dialect: Dialect, counts: Counts, now: float) -> None:
    """Raise the counters; *now* (Unix seconds) says in which minute documents were completed."""
    if not counts:
        return
    rows = [
        {"name": name, "queue": queue, "value": value}
        for (name, queue), value in sorted(counts.items())
    ]
    add(conn, dialect, schema.counters, rows)
    done = [
        {
            "minute": int(now // 60),
            "queue": queue,
            "jobs": int(value),
            "duration_s": counts.get(("duration_sum", queue), 0.0),
        }
        for (name, queue), value in sorted(counts.items())
        if name == "jobs_completed"
    ]
    if done:
        add(conn, dialect, schema.completions, done)


def add(
    conn: Connection, dialect: Dialect, table: sa.Table, rows: Sequence[Mapping[str, Any]]
) -> None:
    """INSERT, or add every column but the key to what the row holds already."""
    conn.execute(upserts.grow(dialect.name, table), list(rows))
