"""Chroma's HTTP API, version 2, as far as it is needed, without the ``chromadb`` package.

Importing that package takes 0.6–1.9 s and 100 MB in every process that stores or searches, and
its client sends no more per second; ``httpcore``, the transport of ``httpx``, takes a third of
that one's CPU for a call. The server calls itself "1.0.0" whatever its release, so what
it can do is read from ``/api/v2/pre-flight-checks``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

import httpcore
import orjson

from unjam.core.errors import DependencyDown
from unjam.stores.chroma_place import ChromaPlace

CODE = "vector_store_down"
CONNECT_S = 3.0
_BASE = "/api/v2/tenants/default_tenant/databases/default_database/collections"


_FAILURES = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


class CollectionGone(Exception):
    """The server knows no such collection."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server told before the first call."""

    max_batch: int
    base64_vectors: bool


class ChromaHttp:
    """One connection pool to one server. Every failure of it is DependencyDown.

    *url* may carry a path, a token and more (a proxy in front), see ``chroma_place``; *headers*
    go with every request. Raises SetupError: it cannot be read.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        place = ChromaPlace.parse(url)
        self._url = place.url
        given = {"content-type": "application/json", **place.headers, **(headers or {})}
        self._headers = [(name.encode(), value.encode()) for name, value in given.items()]
        # No proxy of the environment: it must not catch loopback calls.
        self._pool = httpcore.AsyncConnectionPool(
            place.certificates(), max_connections=16, max_keepalive_connections=8
        )
        self._limits: Limits | None = None

    async def ping(self, timeout_s: float) -> None:
        await self._call("GET", "/api/v2/heartbeat", None, timeout_s)

    async def limits(self, timeout_s: float) -> Limits:
        if self._limits is None:
            raw = await self._call("GET", "/api/v2/pre-flight-checks", None, timeout_s)
            self._limits = Limits(
                max_batch=max(1, int(raw.get("max_batch_size", 100))),
                base64_vectors=bool(raw.get("supports_base64_encoding", False)),
            )
        return self._limits

    async def find(self, name: str, timeout_s: float) -> str:
        """The collection's id. Raises CollectionGone."""
        raw = await self._call("GET", f"{_BASE}/{quote(name, safe='')}", None, timeout_s)
        return str(raw["id"])

    async def describe(self, name: str, timeout_s: float) -> Mapping[str, Any]:
        """Its id, metadata, … Raises CollectionGone."""
        return await self._call("GET", f"{_BASE}/{quote(name, safe='')}", None, timeout_s)

    async def count(self, collection_id: str, timeout_s: float) -> int:
        """Rows. Raises CollectionGone."""
        return int(await self._call("GET", f"{_BASE}/{collection_id}/count", None, timeout_s))

    async def set_metadata(
        self, collection_id: str, metadata: Mapping[str, Any], timeout_s: float
    ) -> None:
        """Replace the collection's metadata. Raises CollectionGone."""
        body = orjson.dumps({"new_metadata": dict(metadata)})
        await self._call("PUT", f"{_BASE}/{collection_id}", body, timeout_s)

    async def create(self, name: str, configuration: Mapping[str, Any], timeout_s: float) -> str:
        """Make the collection unless it exists; its id."""
        body = {"name": name, "get_or_create": True, "configuration": configuration}
        raw = await self._call("POST", _BASE, orjson.dumps(body), timeout_s)
        return str(raw["id"])

    async def names(self, timeout_s: float) -> list[str]:
        out: list[str] = []
        while True:
            path = f"{_BASE}?limit=500&offset={len(out)}"
            page = cast(list[Mapping[str, Any]], await self._call("GET", path, None, timeout_s))
            out.extend(str(c["name"]) for c in page)
            if len(page) < 500:
                return out

    async def on(self, collection_id: str, verb: str, body: bytes, timeout_s: float) -> Any:
        """``upsert``, ``get``, ``query`` or ``delete``. Raises CollectionGone."""
        return await self._call("POST", f"{_BASE}/{collection_id}/{verb}", body, timeout_s)

    async def close(self) -> None:
        await self._pool.aclose()

    async def _call(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(method, path, body)
        except TimeoutError:
            raise self._down(f"did not answer within {timeout_s:g} s") from None
        except _FAILURES as e:
            self._limits = None  # it may come back as another release
            raise self._down(str(e) or type(e).__name__) from None
        if 200 <= response.status < 300:
            return self._parse(response)
        raise self._refusal(response)

    async def _send(self, method: str, path: str, body: bytes | None) -> httpcore.Response:
        async def once() -> httpcore.Response:
            return await self._pool.request(
                method,
                self._url + path,
                headers=self._headers,
                content=body,
                extensions={"timeout": {"connect": CONNECT_S}},
            )

        try:
            return await once()
        except (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError):
            # A kept connection of a server that has restarted since. All calls are idempotent.
            return await once()

    def _parse(self, response: httpcore.Response) -> Any:
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError:
            raise self._down("answered something that is not JSON") from None

    def _refusal(self, response: httpcore.Response) -> Exception:
        message = response.content.decode("utf-8", "replace")[:300]
        try:
            raw = orjson.loads(response.content)
            message = str(cast(Mapping[str, Any], raw).get("message", message))[:300]
        except (orjson.JSONDecodeError, AttributeError):
            pass
        if response.status == 404 and "ollection" in message:
            return CollectionGone(message)
        if response.status == 400 and "dimension" in message:
            return DependencyDown(message, code="embedding_dimension_changed", retry_after_s=30.0)
        return self._down(f"answered {response.status}: {message}")

    def _down(self, what: str) -> DependencyDown:
        return DependencyDown(f"Chroma at {self._url} {what}", code=CODE)
