"""Operators' incidents: what happened, what was done, the report; and recovery on demand."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal, Protocol, cast

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from unjam.app.looking import snapshot_of
from unjam.app.recovery import recovery_of
from unjam.app.services import Services
from unjam.core.causes import CAUSES
from unjam.core.errors import DependencyDown
from unjam.core.incident import Action, Incident, IncidentEvent
from unjam.core.ports import IncidentBook
from unjam.observe.incidents import title_of
from unjam.observe.stats import zone_of
from unjam.watchdog.recovery import Plan, Round
from unjam.watchdog.remedies import REMEDIES
from unjam.watchdog.report import FORMATS, Report, make_report
from unjam.web.audit import operator_of
from unjam.web.bodies import described, json_body
from unjam.web.house import House, house_of, language_of
from unjam.web.schemas import json_response, timestamp
from unjam.worker.identity import process_identity

router = APIRouter()
IncidentId = Annotated[int, Path(ge=1, le=10**15)]
EVENTS_SHOWN = 5000


class ActionOut(BaseModel):
    at: str | None
    remedy: str
    title: str
    outcome: Literal["planned", "asked", "done", "failed", "refused"]
    detail: str
    by: str


class IncidentOut(BaseModel):
    """One incident. Times are RFC 3339 in UTC; texts are in the caller's language."""

    id: int
    cause: str
    subject: str
    title: str
    meaning: str
    advice: str
    command: str = Field(description="the exact next command for a person")
    severity: Literal["info", "warning", "critical"]
    state: Literal["open", "handed_over", "closed"]
    started_at: str = Field(description="first lack of progress, or first sign")
    noticed_at: str
    closed_at: str | None
    duration_s: float
    evidence: list[str]
    effects: list[str]
    actions: list[ActionOut]
    max_queue_length: int
    affected_users: int
    affected_anonymous: int
    failed_jobs: int
    flaps: int = Field(description="times that it came back soon after its close")


class IncidentsOut(BaseModel):
    items: list[IncidentOut]
    next_cursor: str | None
    paused: bool = Field(description="the kill switch: the watchdog looks, and does nothing")


class IncidentEventOut(BaseModel):
    seq: int
    at: str
    kind: str
    data: dict[str, Any]


class IncidentWholeOut(IncidentOut):
    events: list[IncidentEventOut] = Field(description="the timeline, oldest first")


class RecoverIn(BaseModel):
    """*plan*: only say what would be done."""

    model_config = ConfigDict(extra="forbid")

    plan: bool = False


class PlanOut(BaseModel):
    cause: str
    subject: str
    title: str
    evidence: list[str]
    effects: list[str]
    incident_id: int | None
    next: Literal["act", "wait", "hand_over"]
    remedy: str | None
    remedy_title: str
    take_back: str = Field(description="how the remedy is taken back")
    why: str


class RecoverOut(BaseModel):
    paused: bool
    plans: list[PlanOut] = Field(description="causes, the root first, and what comes next")
    incidents: list[IncidentOut]


class PausedOut(BaseModel):
    paused: bool


class Recovers(Protocol):
    """``unjam.watchdog.recovery.Recovery``, as far as this route needs it."""

    async def once(self, *, plan: bool, by: str) -> Round: ...


def book_of(house: House) -> IncidentBook:
    """The ledger is the book of incidents, too."""
    return cast(IncidentBook, house.ledger)


