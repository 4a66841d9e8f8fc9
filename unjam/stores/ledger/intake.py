"""Documents come in: accept, and replace with new bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import sqlalchemy as sa

from unjam.core.document import LIVE, Accepted, AcceptKind, State, Submission
from unjam.core.errors import NotFound
from unjam.core.events import EventKind
from unjam.stores import schema
from unjam.stores.ledger.row import Row
from unjam.stores.ledger.tx import Tx

_Found = dict[tuple[str, str], list[Row]]
FRESH = {
    "errors": 0,
    "deaths": 0,
    "throttles": 0,
    "suspect": 0,
    "death_done": 0,
    "death_step": 0,
    "progress_done": 0,
    "progress_total": 0,
}
"""Budgets, suspicion and progress of a generation that begins."""


def accept(tx: Tx, submissions: Sequence[Submission]) -> list[Accepted]:
    """One answer each. Of equal bytes within one call the first is created."""
    for key in sorted({_lock_key(s) for s in submissions}):
        tx.dialect.lock(tx.conn, key)
    found = _copies(tx, submissions)
    answers = [_accept_one(tx, s, found) for s in submissions]
    _keep_keys(tx, list(zip(submissions, answers, strict=True)))
    for s, a in zip(submissions, answers, strict=True):
        if a.kind in (AcceptKind.CREATED, AcceptKind.REVIVED, AcceptKind.DUPLICATE):
            tx.link(s.content_hash, s.size_bytes)
    return answers


def _lock_key(submission: Submission) -> int:
    text = f"{submission.user_id}\0{submission.content_hash}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _copies(tx: Tx, submissions: Sequence[Submission]) -> _Found:
    """What each user has of these bytes already, oldest first."""
    by_user: dict[str, list[str]] = {}
    for s in submissions:
        by_user.setdefault(s.user_id, []).append(s.content_hash)
    return {
        (user_id, content_hash): rows
        for user_id, hashes in by_user.items()
        for content_hash, rows in tx.copies(user_id, hashes).items()
    }


def _accept_one(tx: Tx, s: Submission, found: _Found) -> Accepted:
    if (replay := _replay(tx, s)) is not None:
        return replay
    copies = found.setdefault((s.user_id, s.content_hash), [])
    for row in copies:
        if State(row.state) in LIVE:
            return _duplicate(tx, row, s)
    if not s.blob_durable:
        return Accepted(AcceptKind.NEEDS_BLOB, s.document_id)
    for row in copies:
        if row.state == State.DEAD:
            begin_generation(tx, row, s, EventKind.RETRIED, "uploaded_again")
            _keep_name(tx, row, s)
            return Accepted(AcceptKind.REVIVED, row.id, row.enqueue_seq)
    row = _create(tx, s)
    copies.append(row)
    return Accepted(AcceptKind.CREATED, row.id, row.enqueue_seq)


def _replay(tx: Tx, s: Submission) -> Accepted | None:
    if not s.idempotency_key:
        return None
    table = schema.idempotency
    query = sa.select(table.c.content_hash, table.c.document_id).where(
        table.c.user_id == s.user_id, table.c.key == s.idempotency_key
    )
    known = tx.execute(query).first()
    if known is None:
        return None
    row = tx.need(known.document_id)
    kind = AcceptKind.REPLAYED if known.content_hash == s.content_hash else AcceptKind.CONFLICT
    return Accepted(kind, row.id, row.enqueue_seq, State(row.state))


def _keep_keys(tx: Tx, answered: Sequence[tuple[Submission, Accepted]]) -> None:
    rows = [
        {
            "user_id": s.user_id,
            "key": s.idempotency_key,
            "content_hash": s.content_hash,
            "document_id": a.document_id,
            "at": tx.now,
        }
        for s, a in answered
        if s.idempotency_key
        and a.kind in (AcceptKind.CREATED, AcceptKind.REVIVED, AcceptKind.DUPLICATE)
    ]
    if rows:
        tx.flush()
        tx.upsert(schema.idempotency, rows, update=())


def _duplicate(tx: Tx, row: Row, s: Submission) -> Accepted:
    _keep_name(tx, row, s)
    tx.event(row, EventKind.DUPLICATE, {})
    return Accepted(AcceptKind.DUPLICATE, row.id, row.enqueue_seq, State(row.state))


def _keep_name(tx: Tx, row: Row, s: Submission) -> None:
    """Further names and metadata stay with the document."""
    if s.filename == row.filename and (not s.metadata or _json(s) == row.metadata):
        return
    tx.name(row, s.filename, _json(s))


def _create(tx: Tx, s: Submission) -> Row:
    tx.keep_pin(s.pin)
    row = Row(
        id=s.document_id,
        user_id=s.user_id,
        shown=1,
        filename=s.filename,
        media_type=s.media_type,
        size_bytes=s.size_bytes,
        content_hash=s.content_hash,
        pin_id=s.pin.id,
        home_lane=s.lane,
        metadata=_json(s),
        created_at=tx.now,
        state=State.RECEIVED.value,
        lane=s.lane,
        updated_at=tx.now,
        slo_since=tx.now,
    )
    tx.add(row)
    tx.accepted(row)
    tx.generation(row)
    tx.event(row, EventKind.ACCEPTED, {"to": State.RECEIVED.value, "seq": 1, "lane": s.lane})
    return row


def begin_generation(tx: Tx, row: Row, s: Submission, kind: EventKind, why: str) -> None:
    """Put *row* back to work as a new generation with the submission's bytes and pin."""
    old = row.content_hash
    tx.keep_pin(s.pin)
    values: dict[str, object] = {
        **FRESH,
        "generation": row.generation + 1,
        "token": row.token + 1,
        "content_hash": s.content_hash,
        "size_bytes": s.size_bytes,
        "media_type": s.media_type,
        "pin_id": s.pin.id,
        "home_lane": s.lane,
        "lane": s.lane,
        "slo_since": tx.now,
    }
    tx.to_work(row, kind, why, **values)
    tx.generation(row)
    if old != s.content_hash:
        tx.unlink(old)


def replace(tx: Tx, document_id: str, s: Submission) -> Accepted:
    """A new generation with new bytes; what is visible stays so until the flip."""
    row = tx.need(document_id)
    if row.state == State.DELETED:
        raise NotFound(f"document {document_id} was deleted")
    if (replay := _replay(tx, s)) is not None:
        return replay
    same = row.content_hash == s.content_hash and row.pin_id == s.pin.id
    if same and State(row.state) in LIVE:
        answer = _duplicate(tx, row, s)
    elif not s.blob_durable:
        return Accepted(AcceptKind.NEEDS_BLOB, row.id)
    else:
        if State(row.state) in LIVE:
            tx.clean_abandoned(row)
        begin_generation(tx, row, s, EventKind.UPDATED, "replaced")
        tx.change(row, filename=s.filename, metadata=_json(s))
        answer = Accepted(AcceptKind.CREATED, row.id, row.enqueue_seq)
    tx.link(s.content_hash, s.size_bytes)
    _keep_keys(tx, [(s, answer)])
    return answer


def _json(s: Submission) -> str:
    return json.dumps(dict(s.metadata), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
