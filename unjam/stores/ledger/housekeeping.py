"""Housekeeping: the half of ``SqlLedger`` for statistics, upkeep, bookmarks and restore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy import Connection

from unjam.core.ports import Completed
from unjam.stores import schema
from unjam.stores.ledger import reads, upkeep
from unjam.stores.ledger.arrivals import arrivals
from unjam.stores.ledger.claims import SLO_S
from unjam.stores.ledger.levers import Levers
from unjam.stores.ledger.rebuild import rebuild
from unjam.stores.ledger.trim import trim
from unjam.stores.ledger.tx import Tx
from unjam.stores.ledger.vitals import VitalSigns

_d = schema.documents
_b = schema.blobs
_AT_ONCE = 500


class Housekeeping(Levers, VitalSigns):
    """Mixed into ``SqlLedger``, which opens *_committer* and gives *_read*.

    The promises stand in ``core.ports.Ledger``.
    """

    # -- statistics --------------------------------------------------------------------------
    async def completions(self, first_minute: int, end_minute: int) -> list[Completed]:
        return await self._read(_completions, first_minute, end_minute)

    async def arrivals(self, first_minute: int, end_minute: int) -> dict[int, int]:
        return await self._read(arrivals, first_minute, end_minute)

    async def in_line_since(self, lanes: Sequence[str]) -> dict[str, float]:
        return await self._read(_in_line_since, list(lanes))

    # -- upkeep ------------------------------------------------------------------------------
    async def count_late(self, slo_s: float = SLO_S, limit: int = 500) -> int:
        return await self._committer.submit(lambda tx: upkeep.count_late(tx, slo_s, limit))

    async def trim(self, limit: int = 500) -> int:
        return await self._committer.submit(lambda tx: trim(tx, limit))

    async def adopt_blobs(self, sizes: Mapping[str, int]) -> int:
        known = await self._read(_known_blobs, list(sizes))
        strays = {h: n for h, n in sizes.items() if h not in known}
        if strays:
            await self._committer.submit(lambda tx: _adopt(tx, strays))
        return len(strays)

    # -- bookmarks ---------------------------------------------------------------------------
    async def bookmark(self, name: str) -> int | None:
        value = await self._read(reads.get_meta, f"bookmark:{name}")
        return None if value is None else int(value)

    async def set_bookmark(self, name: str, seq: int) -> None:
        await self._committer.submit(lambda tx: upkeep.put_meta(tx, f"bookmark:{name}", seq))

    # -- restore -----------------------------------------------------------------------------
    async def rebuild(
        self, after: str = "", limit: int = 200, *, clean: bool = False
    ) -> tuple[int, str | None]:
        return await self._committer.submit(lambda tx: rebuild(tx, after, limit, clean))


def _completions(conn: Connection, first: int, end: int) -> list[Completed]:
    table = schema.completions
    query = sa.select(table.c.minute, table.c.queue, table.c.jobs, table.c.duration_s).where(
        table.c.minute >= first, table.c.minute < end
    )
    return [Completed(*row) for row in conn.execute(query.order_by(table.c.minute, table.c.queue))]


def _in_line_since(conn: Connection, lanes: Sequence[str]) -> dict[str, float]:
    """One probe of an index per lane."""
    found: dict[str, float] = {}
    for lane in lanes:
        query = sa.select(_d.c.updated_at).where(
            sa.text("state IN ('received', 'queued')"), _d.c.lane == lane
        )
        since = conn.execute(query.order_by(_d.c.updated_at).limit(1)).scalar()
        if since is not None:
            found[lane] = since
    return found


def _known_blobs(conn: Connection, hashes: Sequence[str]) -> set[str]:
    known: set[str] = set()
    for start in range(0, len(hashes), _AT_ONCE):
        part = hashes[start : start + _AT_ONCE]
        known |= set(
            conn.execute(sa.select(_b.c.content_hash).where(_b.c.content_hash.in_(part))).scalars()
        )
    return known


def _adopt(tx: Tx, sizes: Mapping[str, int]) -> None:
    """From now on they are unreferenced blobs like others, and go an hour later."""
    tx.flush()
    rows = [
        {
            "content_hash": h,
            "size_bytes": size,
            "unreferenced_since": None if tx.referenced(h) else tx.now,
        }
        for h, size in sorted(sizes.items())
    ]
    tx.upsert(_b, rows, update=())
