"""Vitals: all that the watchdog asks of the ledger, in one snapshot and at a flat cost.

Every query walks an index over a bounded number of rows, however long the backlog is: 2 ms with a
thousand documents in line, 3 ms with a million.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from unjam.core.document import RUNNING, State
from unjam.core.events import EventKind
from unjam.core.ports import Completed
from unjam.core.vitals import Paid, Running, Standing, Vitals, WorkerDeath
from unjam.stores import schema
from unjam.stores.ledger import backlog, deaths, dependencies, reads
from unjam.stores.ledger.dialect import Postgres, Sqlite

T = TypeVar("T")
_d = schema.documents
_in_line = sa.text("state IN ('received', 'queued')")

RUNNING_SEEN = 200
HEADS_SEEN = 32
LANES_SEEN = 32
EVENTS_SEEN = 5_000
"""Events that one look goes back at most: 2 ms; more of them in two seconds is a busy house."""
TOLD = 300
WAITING_SEEN = 500
EXITS_SEEN = 64
ENDED_S = 60.0
ENDED_SEEN = 500
MINUTES = 10


class VitalSigns:
    """Mixed into ``SqlLedger``; the promises stand in ``core.vitals.Patient``."""

    _dialect: Sqlite | Postgres
    id: str

    async def _read(self, question: Callable[..., T], *args: Any) -> T:
        raise AssertionError("the ledger brings its own")

    async def vitals(self, lanes: Sequence[str], after: int = 0) -> Vitals:
        return await self._read(look, self._dialect, list(lanes), after)

    async def glimpse(self, document_ids: Sequence[str]) -> list[Standing]:
        return await self._read(_glimpse, list(document_ids))


def look(conn: Connection, dialect: Sqlite | Postgres, lanes: Sequence[str], after: int) -> Vitals:
    """*after*: the number of the last event that is known already."""
    now, lease_now = dialect.clock(conn)
    notes = _meta(conn)
    last = reads.last_event(conn)
    told = _told(conn, max(after, last - EVENTS_SEEN))
    heads = tuple(standing for lane in lanes[:LANES_SEEN] for standing in _head(conn, lane))
    oldest: dict[str, float] = {}
    for standing in heads:
        oldest.setdefault(standing.lane, standing.since)
    counts = reads.state_counts(conn)
    held = sum(counts[state] for state in RUNNING)
    died = deaths.lately(notes.get(deaths.MEMORY), lease_now)
    return Vitals(
        ledger_id=notes.get("ledger_id", ""),
        now=now,
        counts=counts,
        backlog=backlog.measure(conn, now),
        oldest_since=oldest,
        breakers=dependencies.states(conn),
        processes=tuple(reads.processes(conn, lease_now)),
        died=died,
        running=_running(conn) if held else (),
        running_count=held,
        heads=heads,
        deaths=tuple(
            WorkerDeath(seq, at, document, data)
            for seq, document, at, kind, data in told
            if kind == EventKind.WORKER_DIED.value
        ),
        dead=tuple(
            (at, str(data.get("reason", "")), document)
            for _, document, at, kind, data in told
            if kind == EventKind.DEAD.value
        ),
        paid=tuple(
            Paid(at, int(data.get("chunks", 0)), data.get("stage_ms", {}))
            for _, _, at, kind, data in told
            if kind == EventKind.SEARCHABLE.value
        ),
        last_event=last,
        counters=reads.counters(conn),
        completions=_completions(conn, int(now // 60)),
        waiting_for=_waiting(conn),
        missing=reads.equation(conn).missing,
        epoch=int(notes.get("epoch", 0) or 0),
        knobs=reads.knobs(conn),
        exits=_exits(conn, {*died, *(str(data.get("worker")) for *_, data in told)}),
        ended=_ended(conn, now),
        meta=notes,
    )


def _meta(conn: Connection) -> dict[str, str]:
    table = schema.meta
    rows = conn.execute(sa.select(table.c.key, table.c.value)).all()
    return {str(row.key): str(row.value) for row in rows}


_standing = sa.select(_d.c.id, _d.c.lane, _d.c.user_id, _d.c.size_bytes, _d.c.updated_at)


def _head(conn: Connection, lane: str) -> list[Standing]:
    query = _standing.where(_in_line, _d.c.lane == lane)
    rows = conn.execute(query.order_by(_d.c.updated_at).limit(HEADS_SEEN))
    return [Standing(*row) for row in rows]


def _glimpse(conn: Connection, document_ids: Sequence[str]) -> list[Standing]:
    query = _standing.where(_d.c.id.in_(document_ids[: LANES_SEEN * HEADS_SEEN]), _in_line)
    return [Standing(*row) for row in conn.execute(query)]


def _running(conn: Connection) -> tuple[Running, ...]:
    names = ("id", "worker", "token", "state", "progress_done", "lane", "size_bytes")
    names += ("suspect", "alone", "claimed_at")
    query = sa.select(*(_d.c[name] for name in names)).where(
        sa.text("worker <> ''"), _d.c.lease_until >= 0
    )
    rows = conn.execute(query.order_by(_d.c.lease_until).limit(RUNNING_SEEN)).mappings()
    return tuple(
        Running(
            document_id=row["id"],
            worker=row["worker"],
            token=row["token"],
            state=State(row["state"]),
            done=row["progress_done"],
            lane=row["lane"],
            size_bytes=row["size_bytes"],
            suspect=bool(row["suspect"]),
            alone=bool(row["alone"]),
            claimed_at=row["claimed_at"] or 0.0,
        )
        for row in rows
    )


_KINDS = (EventKind.WORKER_DIED.value, EventKind.DEAD.value, EventKind.SEARCHABLE.value)


def _told(conn: Connection, after: int) -> list[tuple[int, str, float, str, dict[str, Any]]]:
    table = schema.events
    query = sa.select(table.c.seq, table.c.document_id, table.c.at, table.c.kind, table.c.data)
    query = query.where(table.c.seq > after, table.c.kind.in_(_KINDS))
    rows = conn.execute(query.order_by(table.c.seq.desc()).limit(TOLD)).all()
    return [(seq, document, at, kind, json.loads(data)) for seq, document, at, kind, data in rows]


def _completions(conn: Connection, minute: int) -> tuple[Completed, ...]:
    table = schema.completions
    query = sa.select(table.c.minute, table.c.queue, table.c.jobs, table.c.duration_s).where(
        table.c.minute >= minute - MINUTES
    )
    return tuple(Completed(*row) for row in conn.execute(query.order_by(table.c.minute)))


def _exits(conn: Connection, workers: set[str]) -> dict[str, int]:
    """How those of *workers* ended that a supervisor saw end."""
    table = schema.metadata.tables.get("exits")
    if table is None or not workers:
        return {}
    some = sorted(workers)[:EXITS_SEEN]
    query = sa.select(table.c.worker, table.c.code).where(table.c.worker.in_(some))
    return {row.worker: row.code for row in conn.execute(query)}


def _ended(conn: Connection, now: float) -> dict[str, tuple[float, int]]:
    """One row a worker that ended lately, as a storm of kills has them by the hundred."""
    table = schema.exits
    query = sa.select(table.c.worker, table.c.at, table.c.code).where(table.c.at > now - ENDED_S)
    rows = conn.execute(query.limit(ENDED_SEEN))
    return {row.worker: (max(0.0, now - row.at), row.code) for row in rows}


def _waiting(conn: Connection) -> dict[str, int]:
    """The next ones to wake, by their reason."""
    query = sa.select(_d.c.reason).where(_d.c.next_step_at.is_not(None))
    rows = conn.execute(query.order_by(_d.c.next_step_at).limit(WAITING_SEEN)).scalars()
    return dict(Counter(rows))
