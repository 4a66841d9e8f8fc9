"""Templates to answers: the Jinja2 environment, its filters, and the headers of every page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from zoneinfo import ZoneInfo

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response

import unjam
from unjam.app.house import without_password
from unjam.core.causes import CAUSES
from unjam.core.errors import NotFound
from unjam.core.reasons import REASONS
from unjam.web.dashboard import words
from unjam.web.dashboard.access import Role, may_read, role_of
from unjam.web.dashboard.board import Board, Snapshot
from unjam.web.dashboard.verdict import Level, Verdict, judge, level_word
from unjam.web.house import House, house_of, pick_language

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    # With "no-referrer" a browser would send our own forms with the Origin "null".
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LANG_COOKIE, THEME_COOKIE = "unjam_lang", "unjam_theme"
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
FILES = frozenset(
    {
        "dashboard.css",
        "dashboard.js",
        "icon.svg",
        "vendor/htmx.min.js",
        "vendor/hx-sse.min.js",
        "vendor/uPlot.iife.min.js",
        "vendor/uPlot.min.css",
    }
)


@dataclass(frozen=True, slots=True)
class Ctx:
    """What every view knows about who asks. *path* with its query, as the page was called."""

    house: House
    snap: Snapshot
    lang: str
    theme: str
    role: Role
    path: str
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    readable: bool = True
    host: str = "localhost:9181"  # as the reader called it

    def t(self, en: str, ko: str) -> str:
        return ko if self.lang == "ko" else en


@dataclass(frozen=True, slots=True)
class View:
    """A page that can be shown whole or as the fragment that the live stream sends."""

    template: str
    title: str
    data: Mapping[str, Any]
    status: int = 200
    live: bool = True


def language(request: Request) -> str:
    """The cookie's choice, else the browser's, else RAG_LANG."""
    chosen = request.cookies.get(LANG_COOKIE, "")
    if chosen in ("en", "ko"):
        return chosen
    default = house_of(request).settings.lang
    return pick_language(request.headers.get("accept-language", ""), default)


def board_of(request: Request) -> Board:
    return request.app.state.board


async def context(request: Request, path: str | None = None, *, newest: bool = False) -> Ctx:
    """*path*: of the page that a live stream belongs to; None: the request's own."""
    theme = request.cookies.get(THEME_COOKIE, "")
    if path is None:
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return Ctx(
        house=house_of(request),
        snap=await board_of(request).snapshot(newest=newest),
        lang=language(request),
        theme=theme if theme in ("light", "dark") else "",
        role=role_of(request),
        path=path,
        query=dict(parse_qsl(urlsplit(path).query)),
        readable=may_read(request),
        host=request.headers.get("host", "localhost:9181"),
    )


