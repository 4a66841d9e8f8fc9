"""Questions about incidents, and what one cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from unjam.core.document import State
from unjam.core.errors import NotFound, UsageError
from unjam.core.incident import (
    Action,
    Incident,
    IncidentEvent,
    IncidentPage,
    RemedyRequest,
    Saying,
)
from unjam.stores import schema
from unjam.stores.ledger.claims import SLO_S
from unjam.stores.ledger.dialect import Dialect

_i = schema.incidents
_e = schema.incident_events
_r = schema.remedies
_d = schema.documents
_g = schema.generations

UNFINISHED = tuple(
    s for s in State if s not in (State.SEARCHABLE, State.DEAD, State.CANCELLED, State.DELETED)
)
LOOKED_AT = 200_000
"""Late documents of a state that are looked at: enough to name the users of any backlog."""


@dataclass(frozen=True, slots=True)
class Toll:
    """Whom an incident made late past the SLO, and how many dead letters were made in it."""

    users: int
    anonymous: int
    failed: int


# -- rows -----------------------------------------------------------------------------------
def row_of(conn: Connection, incident_id: int) -> Row[Any]:
    """Raises NotFound."""
    row = conn.execute(sa.select(_i).where(_i.c.id == incident_id)).first()
    if row is None:
        raise NotFound(f"there is no incident {incident_id}")
    return row


def latest(conn: Connection, key: tuple[str, str]) -> Row[Any] | None:
    """The newest one of a cause and subject."""
    query = sa.select(_i).where(_i.c.cause == key[0], _i.c.subject == key[1])
    return conn.execute(query.order_by(_i.c.id.desc()).limit(1)).first()


def find(conn: Connection, incident_id: int) -> Incident:
    """Raises NotFound."""
    return _incidents(conn, [row_of(conn, incident_id)])[0]


def with_toll(conn: Connection, dialect: Dialect, incident_id: int) -> Incident:
    """As ``find``; of one that is still open what it cost so far. Raises NotFound."""
    found = find(conn, incident_id)
    if found.state == "closed":
        return found
    cost = toll(conn, dialect, incident_id)
    return replace(
        found,
        affected_users=cost.users,
        affected_anonymous=cost.anonymous,
        failed_jobs=cost.failed,
    )


def page(conn: Connection, open_only: bool, cursor: str | None, limit: int) -> IncidentPage:
    limit = max(1, min(limit, 200))
    query = sa.select(_i).order_by(_i.c.id.desc()).limit(limit + 1)
    if open_only:
        query = query.where(sa.text("state <> 'closed'"))
    if cursor:
        if not cursor.isdecimal() or len(cursor) > 18:
            raise UsageError("the cursor is none of ours", code="invalid")
        query = query.where(_i.c.id < int(cursor))
    rows = conn.execute(query).all()
    more = len(rows) > limit
    items = _incidents(conn, rows[:limit])
    return IncidentPage(items, str(items[-1].id) if more else None)


def undone(conn: Connection) -> list[Incident]:
    query = sa.select(_i).where(_i.c.undo != "{}", _i.c.state == "closed").order_by(_i.c.id)
    return _incidents(conn, conn.execute(query).all())


def _incidents(conn: Connection, rows: Sequence[Row[Any]]) -> list[Incident]:
    actions: dict[int, list[Action]] = {}
    ids = [row.id for row in rows]
    query = sa.select(_e).where(_e.c.incident_id.in_(ids), _e.c.kind == "action")
    for event in conn.execute(query.order_by(_e.c.seq)):
        actions.setdefault(event.incident_id, []).append(_action(event))
    return [
        Incident(
            id=row.id,
            cause=row.cause,
            subject=row.subject,
            severity=row.severity,
            state=row.state,
            started_at=row.started_at,
            noticed_at=row.noticed_at,
            closed_at=row.closed_at,
            evidence=tuple(Saying(en, ko) for en, ko in json.loads(row.evidence)),
            effects=tuple(json.loads(row.effects)),
            actions=tuple(actions.get(row.id, ())),
            max_queue_length=row.max_queue_length,
            affected_users=row.affected_users,
            affected_anonymous=row.affected_anonymous,
            failed_jobs=row.failed_jobs,
            flaps=row.flaps,
            undo=json.loads(row.undo),
        )
        for row in rows
    ]


def _action(event: Row[Any]) -> Action:
    data = cast("dict[str, str]", json.loads(event.data))
    detail = Saying(data.get("en", ""), data.get("ko", ""))
    return Action(event.at, event.what, event.outcome, detail, data.get("by", ""))


# -- the timeline ---------------------------------------------------------------------------
def events(
    conn: Connection, incident_id: int | None, after: int, limit: int
) -> list[IncidentEvent]:
    query = sa.select(_e).where(_e.c.seq > after).order_by(_e.c.seq).limit(limit)
    if incident_id is None:
        query = query.where(_e.c.kind != "sample")
    else:
        query = query.where(_e.c.incident_id == incident_id)
    found: list[IncidentEvent] = []
    for row in conn.execute(query):
        data = json.loads(row.data)
        if row.kind == "action":
            data |= {"remedy": row.what, "outcome": row.outcome}
        found.append(IncidentEvent(row.seq, row.incident_id, row.at, row.kind, data))
    return found


def last_event(conn: Connection) -> int:
    return int(conn.execute(sa.select(sa.func.max(_e.c.seq))).scalar() or 0)


def actions_since(conn: Connection, at: float) -> list[tuple[int, Action]]:
    query = sa.select(_e).where(_e.c.at >= at, _e.c.kind == "action").order_by(_e.c.seq)
    return [(row.incident_id, _action(row)) for row in conn.execute(query)]


# -- the kill switch, requests --------------------------------------------------------------
def paused(conn: Connection, key: str) -> bool:
    table = schema.meta
    return conn.execute(sa.select(table.c.value).where(table.c.key == key)).scalar() == "1"


def asked(conn: Connection, dialect: Dialect, host: str, fresh_s: float) -> list[RemedyRequest]:
    oldest = dialect.clock(conn)[0] - fresh_s
    query = sa.select(_r).where(
        _r.c.host == host, sa.text("done_at IS NULL"), _r.c.asked_at >= oldest
    )
    return [_request(row) for row in conn.execute(query.order_by(_r.c.id))]


def request(conn: Connection, request_id: int) -> RemedyRequest:
    """Raises NotFound."""
    row = conn.execute(sa.select(_r).where(_r.c.id == request_id)).first()
    if row is None:
        raise NotFound(f"there is no request {request_id}")
    return _request(row)


def _request(row: Row[Any]) -> RemedyRequest:
    return RemedyRequest(
        row.id,
        row.incident_id,
        row.host,
        row.action,
        row.target,
        row.process_id,
        row.asked_at,
        row.done_at,
        row.outcome,
    )


# -- what it cost ---------------------------------------------------------------------------
def toll(conn: Connection, dialect: Dialect, incident_id: int) -> Toll:
    """Counted over the documents that were late (SLO_S) while it lasted, finished or not, and over
    the events of that time. Costs by the length of the incident and by what is late now."""
    row = row_of(conn, incident_id)
    until = row.closed_at or dialect.clock(conn)[0]
    first = _first_event(conn, row.started_at)
    users = _late_now(conn, until)
    finished, failed = _ended(conn, first, until)
    for user, n in finished.items():
        users[user] = users.get(user, 0) + n
    anonymous = users.pop("", 0)
    return Toll(len(users), anonymous, failed)


def _first_event(conn: Connection, at: float) -> int:
    """Number of the last document event before *at*."""
    table = schema.events
    query = sa.select(table.c.seq).where(table.c.at < at).order_by(table.c.seq.desc()).limit(1)
    return int(conn.execute(query).scalar() or 0)


def _late_now(conn: Connection, until: float) -> dict[str, int]:
    found: dict[str, int] = {}
    for state in UNFINISHED:
        # The oldest of a state come first: ids grow with time.
        oldest = (
            sa.select(_d.c.id, _d.c.user_id, _d.c.generation)
            .where(_d.c.state == state.value)
            .order_by(_d.c.id)
            .limit(LOOKED_AT)
            .subquery()
        )
        query = (
            sa.select(oldest.c.user_id, sa.func.count())
            .join(_g, (_g.c.document_id == oldest.c.id) & (_g.c.generation == oldest.c.generation))
            .where(_g.c.created_at < until - SLO_S)
            .group_by(oldest.c.user_id)
        )
        for user, n in conn.execute(query):
            found[user] = found.get(user, 0) + n
    return found


def _ended(conn: Connection, first: int, until: float) -> tuple[dict[str, int], int]:
    """(User → documents that became searchable late; dead letters made) since event *first*."""
    table = schema.events
    window = (table.c.seq > first) & (table.c.at <= until)
    query = (
        sa.select(_d.c.user_id, sa.func.count())
        .select_from(table)
        .join(
            _g,
            (_g.c.document_id == table.c.document_id) & (_g.c.generation == table.c.generation),
        )
        .join(_d, _d.c.id == table.c.document_id)
        .where(window, table.c.kind == "searchable", table.c.at - _g.c.created_at > SLO_S)
        .group_by(_d.c.user_id)
    )
    late = {user: int(n) for user, n in conn.execute(query)}
    dead = sa.select(sa.func.count()).select_from(table).where(window, table.c.kind == "dead")
    return late, int(conn.execute(dead).scalar_one())
