"""Who may call: host names, origins and tokens, checked before anything else runs.

On loopback the public API is open unless RAG_API_TOKEN is set; the operators' part always needs
ADMIN_TOKEN. Host names are checked against an allow-list (DNS rebinding) and a foreign Origin is
refused (requests that other web pages send through a browser of this machine).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unjam.core.errors import SetupError
from unjam.settings import Settings
from unjam.web.house import Binding, pick_language
from unjam.web.problems import problem

_log = logging.getLogger("unjam.api")

Area = Literal["open", "public", "admin"]
"""open: nobody asks · public: either token · admin: ADMIN_TOKEN."""

_OPEN = frozenset({"/healthz", "/readyz"})
_ADMIN = "/api/rag/admin"
_PUBLIC = "/api/rag"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server bound to *host*."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_tokens(settings: Settings, host: str) -> None:
    """Refuse to listen where other machines reach us while anybody may call.

    Raises:
        SetupError: *host* is no loopback address and RAG_API_TOKEN is not set.
    """
    if not is_loopback(host) and not _secret(settings.api_token):
        raise SetupError(
            f"refusing to listen on {host} without tokens: RAG_API_TOKEN is not set",
            code="tokens_needed",
            hint="Set RAG_API_TOKEN (and ADMIN_TOKEN) to long random values, or listen on "
            "127.0.0.1.",
        )


def admin_token(settings: Settings) -> str:
    """ADMIN_TOKEN, or the one generated into ``<data>/admin-token`` (0600), made on first use."""
    given = _secret(settings.admin_token)
    if given:
        return given
    return _stored_token(settings.data_dir / "admin-token")


def _stored_token(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and linked: of two processes that start together exactly one token wins, and
    # nobody ever reads a half-written one.
    for _ in range(2):
        try:
            text = path.read_text().strip()
            if text:
                return text
            path.unlink()
        except FileNotFoundError:
            pass
        aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        try:
            os.link(aside, path)
        except FileExistsError:
            pass
        finally:
            aside.unlink()
    return path.read_text().strip()


def _secret(value: object) -> str:
    reveal = getattr(value, "get_secret_value", None)
    return reveal() if reveal else ""


class HostNames:
    """The names under which a server may be called.

    IP addresses are always fine: rebinding needs a name that the attacker controls.
    """

    def __init__(self, binding: Binding, extra: Iterable[str]) -> None:
        self._names = {"localhost", binding.host.lower(), *(n.strip().lower() for n in extra)}
        if binding.exposed:
            own = socket.gethostname().lower()
            self._names |= {own, own.partition(".")[0]}
        self._names.discard("")

    def allows(self, host_header: str) -> bool:
        name = host_name(host_header)
        if name in self._names or "*" in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def host_name(host_header: str) -> str:
    """The name of a Host header without port and brackets, lower case."""
    text = host_header.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def is_foreign(origin: str, host_header: str) -> bool:
    """Whether a page of *origin* is not a page of the server called by *host_header*."""
    scheme, separator, authority = origin.strip().lower().partition("://")
    if not separator or scheme not in ("http", "https"):
        return True  # "null" and oddities
    standard = ":80" if scheme == "http" else ":443"
    return authority.removesuffix(standard) != host_header.strip().lower().removesuffix(standard)


def presented_token(headers: Headers) -> str:
    """The bearer token, or the password of Basic (so that a browser can ask for it)."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1").decode("utf-8", "replace")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


class Gatekeeper:
    """The outermost layer: refuses what may not come in, and lets no traceback out."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        binding: Binding,
        signed_in: Callable[[Headers], bool] = lambda _: False,
        sign_in_page: str = "",
    ) -> None:
        """*signed_in*: whether a session stands in for the token; *sign_in_page*: where a person
        without one is sent, and what that page loads is open (``/static/``)."""
        self._app = app
        self._signed_in = signed_in
        self._sign_in_page = sign_in_page
        self._lang = settings.lang
        self._exposed = binding.exposed
        self._names = HostNames(binding, settings.allowed_hosts.split(","))
        self._public = _secret(settings.api_token)
        self._admin = admin_token(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        lang = pick_language(headers.get("accept-language", ""), self._lang)
        path = str(scope["path"])
        refusal = self._refusal(path, headers)
        if refusal is not None:
            status, code, detail = refusal
            if status == 401 and self._sign_in_page and _is_page(scope, headers):
                place = quote(path, safe="/")
                target = f"{self._sign_in_page}?next={place}"
                await RedirectResponse(target, 303)(scope, receive, send)
                return
            # Basic makes a browser ask for the token where a person looks at a page.
            scheme = "Bearer" if path.startswith("/api/") else "Basic"
            asked = {"WWW-Authenticate": f'{scheme} realm="unjam"'} if status == 401 else None
            answer = problem(status, code, detail, lang, headers=asked)
            await answer(scope, receive, send)
            return
        await self._guarded(scope, receive, send, lang)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, lang: str) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                message.setdefault("headers", []).append((b"x-content-type-options", b"nosniff"))
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            _log.exception("%s %s failed", scope.get("method"), scope.get("path"))
            if started:
                raise
            detail = "an unexpected error; it is in the server's log"
            await problem(500, "internal", detail, lang)(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str, str] | None:
        host = headers.get("host", "")
        if not self._names.allows(host):
            return 403, "host_refused", f"this server does not answer to the name {host!a}"
        origin = headers.get("origin")
        if origin is not None and is_foreign(origin, host):
            return 403, "origin_refused", f"a page of {origin!a} may not call this server"
        area = self._area(path)
        token = presented_token(headers)
        if area == "admin" and not _same(token, self._admin):
            return 401, "admin_unauthorised", "the operators' part needs ADMIN_TOKEN"
        if area == "public" and not (self._may_read(token) or self._signed_in(headers)):
            return 401, "unauthorised", "this server needs RAG_API_TOKEN"
        return None

    def _area(self, path: str) -> Area:
        if path in _OPEN:
            return "open"
        if self._sign_in_page and (path == self._sign_in_page or path.startswith("/static/")):
            return "open"
        if path == _ADMIN or path.startswith(_ADMIN + "/"):
            return "admin"
        if path == _PUBLIC or path.startswith(_PUBLIC + "/"):
            return "public" if self._public or self._exposed else "open"
        return "public" if self._exposed else "open"

    def _may_read(self, token: str) -> bool:
        return _same(token, self._public) or _same(token, self._admin)


def _is_page(scope: Scope, headers: Headers) -> bool:
    """Whether a browser shows the answer to a person."""
    return scope.get("method") == "GET" and "text/html" in headers.get("accept", "")


def _same(given: str, wanted: str) -> bool:
    return bool(wanted) and hmac.compare_digest(
        given.encode("utf-8", "replace"), wanted.encode("utf-8", "replace")
    )
