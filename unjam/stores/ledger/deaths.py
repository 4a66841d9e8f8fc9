"""Deaths of workers, and what they cost the documents in their hands (law 7).

What a dead worker held becomes suspect, free of charge, and runs alone from then on. A death while
alone is held against the document only when the house was *quiet* around it: no other process of
the house died within ``QUIET_S`` before, except those that held this document, too. Between two
deaths that count it waits that long: the control of the experiment, in which workers live without
it. A storm of kills does not keep quiet; a poison document kills, and only while it runs.

When several workers die in one moment, somebody ended them: what they held goes back to work
without suspicion, once a generation. A poison document among it kills again, and is suspect from
then on.

A death in a storm costs a short wait that doubles. ``LONE_DEATHS`` of them at one place, quiet or
not, end it, too, so that several poison documents cannot keep each other in doubt for ever.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from unjam.core.backoff import DEATH_BUDGET, LONE_DEATHS, QUIET_S
from unjam.core.document import State, Ticket
from unjam.core.events import EventKind
from unjam.core.outcome import Dead
from unjam.stores import schema
from unjam.stores.ledger.claims import STEPS, bury, wait
from unjam.stores.ledger.commit import Committer
from unjam.stores.ledger.row import Row
from unjam.stores.ledger.tx import Tx

_d = schema.documents
_leased = sa.text("worker <> ''")
MEMORY = "deaths"
_LONGEST_WAIT_S = 16.0
FORGET_PROCESS_S = 3600.0
"""A process that has not been heard of for this long leaves the list."""


class DeathBook:
    """Mixed into ``SqlLedger``. The promises stand in ``core.ports.Ledger``."""

    _committer: Committer

    async def note_exit(self, worker_id: str, code: int) -> None:
        await self._committer.submit(lambda tx: note_exit(tx, worker_id, code), parting=True)


def expire(tx: Tx, dead_workers: Sequence[str], limit: int, judge_time: bool) -> list[Ticket]:
    """Suspects, or dead letters with evidence when they killed their worker alone."""
    held = sa.select(_d.c.id).where(_leased)
    rows: dict[str, Row] = {}
    if dead_workers:
        query = held.where(_d.c.worker.in_(list(dead_workers)))
        rows |= {r.id: r for r in tx.ids(query.limit(limit)) if r.worker in dead_workers}
    if judge_time:
        query = held.where(_d.c.lease_until < tx.lease_now).order_by(_d.c.lease_until)
        late = tx.ids(query.limit(limit), free=True)
        rows |= {r.id: r for r in late if r.worker and (r.lease_until or 0.0) < tx.lease_now}
    if not rows and not dead_workers:
        return []
    died = {*dead_workers, *(row.worker for row in rows.values())}
    scene = _Scene(_remember(tx, died), _ends(tx, died), _at_once(tx, died))
    tickets = [t for row in rows.values() if (t := _take_away(tx, row, scene)) is not None]
    _forget_processes(tx, dead_workers)
    return tickets


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is known of the deaths around a document."""

    lately: set[str]  # everybody who died within QUIET_S
    ends: Mapping[str, Mapping[str, Any]]  # worker → how it ended, and its memory
    at_once: bool  # several workers died in this moment


def note_exit(tx: Tx, worker_id: str, code: int) -> None:
    """*code* as ``subprocess`` has it; negative: the signal. Old ones go."""
    table = schema.exits
    row = {"worker": worker_id, "code": code, "at": tx.now}
    tx.upsert(table, [row], update=("code", "at"))
    tx.execute(sa.delete(table).where(table.c.at < tx.now - FORGET_PROCESS_S))


def _ends(tx: Tx, workers: set[str]) -> dict[str, dict[str, Any]]:
    """What their supervisors saw, and how large they were at their last heartbeat."""
    some = sorted(workers)
    exits, processes = schema.exits, schema.processes
    found: dict[str, dict[str, Any]] = {}
    codes = sa.select(exits.c.worker, exits.c.code).where(exits.c.worker.in_(some))
    for row in tx.execute(codes):
        found[row.worker] = {"how": how(row.code), "exit_code": row.code}
    sizes = sa.select(processes.c.id, processes.c.rss_bytes).where(processes.c.id.in_(some))
    for row in tx.execute(sizes):
        if row.rss_bytes:
            found.setdefault(row.id, {})["worker_rss_bytes"] = row.rss_bytes
    return found


