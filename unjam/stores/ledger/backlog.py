"""How much stands in line: what backpressure is judged by. Flat however long the line is."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Connection

from unjam.core.document import State
from unjam.core.ports import Backlog
from unjam.stores import schema
from unjam.stores.ledger.reads import state_counts

_d = schema.documents
_LINE = (State.RECEIVED, State.QUEUED)

SAMPLE = 5_000
"""Documents of each state whose sizes are added up, oldest first: 5 ms. The rest is estimated
from their mean."""


def measure(conn: Connection, now: float) -> Backlog:
    counts = state_counts(conn)
    total, oldest = 0.0, now
    for state in _LINE:
        if not counts[state]:
            continue
        head = (
            sa.select(_d.c.size_bytes, _d.c.updated_at)
            .where(_d.c.state == state.value)
            .order_by(_d.c.id)
            .limit(SAMPLE)
            .subquery()
        )
        query = sa.select(
            sa.func.count().label("seen"),
            sa.func.sum(head.c.size_bytes).label("size"),
            sa.func.min(head.c.updated_at).label("since"),
        )
        found = conn.execute(query.select_from(head)).one()
        if found.seen:
            total += float(found.size) * max(1.0, counts[state] / found.seen)
            oldest = min(oldest, found.since)
    documents = sum(counts[state] for state in _LINE)
    return Backlog(documents, int(total), max(0.0, now - oldest))
