"""Live settings, and who changed what."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, RootModel
from starlette.responses import Response

from unjam.app.knobs import start_values
from unjam.core.errors import UsageError
from unjam.core.tuning import KNOBS
from unjam.web.bodies import described, json_body
from unjam.web.house import house_of
from unjam.web.schemas import json_response, timestamp

router = APIRouter()
OPERATOR = "operator"
OPERATOR_HEADER = "X-Operator"
_LONGEST = 64
Value = Annotated[int, Field(ge=-(10**15), le=10**15)]


class SettingOut(BaseModel):
    name: str
    value: int = Field(description="in force now")
    start: int = Field(description="what the environment or the default says")
    changed: bool
    low: int
    high: int
    unit: str


class SettingsOut(BaseModel):
    items: list[SettingOut]


class SettingsIn(RootModel[dict[str, Value | None]]):
    """Names and their new values; null: back to the start value."""


class AuditEntryOut(BaseModel):
    id: int
    at: str
    by: str
    action: str
    data: dict[str, Any]


class AuditOut(BaseModel):
    items: list[AuditEntryOut]
    next_cursor: str | None


def operator_of(request: Request) -> str:
    """Who it is, for the audit: the token is shared, so a person may add a name (``X-Operator``).
    A label, no proof."""
    name = request.headers.get(OPERATOR_HEADER, "").strip()[:_LONGEST]
    return f"{OPERATOR} {name}" if name and name.isprintable() else OPERATOR


@router.get("/settings", response_model=SettingsOut, summary="Live settings and their bounds")
async def settings(request: Request) -> Response:
    return json_response(await settings_json(request))


async def settings_json(request: Request) -> dict[str, Any]:
    """The fields of :class:`SettingsOut`."""
    house = house_of(request)
    changed = await house.ledger.knobs()
    start = start_values(house.settings)
    return {
        "items": [
            {
                "name": name,
                "value": changed.get(name, start[name]),
                "start": start[name],
                "changed": changed.get(name, start[name]) != start[name],
                "low": knob.low,
                "high": knob.high,
                "unit": knob.unit,
            }
            for name, knob in KNOBS.items()
        ]
    }


@router.patch(
    "/settings",
    response_model=SettingsOut,
    openapi_extra=described(SettingsIn),
    summary="Change live settings; every worker follows within a batch",
)
async def change_settings(request: Request) -> Response:
    """All of them or none. 422 names a setting that is unknown or out of its bounds."""
    house = house_of(request)
    asked = await json_body(request, SettingsIn)
    await house.ledger.set_knobs(asked.root, operator_of(request))
    return json_response(await settings_json(request))


@router.get("/audit", response_model=AuditOut, summary="Who changed what, newest first")
async def audit(
    request: Request,
    cursor: Annotated[str | None, Query(max_length=20)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise UsageError(f"{cursor!a} is no cursor", code="invalid_cursor")
    ledger = house_of(request).ledger
    items, after = await ledger.audit_page(None if cursor is None else int(cursor), limit)
    return json_response(
        {
            "items": [{**item, "at": timestamp(item["at"])} for item in items],
            "next_cursor": None if after is None else str(after),
        }
    )