# -- looking ----------------------------------------------------------------------------------
@router.get("/incidents", response_model=IncidentsOut, summary="Incidents, newest first")
async def incidents(
    request: Request,
    open_only: Annotated[bool, Query(alias="open")] = False,
    cursor: Annotated[str | None, Query(max_length=18, pattern=r"^[0-9]+$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    book, lang = book_of(house_of(request)), language_of(request)
    page = await book.incidents(open_only=open_only, cursor=cursor, limit=limit)
    return json_response(
        {
            "items": [incident_json(i, lang) for i in page.items],
            "next_cursor": page.next_cursor,
            "paused": await book.remedies_paused(),
        }
    )


@router.get(
    "/incidents/{incident_id}",
    response_model=IncidentWholeOut,
    summary="One incident with its timeline",
)
async def incident(request: Request, incident_id: IncidentId) -> Response:
    book, lang = book_of(house_of(request)), language_of(request)
    found = await book.incident(incident_id)
    events = await book.incident_events(incident_id, limit=EVENTS_SHOWN)
    return json_response(
        {**incident_json(found, lang), "events": [incident_event_json(e) for e in events]}
    )


@router.get(
    "/incidents/{incident_id}/report",
    summary="The post-mortem of an incident",
    response_class=Response,
)
async def incident_report(
    request: Request,
    incident_id: IncidentId,
    wanted: Annotated[Literal["md", "json", "html"], Query(alias="format")] = "md",
    lang: Literal["en", "ko"] | None = None,
) -> Response:
    """Markdown, JSON, or one HTML file that stands alone."""
    report = await report_of(house_of(request), incident_id, lang or language_of(request))
    write, media_type = FORMATS[wanted]
    # Its style is inline, and nothing else may run or load.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    headers = {"Cache-Control": "no-store", "Content-Security-Policy": policy}
    return Response(write(report), media_type=media_type, headers=headers)


async def report_of(house: House, incident_id: int, lang: str) -> Report:
    """Raises NotFound."""
    book = book_of(house)
    found = await book.incident(incident_id)
    events = await book.incident_events(incident_id, limit=EVENTS_SHOWN)
    zone = zone_of(house.settings.timezone)
    return make_report(found, events, time.time(), lang=lang, zone=zone)


def incident_json(found: Incident, lang: str) -> dict[str, Any]:
    """The fields of :class:`IncidentOut`."""
    cause = CAUSES.get(found.cause)

    def said(part: str) -> str:
        return cause.said_in(part, lang) if cause else ""

    return {
        "id": found.id,
        "cause": found.cause,
        "subject": found.subject,
        "title": title_of(found, lang),
        "meaning": said("meaning"),
        "advice": said("advice"),
        "command": cause.command if cause else "unjam doctor",
        "severity": found.severity,
        "state": found.state,
        "started_at": timestamp(found.started_at),
        "noticed_at": timestamp(found.noticed_at),
        "closed_at": timestamp(found.closed_at),
        "duration_s": round(max(0.0, (found.closed_at or time.time()) - found.started_at), 1),
        "evidence": [s.said_in(lang) for s in found.evidence],
        "effects": list(found.effects),
        "actions": [_action_json(a, lang) for a in found.actions],
        "max_queue_length": found.max_queue_length,
        "affected_users": found.affected_users,
        "affected_anonymous": found.affected_anonymous,
        "failed_jobs": found.failed_jobs,
        "flaps": found.flaps,
    }


def _action_json(action: Action, lang: str) -> dict[str, Any]:
    remedy = REMEDIES.get(action.remedy)
    return {
        "at": timestamp(action.at),
        "remedy": action.remedy,
        "title": remedy.title.said_in(lang) if remedy else action.remedy,
        "outcome": action.outcome,
        "detail": action.detail.said_in(lang),
        "by": action.by,
    }


def incident_event_json(event: IncidentEvent) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "at": timestamp(event.at),
        "kind": event.kind,
        "data": dict(event.data),
    }


# -- acting -----------------------------------------------------------------------------------
@router.post(
    "/recover",
    response_model=RecoverOut,
    openapi_extra=described(RecoverIn),
    summary="Look for trouble and treat it now, or only plan to",
)
async def recover(request: Request) -> Response:
    """The watchdog's own round, once: bounded, rate-limited and audited like its own."""
    asked = await json_body(request, RecoverIn)
    found = await _recovery(request).once(plan=asked.plan, by=operator_of(request))
    return json_response(recover_json(found, language_of(request)))


@router.post(
    "/recover/pause",
    response_model=PausedOut,
    summary="The kill switch: no remedy is carried out any more",
)
async def pause_recovery(request: Request) -> Response:
    return await _switch(request, True)


@router.post("/recover/resume", response_model=PausedOut, summary="Remedies are carried out again")
async def resume_recovery(request: Request) -> Response:
    return await _switch(request, False)


async def _switch(request: Request, paused: bool) -> Response:
    await book_of(house_of(request)).pause_remedies(paused, operator_of(request))
    return json_response({"paused": paused})


def _recovery(request: Request) -> Recovers:
    """One per process, made at its first use."""
    state = request.app.state
    if not hasattr(state, "recovery"):
        house = house_of(request)
        if not isinstance(house, Services):
            raise DependencyDown("this process cannot recover", code="api_down")
        state.recovery = recovery_of(house, snapshot_of(house), process_identity("api"))
    return cast(Recovers, state.recovery)


def recover_json(found: Round, lang: str) -> dict[str, Any]:
    """The fields of :class:`RecoverOut`."""
    return {
        "paused": found.paused,
        "plans": [_plan_json(p, lang) for p in found.plans],
        "incidents": [incident_json(i, lang) for i in found.incidents],
    }


def _plan_json(plan: Plan, lang: str) -> dict[str, Any]:
    diagnosis, remedy = plan.diagnosis, plan.choice.remedy
    cause = CAUSES.get(diagnosis.cause)
    return {
        "cause": diagnosis.cause,
        "subject": diagnosis.subject,
        "title": cause.said_in("title", lang) if cause else diagnosis.cause,
        "evidence": [s.said_in(lang) for s in diagnosis.evidence],
        "effects": list(diagnosis.effects),
        "incident_id": plan.incident.id if plan.incident else None,
        "next": plan.choice.verdict,
        "remedy": remedy.code if remedy else None,
        "remedy_title": remedy.title.said_in(lang) if remedy else "",
        "take_back": remedy.back.said_in(lang) if remedy else "",
        "why": plan.choice.why,
    }
