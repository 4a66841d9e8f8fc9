"""Pages and texts for people and monitors: ``/docs``, ``/metrics``, the status page of 9181.

Nothing here loads anything from elsewhere; the content security policy says so to the browser.
"""

from __future__ import annotations

import asyncio
from functools import cache
from importlib import resources

from fastapi import APIRouter, Request
from starlette.responses import Response

from unjam.core.errors import DependencyDown, NotFound
from unjam.embedding.meters import Meters
from unjam.observe.metrics import render_metrics
from unjam.queue.safety import SafetyMeter
from unjam.web.admin import worker_list
from unjam.web.health import readiness
from unjam.web.house import house_of, language_of
from unjam.web.queues import queue_list
from unjam.web.schemas import fields_of, json_response

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
_ASSETS = frozenset({"docs.js", "status.js", "style.css"})

api_router = APIRouter(include_in_schema=False)
dashboard_router = APIRouter(include_in_schema=False)


@cache
def _file(name: str) -> bytes:
    return resources.files("unjam.web").joinpath("static", name).read_bytes()


def _page(name: str) -> Response:
    return Response(
        _file(name),
        media_type=_TYPES[name[name.rindex(".") :]],
        headers={
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        },
    )


@api_router.get("/static/{name}")
@dashboard_router.get("/static/{name}")
async def asset(name: str) -> Response:
    if name not in _ASSETS:
        raise NotFound(f"no file {name!a}")
    return _page(name)


@api_router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    return json_response(request.app.openapi())


@api_router.get("/docs")
async def docs() -> Response:
    return _page("docs.html")


@api_router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus' text format, from the one collector."""
    house = house_of(request)
    state = request.app.state
    if not hasattr(state, "embedding_meters"):
        state.embedding_meters = Meters(house.settings)
        state.redis_safety = SafetyMeter(house.settings.redis_url)
    meters, safety = await asyncio.gather(state.embedding_meters.read(), state.redis_safety.read())
    text = await render_metrics(house.ledger, house.queue, extra={**meters, **safety})
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


# -- 9181 -------------------------------------------------------------------------------------
@dashboard_router.get("/")
async def status_page() -> Response:
    return _page("status.html")


@dashboard_router.get("/api/queues")
async def queues(request: Request) -> Response:
    return json_response({"queues": await queue_list(house_of(request))})


@dashboard_router.get("/api/status")
async def status(request: Request) -> Response:
    """What the status page shows, in one answer; without queues while Redis is away."""
    house = house_of(request)
    try:
        queues = await queue_list(house)
    except DependencyDown:  # readiness says so
        queues = []
    return json_response(
        {
            "lang": language_of(request),
            "readiness": await readiness(house),
            "queues": queues,
            "workers": await worker_list(house),
            "ledger": fields_of(await house.ledger.equation()),
        }
    )
