"""``GET …/capacity``: gathers what ``observe.capacity`` judges."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from datetime import date, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from unjam.core.document import RUNNING
from unjam.core.events import Event, EventKind
from unjam.embedding.meters import KEYS_READY, Meters
from unjam.observe import capacity
from unjam.observe.stats import REPORT_HOUR, capacity_line, local, minutes_of, zone_of
from unjam.web.health import BEAT_S
from unjam.web.house import House, house_of
from unjam.web.schemas import json_response

router = APIRouter()

HOUR_M, DAY_M = 60, 1440
MOST_DAYS = 60
EVENTS = 3000
"""Of the latest events; about eight belong to one document."""


@router.get("/capacity", summary="How much comes, how much is possible, what limits it")
async def capacity_report(
    request: Request,
    workers: Annotated[int | None, Query(ge=1, le=1024)] = None,
    keys: Annotated[int | None, Query(ge=1, le=1024)] = None,
    days: Annotated[int, Query(ge=0, le=MOST_DAYS)] = 28,
) -> Response:
    """*workers*, *keys* (key groups): judge that many, too. *days*: of the daily figures, whole
    days; *today* stands beside them from 23:00 on, as in ``rag-capacity.csv``."""
    room = house_of(request)
    facts = await gather_facts(room, days)
    asked: list[tuple[int, int]] = []
    if workers is not None or keys is not None:
        house = facts.house
        groups = (keys or house.key_groups) if house.key_groups else 0
        asked.append((workers or max(1, house.workers), groups))
    today = await _today(room, facts.now)
    return json_response({**asdict(capacity.report(facts, asked)), "today": today})


async def gather_facts(house: House, days: int) -> capacity.Facts:
    """Everything from the ledger: nothing here needs Redis or Chroma. Raises DependencyDown."""
    now = time.time()
    minute = int(now // 60)
    ledger = house.ledger
    states = await ledger.state_counts()
    backlog = await ledger.backlog()
    last = await ledger.last_event()
    events = await ledger.events(None, after=max(0, last - EVENTS), limit=EVENTS)
    return capacity.Facts(
        now=now,
        arrivals=await ledger.arrivals(minute - HOUR_M, minute + 1),
        done=await ledger.completions(minute - DAY_M, minute + 1),
        waiting=backlog.documents,
        in_work=sum(n for state, n in states.items() if state in RUNNING),
        oldest_s=backlog.oldest_s,
        house=await _house(house),
        samples=[s for e in events if (s := _sample(e)) is not None],
        days=await _days(house, now, days),
    )


def _sample(event: Event) -> capacity.Sample | None:
    if event.kind is not EventKind.SEARCHABLE:
        return None
    stages: dict[str, Any] = event.data.get("stage_ms") or {}
    spent = {str(name): float(ms) for name, ms in stages.items()}
    return capacity.Sample(spent, int(event.data.get("chunks", 0)))


async def _house(house: House) -> capacity.House:
    settings = house.settings
    live = [ref for ref, age in await house.ledger.processes() if age < BEAT_S]
    serving = [ref for ref in live if ref.kind in ("worker", "stock")]
    # Only this host's cores are known; others are taken to be like it.
    cores = len(os.sched_getaffinity(0)) * max(1, len({ref.host for ref in serving}))
    knobs = await house.ledger.knobs()
    groups = {key.rpartition(":")[0] for key in settings.api_keys}
    ready = (await Meters(settings).read())[KEYS_READY, ""] if groups else 0
    return capacity.House(
        workers=len(serving),
        cores=cores,
        key_groups=len(groups),
        keys_ready=int(ready),
        requests_per_minute=knobs.get("RAG_EMBEDDING_RATE_LIMIT", settings.embedding_rate_limit),
        texts_per_request=knobs.get("RAG_EMBEDDING_BATCH_SIZE", settings.embedding_batch_size),
        in_flight_cap=knobs.get("RAG_MAX_CONCURRENT_JOBS", settings.max_concurrent_jobs),
    )


async def _days(house: House, now: float, count: int) -> list[capacity.Day]:
    """The last whole days, the first ones without any completion left out."""
    today = local(now, zone_of(house.settings.timezone)).date()
    found: list[capacity.Day] = []
    for back in range(count, 0, -1):
        day = await _day(house, today - timedelta(days=back))
        if day.jobs or found:
            found.append(day)
    return found


async def _today(house: House, now: float) -> dict[str, Any] | None:
    """Today as far as it has come; None before the hour at which the CSV has it."""
    moment = local(now, zone_of(house.settings.timezone))
    return asdict(await _day(house, moment.date())) if moment.hour >= REPORT_HOUR else None


async def _day(house: House, day: date) -> capacity.Day:
    rows = await house.ledger.completions(*minutes_of(day, zone_of(house.settings.timezone)))
    name, jobs, average = capacity_line(day, rows).split(",")
    return capacity.Day(name, int(jobs), int(average))
