"""A connection that is lost in the middle of a COMMIT: did it happen? (PostgreSQL only.)

The answer is in the ledger: an event of the transaction is there, or it is not. That holds after
a crash and on a promoted replica, too, where the numbers of transactions may have been given anew
(so ``pg_xact_status`` could speak of somebody else's).
"""

from __future__ import annotations

import time
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Engine

from unjam.stores import schema
from unjam.stores.ledger.dialect import Dialect, as_down

EVENTS_LOCK = 0x756E6A616D  # any constant; "unjam" in ASCII
"""Held by each transaction with events from their insertion to its end (``Tx.finish``)."""
FIND_OUT_S = 5.0
"""How long a server that went away is waited for: a restart takes a second or two. After that
nobody knows, and whoever asked for the transaction is told so."""
LOOK_AGAIN_S = 0.2
_e = schema.events


class Mark(NamedTuple):
    """An event of a transaction. Its document was locked, so no other has the same three."""

    document_id: str
    at: float
    kind: str


def happened(mark: Mark, engine: Engine, dialect: Dialect) -> bool | None:
    """Whether the transaction of *mark* was committed; None: it could not be found out in time."""
    query = sa.select(_e.c.seq).where(
        _e.c.document_id == mark.document_id, _e.c.at == mark.at, _e.c.kind == mark.kind
    )
    limit = time.monotonic() + FIND_OUT_S
    while True:
        try:
            with engine.connect() as conn, conn.begin():
                # A standby may not have heard of it yet.
                if not conn.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one():
                    dialect.lock(conn, EVENTS_LOCK)  # the old session has ended, one way or other
                    return conn.execute(query.limit(1)).first() is not None
        except Exception as error:
            if as_down(error) is None:
                raise
        if time.monotonic() > limit:
            return None
        time.sleep(LOOK_AGAIN_S)
