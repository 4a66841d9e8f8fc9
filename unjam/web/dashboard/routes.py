"""Every path of 9181: pages, their live stream, questions and actions, signing in, ``/api``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Literal
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import APIRouter, FastAPI, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from unjam.core.errors import Conflict, DependencyDown, NotFound, TooLarge, UnjamError, UsageError
from unjam.watchdog.report import FORMATS
from unjam.web.admin import worker_list
from unjam.web.dashboard import views, views_documents
from unjam.web.dashboard.access import (
    Role,
    Sessions,
    may_read,
    origin_given,
    role_of,
    sessions_of,
)
from unjam.web.dashboard.actions import action
from unjam.web.dashboard.actions_base import Question
from unjam.web.dashboard.board import Board
from unjam.web.dashboard.live import Fragments, stream
from unjam.web.dashboard.render import (
    LANG_COOKIE,
    THEME_COOKIE,
    Ctx,
    View,
    context,
    dialog,
    language,
    page,
    static,
)
from unjam.web.health import readiness
from unjam.web.house import Binding, House, house_of, language_of
from unjam.web.incidents import report_of
from unjam.web.problems import problem, status_of, words_of
from unjam.web.queues import queue_list
from unjam.web.schemas import fields_of, json_response, receipt_json
from unjam.web.uploads import receive_form

FORM_BYTES = 65_536
WRONG_TOKEN_S = 0.5
"""A wrong token is answered this late."""
SIGN_IN = "/sign-in"
PREFERENCE_S = 365 * 86_400

router = APIRouter(include_in_schema=False)
Shows = Callable[[Ctx], Awaitable[View]]

_PAGES: dict[str, Shows] = {
    "/": views.now,
    "/documents": views_documents.documents,
    "/workers": views.workers,
    "/dead-letters": views_documents.dead_letters,
    "/incidents": views.incidents,
    "/capacity": views.capacity,
    "/search": views.search,
}
_ONE = re.compile(r"/(documents|incidents)/([0-9A-Za-z_-]{1,64})\Z")
_OPEN_PAGES = frozenset({"/", "/workers", "/capacity"})
"""Without documents' names or texts: counts, as ``/api/queues`` has them."""


def prepare(app: FastAPI, house: House, binding: Binding) -> Sessions:
    """Give *app* what its pages share."""
    app.state.board = Board(house)
    app.state.fragments = Fragments()
    app.state.sessions = Sessions(house.settings, binding)
    return app.state.sessions


def shows(path: str) -> Shows:
    """What makes the page at *path* (without query). Raises NotFound."""
    found = _PAGES.get(path)
    if found is not None:
        return found
    one = _ONE.match(path)
    if one is None:
        raise NotFound(f"nothing is served at {path}")
    kind, which = one.groups()
    if kind == "documents":
        return lambda ctx: views_documents.document(ctx, which)
    return lambda ctx: views.incident(ctx, which)


# -- pages ------------------------------------------------------------------------------------
@router.get("/")
@router.get("/documents")
@router.get("/documents/{which}")
@router.get("/workers")
@router.get("/dead-letters")
@router.get("/incidents")
@router.get("/incidents/{which}")
@router.get("/capacity")
@router.get("/search")
async def show(request: Request) -> Response:
    """The page at the request's path."""
    if request.url.path not in _OPEN_PAGES and not may_read(request):
        return RedirectResponse(f"{SIGN_IN}?next={quote(request.url.path)}", 303)
    ctx = await context(request)
    try:
        return page(ctx, await shows(request.url.path)(ctx))
    except UnjamError as error:
        return page(ctx, _failed(ctx, error))


def _failed(ctx: Ctx, error: UnjamError) -> View:
    title, advice = words_of(error.code, ctx.lang)
    data = {"problem": title or error.detail, "detail": error.detail, "hint": advice or error.hint}
    status = status_of(error)
    return View("problem.html", title or ctx.t("Trouble", "오류"), data, status, live=False)


