"""How many documents were accepted, by minute."""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa
from sqlalchemy import Connection

from unjam.stores import schema

_a = schema.acceptances
SLOWEST_UPLOAD_S = 3600
"""An id is made when its upload begins, and accepted when it ends."""


def arrivals(conn: Connection, first_minute: int, end_minute: int) -> dict[int, int]:
    """As ``core.ports.Ledger`` has it: a range of the key, since ids sort by time."""
    query = sa.select(_a.c.at).where(
        _a.c.document_id >= _lowest(first_minute * 60 - SLOWEST_UPLOAD_S),
        _a.c.at >= first_minute * 60,
        _a.c.at < end_minute * 60,
    )
    # Not grouped in SQL: rounding a float down is spelled differently in each database.
    return dict(Counter(int(at // 60) for at in conn.execute(query).scalars()))


def _lowest(at: float) -> str:
    """No UUIDv7 that was made from *at* (Unix seconds) on sorts before it (RFC 9562, 5.7)."""
    digits = f"{max(0, int(at * 1000)):012x}"
    return f"{digits[:8]}-{digits[8:]}"
