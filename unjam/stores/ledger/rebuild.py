"""After a restore: the vector store is empty or of another day, so documents start over."""

from __future__ import annotations

import sqlalchemy as sa

from unjam.core.document import LIVE, State
from unjam.core.events import EventKind
from unjam.stores import schema
from unjam.stores.ledger.intake import FRESH
from unjam.stores.ledger.row import Row
from unjam.stores.ledger.tx import Tx

LEAP = 1_000
"""Generations, tokens and sequences leap ahead of whatever was given out after the backup: chunk
ids, zombies and doorbells of that time must not meet the new ones."""

_d = schema.documents


def rebuild(tx: Tx, after: str, limit: int, clean: bool) -> tuple[int, str | None]:
    """Put the documents behind id *after* back to work: (how many, the id to go on after).

    *clean*: the vector store may still hold chunks of the generations that the ledger knows.
    """
    query = sa.select(_d.c.id).where(_d.c.shown == 1, _d.c.id > after).order_by(_d.c.id)
    rows = tx.ids(query.limit(limit))
    begun = sum(_start_over(tx, row, clean) for row in rows)
    return begun, rows[-1].id if len(rows) == limit else None


def _start_over(tx: Tx, row: Row, clean: bool) -> bool:
    ended = State(row.state) not in LIVE
    if ended and not row.visible_generation:
        return False  # dead or cancelled, and nothing of it was ever shown
    if clean:
        tx.clean_visible(row)
        if not ended:
            tx.clean_abandoned(row)
    loose = {row.visible_hash, row.content_hash}
    shown = _shown_content(tx, row) if ended else {}  # an update died: what was shown comes back
    tx.to_work(
        row,
        EventKind.UPDATED,
        "restored",
        **FRESH,
        **shown,
        generation=row.generation + LEAP,
        token=row.token + LEAP,
        enqueue_seq=row.enqueue_seq + LEAP,
        lane=row.home_lane,
        visible_generation=0,
        visible_hash="",
        visible_pin="",
        chunks=0,
        searchable_at=None,
        slo_since=None,
    )
    tx.generation(row)
    tx.unlink(*(loose - {row.content_hash}))
    return True


def _shown_content(tx: Tx, row: Row) -> dict[str, object]:
    table = schema.generations
    names = ("content_hash", "pin_id", "size_bytes", "media_type")
    query = sa.select(*(table.c[name] for name in names)).where(
        table.c.document_id == row.id, table.c.generation == row.visible_generation
    )
    found = tx.execute(query).one()
    return dict(zip(names, found, strict=True))