@router.get("/incidents/{which}/report")
async def incident_report(
    request: Request,
    which: Annotated[int, Path(ge=1, le=10**15)],
    kind: Literal["md", "html"] = "md",
) -> Response:
    """The post-mortem as a file, in the reader's language."""
    if not may_read(request):
        return RedirectResponse(SIGN_IN, 303)
    report = await report_of(house_of(request), which, language(request))
    write, media_type = FORMATS[kind]
    headers = {
        "Content-Disposition": f'attachment; filename="incident-{which}.{kind}"',
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "Cache-Control": "no-store",
    }
    return Response(write(report), media_type=media_type, headers=headers)


@router.get("/live")
async def live(request: Request, path: Annotated[str, Query(max_length=1000)] = "/") -> Response:
    """Server-sent events of the page at *path*."""
    place = urlsplit(path).path
    try:
        view = shows(place)
    except NotFound:  # a question, or signing in: only its head is alive
        return stream(request, path, _still)
    if place not in _OPEN_PAGES and not may_read(request):
        return problem(401, "unauthorised", "this server needs RAG_API_TOKEN", language(request))
    return stream(request, path, view)


async def _still(ctx: Ctx) -> View:
    return View("", "", {}, live=False)


@router.get("/static/{name:path}")
async def file(name: str) -> Response:
    return static(name)


# -- questions and actions --------------------------------------------------------------------
@router.get("/ask/{name}")
async def ask(request: Request, name: str) -> Response:
    """What an action would do, to how many."""
    if not may_read(request):
        return RedirectResponse(SIGN_IN, 303)
    ctx = await context(request)
    inside = "hx-request" in request.headers
    try:
        question = await action(name).ask(ctx, ctx.query)
    except UnjamError as error:
        return dialog(ctx, _failed(ctx, error), inside=inside)
    return dialog(ctx, _asked(ctx, name, question), inside=inside)


def _asked(ctx: Ctx, name: str, question: Question, error: str = "", status: int = 200) -> View:
    data = {"name": name, "question": question, "error": error}
    return View("ask.html", question.title, data, status, live=False)


@router.post("/do/{name}")
async def act(request: Request, name: str) -> Response:
    """Carry out a confirmed action. The operator's token comes with the form, or came before."""
    found = action(name)
    if not origin_given(request):
        return problem(403, "origin_refused", "a browser names its Origin", language(request))
    fields = await _form(request)
    inside = "hx-request" in request.headers
    role, signs_in = await _operator(request, fields)
    ctx = replace(await context(request), role=role)
    if role != "operator":
        said = (
            ctx.t("This token is not the operator's.", "운영자 토큰이 아닙니다.")
            if fields.get("token")
            else ctx.t("The operator's token is needed.", "운영자 토큰이 필요합니다.")
        )
        view = _asked(ctx, name, await found.ask(ctx, fields), said, 401)
    else:
        view = await _carry_out(ctx, name, fields)
    if view.status == 200:
        ctx = replace(await context(request, newest=True), role=role)
    response = dialog(ctx, view, inside=inside)
    if signs_in:
        sessions_of(request).sign_in(response, "operator", secure=_secure(request))
    return response


async def _carry_out(ctx: Ctx, name: str, fields: dict[str, str]) -> View:
    """Act; say what happened, or ask again when the number is another by now."""
    found = action(name)
    try:
        answer = await found.do(ctx, fields)
    except UnjamError as error:
        if not isinstance(error, Conflict) or error.code != "count_changed":
            return _failed(ctx, error)
        said = ctx.t(
            "The number changed meanwhile; nothing was done. This is the number now.",
            "그 사이 건수가 바뀌어 아무것도 하지 않았습니다. 현재 건수로 다시 확인하세요.",
        )
        return _asked(ctx, name, await found.ask(ctx, fields), said, 409)
    data = {"text": answer.text, "back": answer.back}
    return View("done.html", answer.text, data, live=False)


@router.post("/upload")
async def upload(request: Request) -> Response:
    """One or several files, as the API takes them; for operators. JSON for the page's script,
    which also shows each one's progress; else back to the list."""
    lang = language(request)
    if not origin_given(request):
        return problem(403, "origin_refused", "a browser names its Origin", lang)
    if role_of(request) != "operator":
        detail = "uploading here needs the operator's token; sign in first"
        return problem(401, "admin_unauthorised", detail, lang)
    house = house_of(request)
    form = await receive_form(request, house.intake)
    receipts = await house.intake.accept(form.files, user_id=form.user_id, metadata=form.metadata)
    if "application/json" in request.headers.get("accept", ""):
        return json_response({"items": [receipt_json(r, lang) for r in receipts]}, 202)
    return RedirectResponse("/documents", 303)