# -- templates --------------------------------------------------------------------------------
@cache
def environment() -> Environment:
    folder = resources.files("unjam.web.dashboard").joinpath("templates")
    made = Environment(
        loader=FileSystemLoader(str(folder)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared: dict[str, Any] = made.globals
    shared |= {"version": unjam.__version__, "causes": CAUSES, "url": url, "tones": words.TONES}
    made.filters.update(count=words.count, size=words.size, jsonattr=_json)
    return made


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def url(path: str, **query: object) -> str:
    """*path* with the query's fields that hold something."""
    given = {k: v for k, v in query.items() if v not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


@cache
def zone_of(name: str) -> tzinfo | None:
    """None is the host's own."""
    return ZoneInfo(name) if name else None


def _helpers(ctx: Ctx) -> dict[str, Callable[..., Any]]:
    """What a template may call, in the reader's language and time zone."""
    lang = ctx.lang
    zone = zone_of(ctx.house.settings.timezone)

    def clock(at: float) -> str:
        return words.clock(at, zone)

    def moment(at: float) -> str:
        return words.moment(at, zone)

    def span(seconds: float | None) -> str:
        return words.duration(seconds, lang)

    def about(seconds: float | None) -> str:
        return words.about(seconds, lang)

    def level(name: Level) -> str:
        return level_word(name, lang)

    def when(at: float | None, kind: str = "ago") -> Markup | str:
        """A time. The page's script turns *ago* into "3 min ago" and *due* into "in 3 s"."""
        if not at:
            return "–"
        html = '<time data-{}="{}" title="{}" datetime="{}" hx-morph-skip-children>{}</time>'
        utc = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
        return Markup(html).format(
            kind, round(at, 1), words.moment(at, zone), utc, words.clock(at, zone)
        )

    def of(table: str) -> Callable[[str], str]:
        return lambda key: words.said(getattr(words, table), key, lang)

    def what(code: str) -> str:
        reason = REASONS.get(code)
        return reason.what_in(lang) if reason else code

    def hint(code: str) -> str:
        reason = REASONS.get(code)
        return reason.hint_in(lang) if reason else ""

    return {
        "t": ctx.t,
        "when": when,
        "clock": clock,
        "moment": moment,
        "span": span,
        "about": about,
        "state_word": of("STATES"),
        "lane_word": of("LANES"),
        "dependency_word": of("DEPENDENCIES"),
        "breaker_word": of("BREAKER_STATES"),
        "kind_word": of("KINDS"),
        "event_word": of("EVENTS"),
        "outcome_word": of("ACTIONS"),
        "incident_word": of("INCIDENT_STATES"),
        "severity_word": of("SEVERITIES"),
        "knob_word": of("KNOBS"),
        "reason_word": what,
        "reason_hint": hint,
        "level_word": level,
        "many": words.many,
        "strategy_word": of("STRATEGIES"),
        "stage_word": of("STAGES"),
        "evidence_word": of("EVIDENCE"),
    }


def render(ctx: Ctx, view: View, layout: str) -> str:
    """*layout*: base.html (whole), part.html (the live fragment), dialog.html."""
    verdict = judge(ctx.snap, ctx.lang)
    template = environment().get_template(view.template)
    return template.render(
        ctx=ctx,
        snap=ctx.snap,
        lang=ctx.lang,
        layout=layout,
        title=view.title,
        verdict=verdict,
        live=view.live,
        operator=ctx.role == "operator",
        redis_url=without_password(ctx.house.settings.redis_url or "redis://127.0.0.1:6379/5"),
        **_helpers(ctx),
        **view.data,
    )


def page(ctx: Ctx, view: View) -> Response:
    """The whole page."""
    headers = {**HEADERS, "Content-Language": ctx.lang, "Vary": "Accept-Language, Cookie"}
    html = render(ctx, view, "base.html")
    return Response(html, view.status, media_type="text/html", headers=headers)


def dialog(ctx: Ctx, view: View, *, inside: bool) -> Response:
    """A question or its answer: into the page's dialog, or as a page of its own."""
    html = render(ctx, view, "dialog.html" if inside else "base.html")
    return Response(html, view.status, media_type="text/html", headers=HEADERS)


def tick(ctx: Ctx, verdict: Verdict) -> dict[str, Any]:
    """What the head of every page shows, as JSON."""
    facts = ctx.snap.ledger.value
    return {
        "at": round(ctx.snap.at, 3),
        "level": verdict.level,
        "word": level_word(verdict.level, ctx.lang),
        "headline": verdict.headline,
        "dead": facts.equation.dead,
        "incidents": len(ctx.snap.watch.value.incidents),
    }


# -- files ------------------------------------------------------------------------------------
@cache
def _file(name: str) -> bytes:
    return resources.files("unjam.web.dashboard").joinpath("static", *name.split("/")).read_bytes()


def static(name: str) -> Response:
    """Raises NotFound."""
    if name not in FILES:
        raise NotFound(f"no file {name!a}")
    kind = _TYPES[name[name.rindex(".") :]]
    # Names carry the version as a query, so a new release is loaded at once.
    headers = {**HEADERS, "Cache-Control": "max-age=3600"}
    return Response(_file(name), media_type=kind, headers=headers)