def how(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    known = -code in set(signal.Signals)
    return f"signal {-code} ({signal.Signals(-code).name})" if known else f"signal {-code}"


def _at_once(tx: Tx, died: set[str]) -> bool:
    table = schema.processes
    query = sa.select(sa.func.count()).select_from(table)
    working = table.c.kind.in_(("worker", "stock"))
    return tx.execute(query.where(table.c.id.in_(sorted(died)), working)).scalar_one() > 1


def _remember(tx: Tx, died: set[str]) -> set[str]:
    """Note who died now; everybody who died within ``QUIET_S``."""
    table = schema.meta
    noted = tx.execute(sa.select(table.c.value).where(table.c.key == MEMORY)).scalar()
    before = {w: tx.lease_now - age_s for w, age_s in lately(noted, tx.lease_now).items()}
    # A worker taken for dead twice (its lease ran out, then it ended) died the first time.
    now = dict.fromkeys(sorted(died), tx.lease_now) | before
    tx.upsert(table, [{"key": MEMORY, "value": json.dumps(now)}], update=("value",))
    return set(now)


def lately(noted: str | None, lease_now: float) -> dict[str, float]:
    """Worker → age of its death in seconds, of those within ``QUIET_S``. *noted*: as meta has it,
    where older ones stand until the next death."""
    deaths: dict[str, float] = json.loads(noted) if noted else {}
    # The lease clock of SQLite begins anew at a boot: a time to come is one of before.
    ages = {worker: lease_now - at for worker, at in deaths.items()}
    return {worker: age_s for worker, age_s in ages.items() if 0 <= age_s <= QUIET_S}


def _take_away(tx: Tx, row: Row, scene: _Scene) -> Ticket | None:
    worker, step = row.worker, State(row.state)
    evidence: dict[str, Any] = {
        "worker": worker,
        "step": step,
        "done": row.progress_done,
        "total": row.progress_total,
        "alone": bool(row.alone),
        **scene.ends.get(worker, {}),
    }
    tx.change(row, token=row.token + 1)
    told = _told(tx, row)
    if scene.at_once and not row.suspect and not told:
        tx.event(row, EventKind.WORKER_DIED, {**evidence, "deaths": row.deaths, "at_once": True})
        return tx.to_work(row, EventKind.REQUEUED, "worker_died")
    tx.change(row, suspect=1, lane=tx.suspect_lane)
    if not row.alone:
        tx.event(row, EventKind.WORKER_DIED, {**evidence, "deaths": row.deaths})
        return tx.to_work(row, EventKind.REQUEUED, "worker_died")
    lone_deaths = sum(e["alone"] and e["done"] == row.progress_done for e in told)
    others = scene.lately - {e["worker"] for e in told} - {worker}
    if not others:
        tx.change(row, **_count_death(row))
    evidence |= {"deaths": row.deaths, "lone_deaths": lone_deaths + 1, "others_died": len(others)}
    if row.deaths >= DEATH_BUDGET or lone_deaths + 1 >= LONE_DEATHS:
        count = max(row.deaths, lone_deaths + 1)
        detail = f"{count} workers died on it alone, at {step}, chunk {row.progress_done}"
        if "how" in evidence:
            detail += f"; the last by {evidence['how']}"
        before = [_death(e) for e in told[-DEATH_BUDGET:]]
        evidence["earlier_deaths"] = before
        bury(tx, row, Dead("kills_its_worker", detail, evidence))
        return None
    tx.event(row, EventKind.WORKER_DIED, evidence)
    pause_s = min(_LONGEST_WAIT_S, 2.0**lone_deaths) if others else QUIET_S
    wait(tx, row, "worker_died", "alone; others died, too" if others else "alone", pause_s)
    return None


def _told(tx: Tx, row: Row) -> list[dict[str, Any]]:
    """The deaths of this generation's holders so far, oldest first."""
    table = schema.events
    query = sa.select(table.c.data).where(
        table.c.document_id == row.id,
        table.c.generation == row.generation,
        table.c.kind == EventKind.WORKER_DIED.value,
    )
    return [json.loads(data) for (data,) in tx.execute(query.order_by(table.c.seq))]


def _death(told: Mapping[str, Any]) -> dict[str, Any]:
    """What a dead letter keeps of an earlier death."""
    kept = ("worker", "step", "done", "alone", "how", "worker_rss_bytes")
    return {name: told[name] for name in kept if name in told}


def _count_death(row: Row) -> dict[str, object]:
    """The mark (chunks done, step) only ever grows: beyond it is new progress, and the count
    starts again; at or below it is one more death at the same place."""
    mark = (row.progress_done, STEPS[State(row.state)])
    if row.death_step and mark <= (row.death_done, row.death_step):
        return {"deaths": row.deaths + 1}
    return {"deaths": 1, "death_done": mark[0], "death_step": mark[1]}


def _forget_processes(tx: Tx, dead_workers: Sequence[str]) -> None:
    table = schema.processes
    gone = table.c.seen < tx.lease_now - FORGET_PROCESS_S
    if dead_workers:
        gone = gone | table.c.id.in_(list(dead_workers))
    if tx.execute(sa.select(table.c.id).where(gone).limit(1)).first():
        tx.execute(sa.delete(table).where(gone))
    if dead_workers:  # nobody need wait for a dead leader's time to run out
        leaders = schema.leaders
        tx.execute(sa.delete(leaders).where(leaders.c.holder.in_(list(dead_workers))))
