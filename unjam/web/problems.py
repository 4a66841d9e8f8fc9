"""Errors as ``application/problem+json`` (RFC 9457), with a stable ``code`` and a ``hint``."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from unjam.core.codes import PROBLEMS
from unjam.core.errors import (
    Backlogged,
    Conflict,
    LeaseLost,
    NotFound,
    NotNow,
    TooLarge,
    UnjamError,
    UsageError,
)
from unjam.core.reasons import REASONS
from unjam.web.house import language_of

_log = logging.getLogger("unjam.api")
MEDIA_TYPE = "application/problem+json"


_HTTP_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def described(*codes: int) -> dict[int | str, dict[str, Any]]:
    """For a route's ``responses``: the problem documents under these statuses."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}}
    return {code: {"description": _SAYS[code], "content": content} for code in codes}


_SAYS = {
    400: "the request is malformed",
    401: "a token is needed",
    403: "host name or origin refused",
    404: "there is no such thing",
    409: "the state does not allow it, or the Idempotency-Key was used with other bytes",
    413: "too large",
    415: "not multipart/form-data",
    422: "a field is missing or wrong",
    429: "too much backlog; see Retry-After",
    503: "a dependency is away; see Retry-After",
}


def status_of(error: UnjamError) -> int:
    """The HTTP status of one of our errors."""
    if isinstance(error, UsageError) and error.code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[error.code]
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return 500


_STATUS_BY_CODE = {"malformed_body": 400, "unsupported_media_type": 415}
_STATUSES: tuple[tuple[type[UnjamError], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (LeaseLost, 409),
    (TooLarge, 413),
    (UsageError, 422),
    (Backlogged, 429),
    (NotNow, 503),
)


def words_of(code: str, lang: str) -> tuple[str, str]:
    """Title and hint of *code*; waiting reasons have theirs in ``core.reasons``."""
    word = PROBLEMS.get(code)
    if word is not None:
        return (word.title_ko, word.hint_ko) if lang == "ko" else (word.title, word.hint)
    reason = REASONS.get(code)
    if reason is not None:
        return reason.what_in(lang), reason.hint_in(lang)
    return code.replace("_", " "), ""


def problem(
    status: int,
    code: str,
    detail: str,
    lang: str,
    *,
    hint: str = "",
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """One problem document. *hint* overrides the table's."""
    title, standard_hint = words_of(code, lang)
    body = {
        "type": f"urn:unjam:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail.encode("utf-8", "replace").decode(),
        "code": code,
        "hint": hint or standard_hint,
        **(extra or {}),
    }
    return Response(
        orjson.dumps(body),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={"Content-Language": lang, "Cache-Control": "no-store", **(headers or {})},
    )


def problem_of(error: UnjamError, lang: str) -> Response:
    """The problem document of one of our errors."""
    headers: dict[str, str] = {}
    if isinstance(error, NotNow):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    status = status_of(error)
    code = error.code if status != 500 else "internal"
    code = "invalid" if code == UsageError.code else code  # raised without a code of its own
    known = code in PROBLEMS or code in REASONS
    return problem(
        status, code, error.detail, lang, hint="" if known else error.hint, headers=headers
    )


def install(app: FastAPI) -> None:
    """Make every expected error that leaves a route a problem document.

    The unexpected ones are caught by ``auth.Gatekeeper``, the outermost layer.
    """
    app.add_exception_handler(UnjamError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


async def _on_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, UnjamError)
    if status_of(error) == 500:
        _log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
    return problem_of(error, language_of(request))


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        {"where": ".".join(str(p) for p in e["loc"]), "what": str(e["msg"])}
        for e in error.errors()[:20]
    ]
    detail = "; ".join(f"{f['where']}: {f['what']}" for f in faults)
    return problem(422, "invalid", detail, language_of(request), extra={"errors": faults})


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "bad_request" if error.status_code < 500 else "")
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"nothing is served at {request.url.path}"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    return problem(
        error.status_code, code or "internal", detail, language_of(request), headers=headers
    )


def _allowed(request: Request) -> list[str]:
    """Every method of this path; the framework names those of the first route only."""
    paths: dict[str, dict[str, object]] = request.app.openapi()["paths"]
    if request.url.path in paths:  # more exact than a pattern that would match it, too
        return sorted(verb.upper() for verb in paths[request.url.path])
    own = request.url.path.strip("/").split("/")
    methods: set[str] = set()
    for path, operations in paths.items():
        parts = path.strip("/").split("/")
        if len(parts) == len(own) and all(
            p.startswith("{") or p == o for p, o in zip(parts, own, strict=True)
        ):
            methods |= {verb.upper() for verb in operations}
    return sorted(methods) or ["GET"]


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody is there to read it; keeps the log quiet
