"""Pages and texts for people and monitors on 8002: ``/docs`` and ``/metrics``.

Nothing here loads anything from elsewhere; the content security policy says so to the browser.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import cache
from importlib import resources

from fastapi import APIRouter, Request
from starlette.responses import Response

from unjam.core.errors import NotFound
from unjam.embedding.meters import Meters
from unjam.observe.metrics import render_metrics
from unjam.queue.safety import SafetyMeter
from unjam.web.house import House, house_of
from unjam.web.incidents import book_of
from unjam.web.schemas import json_response

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
_ASSETS = frozenset({"docs.js", "style.css"})

api_router = APIRouter(include_in_schema=False)


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
    known = {**meters, **safety, **await _incidents(house)}
    text = await render_metrics(house.ledger, house.queue, extra=known)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _incidents(house: House) -> dict[tuple[str, str], float]:
    """Open incidents by state, as ``render_metrics`` takes them."""
    page = await book_of(house).incidents(open_only=True, limit=200)
    counts = Counter(incident.state for incident in page.items)
    return {("rag_incidents", state): float(counts[state]) for state in ("open", "handed_over")}
