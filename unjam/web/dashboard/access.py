"""Who sits before the dashboard: nobody known, a reader, or the operator.

Signing in exchanges a token for a cookie that holds no token: a role, an expiry and a signature
made from the tokens (so it survives a restart, and changing ADMIN_TOKEN ends every session). It is
HttpOnly (no script reads it) and SameSite=Strict; what changes anything must also carry an Origin
of our own, since "same site" is any port of this machine.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Literal

from starlette.datastructures import Headers
from starlette.requests import Request, cookie_parser
from starlette.responses import Response

from unjam.core.errors import UnjamError
from unjam.settings import Settings
from unjam.web.auth import admin_token, presented_token
from unjam.web.house import Binding

Role = Literal["", "reader", "operator"]

SESSION_S = 12 * 3600
"""One shift."""


class SignInNeeded(UnjamError):
    """An action without the operator's token."""

    code = "admin_unauthorised"
    hint = "Sign in with ADMIN_TOKEN."


class Sessions:
    """Makes and checks the cookie. *name* holds the port: cookies are shared by all ports of a
    host, and two dashboards on one machine must not sign each other out."""

    def __init__(self, settings: Settings, binding: Binding) -> None:
        reveal = settings.api_token.get_secret_value() if settings.api_token else ""
        self._admin = admin_token(settings)
        self._reader = reveal
        self.name = f"unjam_session_{binding.port}"
        both = f"unjam dashboard session\0{self._admin}\0{self._reader}"
        self._key = hashlib.sha256(both.encode()).digest()
        self.closed = binding.exposed or bool(self._reader)
        """Whether reading needs a token, too: documents are no more open here than on the API."""

    def role_for(self, token: str) -> Role:
        """What *token* opens."""
        if _same(token, self._admin):
            return "operator"
        return "reader" if _same(token, self._reader) else ""

    def role_of(self, headers: Headers) -> Role:
        """By the cookie, else by a presented token (Bearer or Basic)."""
        value = cookie_parser(headers.get("cookie", "")).get(self.name, "")
        role = self._check(value)
        return role or self.role_for(presented_token(headers))

    def sign_in(self, response: Response, role: Role, *, secure: bool) -> None:
        until = int(time.time()) + SESSION_S
        body = f"{role}.{until}"
        response.set_cookie(
            self.name,
            f"{body}.{self._sign(body)}",
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=secure,
        )

    def sign_out(self, response: Response) -> None:
        response.delete_cookie(self.name, httponly=True, samesite="strict")

    def _check(self, value: str) -> Role:
        body, _, signature = value.rpartition(".")
        role, _, until = body.partition(".")
        if not _same(signature, self._sign(body)) or not until.isdigit():
            return ""
        if int(until) < time.time():
            return ""
        return role if role in ("reader", "operator") else ""

    def _sign(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()


def sessions_of(request: Request) -> Sessions:
    return request.app.state.sessions


def role_of(request: Request) -> Role:
    return sessions_of(request).role_of(request.headers)


def may_read(request: Request) -> bool:
    """Whether pages with documents may be shown."""
    sessions = sessions_of(request)
    return not sessions.closed or bool(sessions.role_of(request.headers))


def origin_given(request: Request) -> bool:
    """Every browser sends one with a POST; whose it is the gatekeeper has checked. Programs that
    present the token itself need none."""
    return "origin" in request.headers or bool(presented_token(request.headers))


def _same(given: str, wanted: str) -> bool:
    return bool(wanted) and hmac.compare_digest(
        given.encode("utf-8", "replace"), wanted.encode("utf-8", "replace")
    )
