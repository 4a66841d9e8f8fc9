"""The operator's levers: the lane of documents that stand in line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from unjam.core.document import CLAIMABLE, State, Ticket
from unjam.stores import schema
from unjam.stores.ledger.commit import Committer
from unjam.stores.ledger.reads import tickets
from unjam.stores.ledger.tx import Tx

T = TypeVar("T")
_d = schema.documents
_in_line = sa.text("state IN ('received', 'queued')")  # word for word the condition of the index

AT_ONCE = 250
"""Documents a transaction: some milliseconds, in which no heartbeat can be written."""


class Levers:
    """Mixed into ``SqlLedger``, which opens *_committer* and gives *_read*.

    The promises stand in ``core.ports.Ledger``.
    """

    _committer: Committer

    async def _read(self, question: Callable[..., T], *args: Any) -> T:
        raise AssertionError("the ledger brings its own")

    async def standing_in(self, lane: str, limit: int = 1000) -> list[Ticket]:
        return await self._read(_standing_in, lane, limit)

    async def change_lane(self, tickets: Sequence[Ticket], lane: str) -> list[Ticket]:
        moved: list[Ticket] = []
        for start in range(0, len(tickets), AT_ONCE):
            some = tickets[start : start + AT_ONCE]
            moved += await self._committer.submit(
                lambda tx, some=some: _change_lane(tx, some, lane), [t.document_id for t in some]
            )
        return moved


def _standing_in(conn: Connection, lane: str, limit: int) -> list[Ticket]:
    query = tickets.where(_in_line, _d.c.lane == lane)
    return [
        Ticket(*record) for record in conn.execute(query.order_by(_d.c.updated_at).limit(limit))
    ]


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