# -- signing in, preferences ------------------------------------------------------------------
@router.get(SIGN_IN)
async def sign_in_page(request: Request) -> Response:
    ctx = await context(request)
    return dialog(ctx, _signing(ctx, ""), inside="hx-request" in request.headers)


def _signing(ctx: Ctx, error: str, status: int = 200) -> View:
    data = {"error": error, "next": _own(ctx.query.get("next", "/"))}
    return View("sign_in.html", ctx.t("Sign in", "로그인"), data, status, live=False)


@router.post(SIGN_IN)
async def sign_in(request: Request) -> Response:
    if not origin_given(request):
        return problem(403, "origin_refused", "a browser names its Origin", language(request))
    fields = await _form(request)
    role = sessions_of(request).role_for(fields.get("token", ""))
    if not role:
        await asyncio.sleep(WRONG_TOKEN_S)
        ctx = await context(request, f"{SIGN_IN}?next={quote(fields.get('next', '/'))}")
        said = ctx.t("This token opens nothing here.", "유효하지 않은 토큰입니다.")
        return dialog(ctx, _signing(ctx, said, 401), inside=False)
    response = RedirectResponse(_own(fields.get("next", "/")), 303)
    sessions_of(request).sign_in(response, role, secure=_secure(request))
    return response


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    response = RedirectResponse("/", 303)
    sessions_of(request).sign_out(response)
    return response


@router.post("/prefs")
async def prefs(request: Request) -> Response:
    """Language and theme, of this browser only."""
    fields = await _form(request)
    response = RedirectResponse(_own(fields.get("next", "/")), 303)
    for name, cookie, allowed in (
        ("lang", LANG_COOKIE, ("en", "ko")),
        ("theme", THEME_COOKIE, ("light", "dark", "auto")),
    ):
        if fields.get(name) in allowed:
            response.set_cookie(
                cookie, fields[name], max_age=PREFERENCE_S, httponly=True, samesite="strict"
            )
    return response


def _own(place: str) -> str:
    """*place* when it is a page of ours, else the first one: a link must not lead elsewhere."""
    split = urlsplit(place)
    fine = place.startswith("/") and not split.netloc and not split.scheme
    return place if fine and not re.search(r"[\\\x00-\x20]", place) else "/"


def _secure(request: Request) -> bool:
    return request.url.scheme == "https"


async def _operator(request: Request, fields: dict[str, str]) -> tuple[Role, bool]:
    """The role, and whether the form's token newly signs in."""
    role = role_of(request)
    if role == "operator" or not fields.get("token"):
        return role, False
    role = sessions_of(request).role_for(fields["token"])
    if role != "operator":
        await asyncio.sleep(WRONG_TOKEN_S)
    return role, role == "operator"


async def _form(request: Request) -> dict[str, str]:
    """The fields of an ordinary form. Raises UsageError, TooLarge."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise UsageError(f"the body is {kind!a}, not a form", code="unsupported_media_type")
    body = b""
    async for block in request.stream():
        body += block
        if len(body) > FORM_BYTES:
            raise TooLarge(f"the form is larger than {FORM_BYTES} bytes")
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


# -- for programs -----------------------------------------------------------------------------
@router.get("/api/queues")
async def queues(request: Request) -> Response:
    """What the runbook asks for; read-only."""
    return json_response({"queues": await queue_list(house_of(request))})


@router.get("/api/status")
async def status(request: Request) -> Response:
    """The system in one answer; without queues while Redis is away."""
    house = house_of(request)
    try:
        lanes = await queue_list(house)
    except DependencyDown:  # readiness says so
        lanes = []
    return json_response(
        {
            "lang": language_of(request),
            "readiness": await readiness(house),
            "queues": lanes,
            "workers": await worker_list(house),
            "ledger": fields_of(await house.ledger.equation()),
        }
    )
