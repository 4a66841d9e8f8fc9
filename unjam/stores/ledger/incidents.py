"""The ledger's book of incidents: open, note, act, close; and the requests to supervisors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from unjam.core.incident import (
    Action,
    Diagnosis,
    Incident,
    IncidentEvent,
    IncidentEventKind,
    IncidentPage,
    RemedyRequest,
    Sample,
    Severity,
)
from unjam.stores import schema
from unjam.stores.ledger import incident_reads as reads
from unjam.stores.ledger.commit import Committer
from unjam.stores.ledger.dead import plain
from unjam.stores.ledger.dialect import Postgres, Sqlite
from unjam.stores.ledger.incident_reads import Toll
from unjam.stores.ledger.people import write_audit
from unjam.stores.ledger.tx import Tx
from unjam.stores.ledger.upkeep import get_meta, put_meta

T = TypeVar("T")
_i = schema.incidents
_e = schema.incident_events
_r = schema.remedies
_LOCK = 0x696E6369  # any constant; "inci" in ASCII

PAUSED = "remedies_paused"
HOUR_S = 3600.0
REQUEST_S = 60.0
"""A request that no supervisor took up within this time is stale: the house has moved on."""

SAMPLE_S = 2.0
SAMPLES_PER_AGE = 300
"""An incident of any age has some hundreds of samples: the gap grows with its age."""


class IncidentLedger:
    """Mixed into ``SqlLedger``, which opens *_committer* and gives *_read*.

    The promises stand in ``core.ports.IncidentBook``.
    """

    _committer: Committer
    _dialect: Sqlite | Postgres

    async def _read(self, question: Callable[..., T], *args: Any) -> T:
        raise AssertionError("the ledger brings its own")

    # -- incidents ---------------------------------------------------------------------------
    async def open_incident(
        self,
        diagnosis: Diagnosis,
        severity: Severity,
        *,
        queue_length: int = 0,
        reopen_within_s: float = 0.0,
        noticed_at: float | None = None,
    ) -> Incident:
        return await self._committer.submit(
            lambda tx: _open(tx, diagnosis, severity, queue_length, reopen_within_s, noticed_at)
        )

    async def note_sample(self, incident_id: int, sample: Sample) -> None:
        await self._committer.submit(lambda tx: _sample(tx, incident_id, sample))

    async def begin_action(
        self, incident_id: int, action: Action, *, per_hour: int, rest_s: float
    ) -> str:
        return await self._committer.submit(
            lambda tx: _begin(tx, incident_id, action, per_hour, rest_s)
        )

    async def note_action(self, incident_id: int, action: Action) -> None:
        await self._committer.submit(lambda tx: _act(tx, incident_id, action))

    async def actions_since(self, at: float) -> list[tuple[int, Action]]:
        return await self._read(reads.actions_since, at)

    async def hand_over(self, incident_id: int) -> None:
        await self._committer.submit(lambda tx: _hand_over(tx, incident_id))

    async def close_incident(self, incident_id: int) -> Incident:
        # What it cost is counted on a reader: it may take a while on a great backlog.
        toll = await self._read(reads.toll, self._dialect, incident_id)
        return await self._committer.submit(lambda tx: _close(tx, incident_id, toll))

    async def note_undo(self, incident_id: int, undo: Mapping[str, Any]) -> None:
        text = _json(undo)
        query = sa.update(_i).where(_i.c.id == incident_id).values(undo=text)
        await self._committer.submit(lambda tx: tx.execute(query) and None)

    async def undone(self) -> list[Incident]:
        return await self._read(reads.undone)

    async def incident(self, incident_id: int) -> Incident:
        return await self._read(reads.with_toll, self._dialect, incident_id)

    async def incidents(
        self, *, open_only: bool = False, cursor: str | None = None, limit: int = 50
    ) -> IncidentPage:
        return await self._read(reads.page, open_only, cursor, limit)

    async def incident_events(
        self, incident_id: int | None, after: int = 0, limit: int = 500
    ) -> list[IncidentEvent]:
        return await self._read(reads.events, incident_id, after, limit)

    async def last_incident_event(self) -> int:
        return await self._read(reads.last_event)

    # -- the kill switch ---------------------------------------------------------------------
    async def remedies_paused(self) -> bool:
        return await self._read(reads.paused, PAUSED)

    async def pause_remedies(self, paused: bool, by: str) -> None:
        def work(tx: Tx) -> None:
            if (get_meta(tx, PAUSED) == "1") != paused:
                put_meta(tx, PAUSED, int(paused))
                write_audit(tx, by, "recover_pause" if paused else "recover_resume", {})

        await self._committer.submit(work)

    # -- requests to supervisors -------------------------------------------------------------
    async def ask_remedy(self, request: RemedyRequest) -> RemedyRequest:
        return await self._committer.submit(lambda tx: _ask(tx, request))

    async def remedies_asked(self, host: str) -> list[RemedyRequest]:
        return await self._read(reads.asked, self._dialect, host, REQUEST_S)

    async def answer_remedy(self, request_id: int, outcome: str) -> None:
        def work(tx: Tx) -> None:
            query = sa.update(_r).where(_r.c.id == request_id, _r.c.done_at.is_(None))
            tx.execute(query.values(done_at=tx.now, outcome=outcome[:500]))

        await self._committer.submit(work, parting=True)

    async def remedy(self, request_id: int) -> RemedyRequest:
        return await self._read(reads.request, request_id)


# -- writing --------------------------------------------------------------------------------
def _open(
    tx: Tx,
    diagnosis: Diagnosis,
    severity: Severity,
    queue_length: int,
    reopen_within_s: float,
    noticed_at: float | None,
) -> Incident:
    tx.dialect.lock(tx.conn, _LOCK)
    values: dict[str, Any] = {
        "severity": severity,
        "evidence": _json([[s.en, s.ko] for s in diagnosis.evidence]),
        "effects": _json(list(diagnosis.effects)),
    }
    since = min(diagnosis.since or tx.now, tx.now)
    row = reads.latest(tx.conn, diagnosis.key)
    if row is not None and row.state != "closed":
        values["started_at"] = min(row.started_at, since)
        incident_id = row.id
    elif row is not None and (row.closed_at or 0.0) >= tx.now - reopen_within_s:
        incident_id = row.id
        values |= {"state": "open", "closed_at": None, "flaps": row.flaps + 1}
        _note(tx, incident_id, "reopened", {"flaps": row.flaps + 1})
    else:
        fresh = {**values, "cause": diagnosis.cause, "subject": diagnosis.subject, "state": "open"}
        noticed = max(since, min(noticed_at or tx.now, tx.now))
        fresh |= {"started_at": since, "noticed_at": noticed, "max_queue_length": queue_length}
        made = tx.execute(sa.insert(_i).returning(_i.c.id), fresh).scalar_one()
        _note(tx, made, "opened", {"effects": list(diagnosis.effects)})
        return reads.find(tx.conn, made)
    values["max_queue_length"] = max(queue_length, row.max_queue_length)
    if any(getattr(row, name) != value for name, value in values.items()):
        tx.execute(sa.update(_i).where(_i.c.id == incident_id).values(**values))
    return reads.find(tx.conn, incident_id)


def _sample(tx: Tx, incident_id: int, sample: Sample) -> None:
    row = reads.row_of(tx.conn, incident_id)
    gap_s = max(SAMPLE_S, (tx.now - row.started_at) / SAMPLES_PER_AGE)
    query = sa.select(sa.func.max(_e.c.at)).where(
        _e.c.incident_id == incident_id, _e.c.kind == "sample"
    )
    last = tx.execute(query).scalar()
    if last is None or tx.now - last >= gap_s * 0.9:
        data = {"queue": sample.queue, "working": sample.working, "completed": sample.completed}
        _note(tx, incident_id, "sample", data)
    if sample.queue > row.max_queue_length:
        tx.execute(
            sa.update(_i).where(_i.c.id == incident_id).values(max_queue_length=sample.queue)
        )


def _begin(tx: Tx, incident_id: int, action: Action, per_hour: int, rest_s: float) -> str:
    """Asked and granted in one step, so that of two watchdogs only one acts."""
    tx.dialect.lock(tx.conn, _LOCK)
    if get_meta(tx, PAUSED) == "1":
        return "paused"
    if reads.row_of(tx.conn, incident_id).state == "closed":
        return "closed"
    asked = (_e.c.kind == "action") & (_e.c.what == action.remedy) & (_e.c.outcome == "asked")
    times = tx.execute(
        sa.select(_e.c.at, _e.c.incident_id).where(asked, _e.c.at > tx.now - HOUR_S)
    ).all()
    if any(t.incident_id == incident_id and t.at > tx.now - rest_s for t in times):
        return "recent"
    if len(times) >= per_hour:
        return "rate"
    _act(tx, incident_id, action, "asked")
    return ""


def _act(tx: Tx, incident_id: int, action: Action, outcome: str = "") -> None:
    tx.dialect.lock(tx.conn, _LOCK)
    reads.row_of(tx.conn, incident_id)
    outcome = outcome or action.outcome
    data = {"en": action.detail.en, "ko": action.detail.ko, "by": action.by}
    _note(tx, incident_id, "action", data, action.remedy, outcome)
    tx.count(f"recovery:{action.remedy}:{outcome}", "")
    if outcome != "asked":
        audited: dict[str, object] = {
            "incident": incident_id,
            "outcome": outcome,
            "detail": action.detail.en,
        }
        write_audit(tx, action.by, f"remedy:{action.remedy}", audited)


def _hand_over(tx: Tx, incident_id: int) -> None:
    tx.dialect.lock(tx.conn, _LOCK)
    query = sa.update(_i).where(_i.c.id == incident_id, _i.c.state == "open")
    if tx.execute(query.values(state="handed_over")).rowcount:
        _note(tx, incident_id, "handed_over", {})


def _close(tx: Tx, incident_id: int, toll: Toll) -> Incident:
    tx.dialect.lock(tx.conn, _LOCK)
    if reads.row_of(tx.conn, incident_id).state != "closed":
        values = {
            "state": "closed",
            "closed_at": tx.now,
            "affected_users": toll.users,
            "affected_anonymous": toll.anonymous,
            "failed_jobs": toll.failed,
        }
        tx.execute(sa.update(_i).where(_i.c.id == incident_id).values(**values))
        _note(tx, incident_id, "closed", {})
    return reads.find(tx.conn, incident_id)


def _note(
    tx: Tx,
    incident_id: int,
    kind: IncidentEventKind,
    data: Mapping[str, Any],
    what: str = "",
    outcome: str = "",
) -> None:
    row = {
        "incident_id": incident_id,
        "at": tx.now,
        "kind": kind,
        "what": what,
        "outcome": outcome,
        "data": _json(data),
    }
    tx.execute(sa.insert(_e), row)


def _ask(tx: Tx, request: RemedyRequest) -> RemedyRequest:
    values = {
        "incident_id": request.incident_id,
        "host": request.host,
        "action": request.action,
        "target": request.target,
        "process_id": request.process_id,
        "asked_at": tx.now,
    }
    made = tx.execute(sa.insert(_r).returning(_r.c.id), values).scalar_one()
    return reads.request(tx.conn, made)


def _json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))
