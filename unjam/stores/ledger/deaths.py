"""Deaths of workers, and what they cost the documents in their hands (law 7).

What a dead worker held becomes suspect, free of charge, and runs alone from then on. A death while
alone is held against the document only when the house was *quiet* around it: no other process of
the house died within ``QUIET_S`` before, except those that held this document, too. Between two
deaths that count it waits that long: the control of the experiment, in which workers live without
it. A storm of kills does not keep quiet; a poison document kills, and only while it runs.

A death in a storm costs a short wait that doubles. ``LONE_DEATHS`` of them at one place, quiet or
not, end it, too, so that several poison documents cannot keep each other in doubt for ever.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import sqlalchemy as sa

from unjam.core.backoff import DEATH_BUDGET, LONE_DEATHS, QUIET_S
from unjam.core.document import State, Ticket
from unjam.core.events import EventKind
from unjam.core.outcome import Dead
from unjam.stores import schema
from unjam.stores.ledger.claims import STEPS, bury, wait
from unjam.stores.ledger.row import Row
from unjam.stores.ledger.tx import Tx

_d = schema.documents
_leased = sa.text("worker <> ''")
_MEMORY = "deaths"
_LONGEST_WAIT_S = 16.0
FORGET_PROCESS_S = 3600.0
"""A process that has not been heard of for this long leaves the list."""


def expire(tx: Tx, dead_workers: Sequence[str], limit: int, judge_time: bool) -> list[Ticket]:
    """Suspects, or dead letters with evidence when they killed their worker alone."""
    held = sa.select(_d.c.id).where(_leased)
    rows: dict[str, Row] = {}
    if dead_workers:
        query = held.where(_d.c.worker.in_(list(dead_workers)))
        rows |= {r.id: r for r in tx.ids(query.limit(limit)) if r.worker in dead_workers}
    if judge_time:
        query = held.where(_d.c.lease_until < tx.lease_now).order_by(_d.c.lease_until)
        late = tx.ids(query.limit(limit))
        rows |= {r.id: r for r in late if r.worker and (r.lease_until or 0.0) < tx.lease_now}
    if not rows and not dead_workers:
        return []
    lately = _remember(tx, {*dead_workers, *(row.worker for row in rows.values())})
    tickets = [t for row in rows.values() if (t := _take_away(tx, row, lately)) is not None]
    _forget_processes(tx, dead_workers)
    return tickets


def _remember(tx: Tx, died: set[str]) -> set[str]:
    """Note who died now; everybody who died within ``QUIET_S``."""
    table = schema.meta
    noted = tx.execute(sa.select(table.c.value).where(table.c.key == _MEMORY)).scalar()
    deaths: dict[str, float] = json.loads(noted) if noted else {}
    # The lease clock of SQLite begins anew at a boot: a time to come is one of before.
    lately = {w: at for w, at in deaths.items() if 0 <= tx.lease_now - at <= QUIET_S}
    # A worker taken for dead twice (its lease ran out, then it ended) died the first time.
    lately = dict.fromkeys(sorted(died), tx.lease_now) | lately
    tx.upsert(table, [{"key": _MEMORY, "value": json.dumps(lately)}], update=("value",))
    return set(lately)


def _take_away(tx: Tx, row: Row, lately: set[str]) -> Ticket | None:
    worker, step = row.worker, State(row.state)
    evidence = {
        "worker": worker,
        "step": step,
        "done": row.progress_done,
        "total": row.progress_total,
        "alone": bool(row.alone),
    }
    tx.change(row, token=row.token + 1, suspect=1, lane=tx.suspect_lane)
    if not row.alone:
        tx.event(row, EventKind.WORKER_DIED, {**evidence, "deaths": row.deaths})
        return tx.to_work(row, EventKind.REQUEUED, "worker_died")
    holders, lone_deaths = _history(tx, row)
    others = lately - holders - {worker}
    if not others:
        tx.change(row, **_count_death(row))
    evidence |= {"deaths": row.deaths, "lone_deaths": lone_deaths + 1, "others_died": len(others)}
    if row.deaths >= DEATH_BUDGET or lone_deaths + 1 >= LONE_DEATHS:
        count = max(row.deaths, lone_deaths + 1)
        detail = f"{count} workers died on it alone, at {step}, chunk {row.progress_done}"
        bury(tx, row, Dead("kills_its_worker", detail, evidence))
        return None
    tx.event(row, EventKind.WORKER_DIED, evidence)
    pause_s = min(_LONGEST_WAIT_S, 2.0**lone_deaths) if others else QUIET_S
    wait(tx, row, "worker_died", "alone; others died, too" if others else "alone", pause_s)
    return None


def _history(tx: Tx, row: Row) -> tuple[set[str], int]:
    """Who died holding this generation, and how many of them alone with it, at this place."""
    table = schema.events
    query = sa.select(table.c.data).where(
        table.c.document_id == row.id,
        table.c.generation == row.generation,
        table.c.kind == EventKind.WORKER_DIED.value,
    )
    told = [json.loads(data) for (data,) in tx.execute(query)]
    here = [e for e in told if e["alone"] and e["done"] == row.progress_done]
    return {e["worker"] for e in told}, len(here)


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
