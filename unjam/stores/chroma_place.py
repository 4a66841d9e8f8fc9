"""ChromaPlace: what RAG_CHROMA_URL names: a server, or a proxy in front that asks who comes.

``https://[user:password@]host/path?token=…&token_header=X-Chroma-Token&ca=/etc/ssl/ca.pem``.
Chroma's own server knows no access control, so a proxy does that.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

import httpcore

from unjam.core.errors import SetupError

_OPTIONS = frozenset({"token", "token_header", "ca"})


@dataclass(frozen=True, slots=True)
class ChromaPlace:
    """*url* is without login, options and a slash at its end; *headers* go with every request."""

    url: str
    headers: Mapping[str, str]
    ca_file: str

    @staticmethod
    def parse(url: str) -> ChromaPlace:
        """Raises SetupError: an option is unknown."""
        place = urlsplit(url)
        options = dict(parse_qsl(place.query))
        if unknown := sorted(options.keys() - _OPTIONS):
            raise SetupError(
                f"RAG_CHROMA_URL cannot be used: unknown option {unknown[0]}",
                hint="http(s)://host:8000?token=…&token_header=…&ca=/path.pem",
            )
        headers: dict[str, str] = {}
        if place.username is not None:
            login = f"{unquote(place.username)}:{unquote(place.password or '')}"
            headers["authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        if token := options.get("token"):
            if header := options.get("token_header", "").lower():
                headers[header] = token
            else:
                headers["authorization"] = f"Bearer {token}"
        netloc = place.netloc.rpartition("@")[2]
        bare = place._replace(netloc=netloc, query="", fragment="").geturl().rstrip("/")
        return ChromaPlace(bare, headers, options.get("ca", ""))

    def certificates(self) -> ssl.SSLContext | None:
        """The usual authorities and *ca_file*; None: the usual ones. Raises SetupError."""
        if not self.ca_file:
            return None
        context = httpcore.default_ssl_context()
        try:
            context.load_verify_locations(self.ca_file)
        except OSError as error:  # also ssl.SSLError
            raise SetupError(
                f"the certificates in {self.ca_file} cannot be read: {error.strerror or error}",
                hint="Name a PEM file in ?ca= of RAG_CHROMA_URL.",
            ) from error
        return context
