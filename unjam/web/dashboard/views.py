"""The pages about the whole system: Now, Workers & keys, Capacity, Search, Incidents."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unjam.core.breaker import DEPENDENCIES, Breaker
from unjam.core.document import RUNNING, State
from unjam.core.errors import UnjamError, UsageError
from unjam.core.ports import Completed, WorkerRef
from unjam.core.tuning import KNOBS
from unjam.observe.capacity import report as judge_capacity
from unjam.settings import Settings
from unjam.web.capacity import gather_facts
from unjam.web.dashboard.board import HISTORY_MINUTES, book_of
from unjam.web.dashboard.render import Ctx, View
from unjam.web.dashboard.verdict import live_workers, rank_of
from unjam.web.dashboard.words import STRATEGIES
from unjam.web.health import BEAT_S
from unjam.web.problems import words_of
from unjam.web.queues import DEAD_LETTERS
from unjam.web.schemas import document_json

DAY_S = 86_400
QUARTER_MINUTES = 15
LONGEST_QUERY = 2000
STATIONS = (
    (State.RECEIVED, State.QUEUED),
    (State.PARSING,),
    (State.CHUNKING,),
    (State.EMBEDDING,),
    (State.STORING,),
    (State.SEARCHABLE,),
)
"""The way of a document; received and queued both stand in line."""


# -- Now --------------------------------------------------------------------------------------
async def now(ctx: Ctx) -> View:
    facts = ctx.snap.ledger.value
    stations = [
        {"state": states[-1].value, "count": sum(facts.states.get(s, 0) for s in states)}
        for states in STATIONS
    ]
    lanes = [lane for lane in ctx.snap.lanes.value if lane["name"] != DEAD_LETTERS]
    data = {
        "stations": stations,
        "incidents": sorted(ctx.snap.watch.value.incidents, key=rank_of),
        "lanes": [lane for lane in lanes if _is_shown(lane)],
        "rows": in_flight(ctx),
        "dependencies": [facts.breakers.get(n, Breaker(n)) for n in DEPENDENCIES],
        "workers": live_workers(ctx.snap),
        "held": sum(facts.states.get(s, 0) for s in RUNNING),
        "per_minute": _per_minute(facts.minutes, ctx.snap.at),
        "hour_jobs": sum(m.jobs for m in facts.minutes),
        "groups": list(facts.dead.items())[:4],
    }
    return View("now.html", ctx.t("Now", "지금"), data)


def _is_shown(lane: dict[str, Any]) -> bool:
    standard = lane["name"] in ("rag_processing", "rag_large_docs")
    return bool(standard or lane["count"] or lane["started"] or lane["paused"])


def in_flight(ctx: Ctx) -> list[dict[str, Any]]:
    """Documents at work, as the API would show them."""
    if not ctx.readable:
        return []
    keeps, forecast = ctx.house.breakers.keeps, ctx.snap.forecast
    return [document_json(d, ctx.lang, keeps, forecast) for d in ctx.snap.ledger.value.in_flight]


def _per_minute(rows: Sequence[Completed], now_s: float) -> list[list[float]]:
    """[[minute starts, Unix s], [completed]] of the last hour, the empty minutes included."""
    last = int(now_s // 60)
    first = last - HISTORY_MINUTES + 1
    done = dict.fromkeys(range(first, last + 1), 0)
    for row in rows:
        if row.minute in done:
            done[row.minute] += row.jobs
    return [[m * 60 for m in done], list(done.values())]


# -- Workers & keys ---------------------------------------------------------------------------
_ORDER = {"worker": 0, "stock": 1, "watchdog": 2, "api": 3}


@dataclass(frozen=True, slots=True)
class Row:
    """One process; *seen_at*: its last heartbeat, Unix s."""

    ref: WorkerRef
    seen_at: float
    live: bool


async def workers(ctx: Ctx) -> View:
    facts = ctx.snap.ledger.value
    rows = [Row(ref, ctx.snap.ledger.at - age_s, age_s < BEAT_S) for ref, age_s in facts.processes]
    rows.sort(key=lambda r: (_ORDER.get(r.ref.kind, 9), not r.live, r.ref.id))
    versions = {r.ref.version for r in rows if r.live}
    changed = await _knobs(ctx)
    data = {
        "rows": rows,
        "beating": live_workers(ctx.snap),
        "held": sum(facts.states.get(s, 0) for s in RUNNING),
        "mixed": len(versions) > 1,
        "settings": ctx.house.settings,
        "knobs": changed,
        "strategies": list(STRATEGIES),
        "queues_paused": any(lane["paused"] for lane in ctx.snap.lanes.value),
        "lanes": [lane for lane in ctx.snap.lanes.value if lane["name"] != DEAD_LETTERS],
    }
    return View("workers.html", ctx.t("Workers & keys", "워커와 키"), data)


async def _knobs(ctx: Ctx) -> list[dict[str, Any]]:
    try:
        changed = await ctx.house.ledger.knobs()
    except UnjamError:
        changed = dict[str, int]()
    return [
        {
            "name": name,
            "value": changed.get(name, start_value(ctx.house.settings, name)),
            "changed": name in changed,
            "low": knob.low,
            "high": knob.high,
        }
        for name, knob in KNOBS.items()
    ]


def start_value(settings: Settings, name: str) -> int:
    """What the environment, or the default, gave a live knob."""
    if name == "RAG_MAX_CHUNK_SIZE":
        return settings.chunk_tokens
    if name == "RAG_CHUNK_OVERLAP":
        return settings.overlap_tokens
    for attribute, described in Settings.model_fields.items():
        if described.alias == name:
            return int(getattr(settings, attribute))
    raise UsageError(f"{name} is no setting")


# -- Capacity ---------------------------------------------------------------------------------
async def capacity(ctx: Ctx) -> View:
    now_s = time.time()
    minute = int(now_s // 60)
    error, rows = "", list[Completed]()
    try:
        rows = await ctx.house.ledger.completions(minute - 24 * 60 + 1, minute + 1)
    except UnjamError as trouble:
        error = trouble.detail
    judged = None
    try:
        judged = judge_capacity(await gather_facts(ctx.house, 0))
    except UnjamError as trouble:
        error = error or trouble.detail
    jobs = sum(r.jobs for r in rows)
    spent_s = sum(r.duration_s for r in rows)
    hour = [r for r in rows if r.minute > minute - 60]
    facts = ctx.snap.ledger.value
    data = {
        "error": error,
        "report": judged,
        "quarters": _quarters(rows, now_s),
        "jobs": jobs,
        "mean_s": spent_s / jobs if jobs else None,
        "hour_jobs": sum(r.jobs for r in hour),
        "lanes": [
            {"lane": lane, "pace": ctx.snap.forecast.paces.get(lane["name"])}
            for lane in ctx.snap.lanes.value
            if lane["name"] != DEAD_LETTERS
        ],
        "backlog": facts.backlog,
        "workers": live_workers(ctx.snap),
        "line_s": ctx.snap.line_s,
        "late": facts.late,
        "judged": facts.judged,
    }
    return View("capacity.html", ctx.t("Capacity", "용량"), data)


def _quarters(rows: Sequence[Completed], now_s: float) -> list[list[float]]:
    """[[quarter-hour starts, Unix s], [completed]] of the last 24 hours."""
    step_s = QUARTER_MINUTES * 60
    last = int(now_s // step_s)
    done = dict.fromkeys(range(last - DAY_S // step_s + 1, last + 1), 0)
    for row in rows:
        quarter = row.minute // QUARTER_MINUTES
        if quarter in done:
            done[quarter] += row.jobs
    return [[q * step_s for q in done], list(done.values())]


# -- Search -----------------------------------------------------------------------------------
async def search(ctx: Ctx) -> View:
    query = ctx.query.get("q", "").replace("\0", " ").strip()[:LONGEST_QUERY]
    hits: Sequence[Any] = ()
    trouble, took_s = None, 0.0
    if query and ctx.readable:
        began = time.monotonic()
        try:
            hits = await ctx.house.retriever.search(query, 10, None)
        except UnjamError as error:
            title, advice = words_of(error.code, ctx.lang)
            trouble = {"title": title or error.detail, "detail": error.detail, "hint": advice}
        took_s = time.monotonic() - began
    data = {
        "query": query,
        "hits": hits,
        "trouble": trouble,
        "took_s": took_s,
        "searchable": ctx.snap.ledger.value.equation.searchable,
    }
    # Not live: an answer that changes while it is read helps nobody, and asking costs money.
    return View("search.html", ctx.t("Search", "검색"), data, live=False)


# -- Incidents --------------------------------------------------------------------------------
async def incidents(ctx: Ctx) -> View:
    page = await book_of(ctx.house).incidents(cursor=ctx.query.get("cursor") or None, limit=50)
    data = {
        "items": page.items,
        "next_cursor": page.next_cursor,
        "paused": ctx.snap.watch.value.paused,
    }
    return View("incidents.html", ctx.t("Incidents", "인시던트"), data)


async def incident(ctx: Ctx, incident_id: str) -> View:
    """Raises NotFound, UsageError."""
    if not (incident_id.isascii() and incident_id.isdigit() and len(incident_id) < 19):
        raise UsageError(f"incident {incident_id!a} is no number", code="invalid")
    found = await book_of(ctx.house).incident(int(incident_id))
    title = ctx.t(f"Incident {found.id}", f"인시던트 {found.id}")
    return View("incident.html", title, {"item": found})
