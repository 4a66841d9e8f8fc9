"""What people ask for: cancel, retry, delete, a new pin, knobs."""

from __future__ import annotations

import json

import sqlalchemy as sa

from unjam.core.document import Document, Pin, State, Ticket
from unjam.core.errors import Conflict, NotFound
from unjam.core.events import EventKind
from unjam.core.tuning import check_knob
from unjam.stores import schema
from unjam.stores.ledger.intake import FRESH
from unjam.stores.ledger.row import Row
from unjam.stores.ledger.tx import Tx

_d = schema.documents


def _existing(tx: Tx, document_id: str) -> Row:
    row = tx.need(document_id)
    if row.state == State.DELETED:
        raise NotFound(f"document {document_id} was deleted")
    return row


def cancel(tx: Tx, document_id: str) -> Document:
    """Stop it wherever it is; what search shows already stays."""
    row = _existing(tx, document_id)
    if row.state in (State.SEARCHABLE, State.DEAD):
        raise Conflict(
            f"document {document_id} has ended already: {row.state}",
            hint="Delete it if it is not wanted.",
        )
    if row.state != State.CANCELLED:
        tx.clean_abandoned(row)
        tx.move(
            row,
            State.CANCELLED,
            EventKind.CANCELLED,
            token=row.token + 1,
            reason="cancelled_by_user",
            detail="",
            next_step_at=None,
            slo_since=None,
        )
    return tx.document(row)


def retry(tx: Tx, document_id: str, pin: Pin | None) -> Ticket:
    """Budgets are reset; a dead or cancelled document gets a new generation."""
    row = _existing(tx, document_id)
    if row.state == State.WAITING:
        return tx.to_work(row, EventKind.RETRIED, "asked", **FRESH_BUDGETS, lane=row.home_lane)
    if row.state not in (State.DEAD, State.CANCELLED):
        raise Conflict(
            f"document {document_id} is {row.state}",
            hint="Only dead, cancelled or waiting documents can be retried.",
        )
    return regenerate(tx, row, EventKind.RETRIED, "asked", pin, slo_since=tx.now)


FRESH_BUDGETS = {k: v for k, v in FRESH.items() if not k.startswith("progress")}


def regenerate(
    tx: Tx, row: Row, kind: EventKind, why: str, pin: Pin | None, **values: object
) -> Ticket:
    """The same bytes again, as a new generation."""
    if pin is not None:
        tx.keep_pin(pin)
        values["pin_id"] = pin.id
    ticket = tx.to_work(
        row,
        kind,
        why,
        **FRESH,
        generation=row.generation + 1,
        token=row.token + 1,
        lane=row.home_lane,
        **values,
    )
    tx.generation(row)
    return ticket


def delete(tx: Tx, document_id: str) -> None:
    """Leave a tombstone: chunks and blob are scheduled for removal, the names go at once."""
    row = tx.need(document_id)
    if row.state == State.DELETED:
        return
    tx.clean_visible(row)
    if row.state not in (State.DEAD, State.CANCELLED):  # theirs were cleaned when they ended
        tx.clean_abandoned(row)
    tx.move(
        row,
        State.DELETED,
        EventKind.DELETED,
        token=row.token + 1,
        reason="",
        detail="",
        next_step_at=None,
        slo_since=None,
        shown=0,
        filename="",
        metadata="{}",
    )
    tx.execute(sa.delete(schema.names).where(schema.names.c.document_id == row.id))
    tx.unlink(row.content_hash, row.visible_hash)


def repin(tx: Tx, pin: Pin, limit: int) -> list[Ticket]:
    """Searchable documents of other fingerprints start over beside what is visible."""
    query = sa.select(schema.pins.c.id).where(schema.pins.c.fingerprint_id != pin.fingerprint.id)
    tickets: list[Ticket] = []
    for (other,) in tx.execute(query).all():
        ready = sa.select(_d.c.id).where(
            _d.c.visible_pin == other, sa.text("visible_pin <> ''"), _d.c.state == State.SEARCHABLE
        )
        for row in tx.ids(ready.limit(limit - len(tickets))):
            tickets.append(regenerate(tx, row, EventKind.UPDATED, "new_pin", pin))
        if len(tickets) >= limit:
            break
    return tickets


def set_knob(tx: Tx, name: str, value: int, by: str) -> None:
    """Raises UsageError: unknown knob, or out of bounds."""
    check_knob(name, value)
    table = schema.knobs
    before = tx.execute(sa.select(table.c.value).where(table.c.name == name)).scalar()
    tx.upsert(table, [{"name": name, "value": value}], update=("value",))
    write_audit(tx, by, "set_knob", {"name": name, "value": value, "before": before})


def write_audit(tx: Tx, by: str, action: str, data: dict[str, object]) -> None:
    text = json.dumps(data, ensure_ascii=False, default=str)
    row = {"at": tx.now, "by": by, "action": action, "data": text}
    tx.execute(sa.insert(schema.audit), row)
