"""Client: the typed Python client of the public API.

    from unjam import Client

    client = Client()
    document = client.wait(client.add("handbook.pdf").id)
    for hit in client.search("How many days of leave?"):
        print(hit.score, hit.filename, hit.page, hit.text)

Errors are those of ``unjam.core.errors``. ``httpx`` is imported on first use: it costs 0.2 s.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from itertools import takewhile
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from unjam._wire import (
    Attempts,
    Document,
    Event,
    Hit,
    Progress,
    Source,
    checked_id,
    document_of,
    frames_of,
    groups_of,
    part_of,
    raise_for,
)
from unjam.core.errors import DependencyDown, NotNow, UsageError

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8002"

__all__ = ["DEFAULT_URL", "Attempts", "Client", "Document", "Event", "Hit", "Progress", "Source"]


class Client:
    """One server. Thread-safe; close it, or use it in ``with``.

    Args:
        url: where ``unjam up`` listens. token: RAG_API_TOKEN, when the server asks for one.
        timeout_s: how long one answer may take.
        lang: language of hints and titles, ``en`` or ``ko``; the server's own when empty.

    Every method raises DependencyDown when no server answers, and UsageError, NotFound, Conflict,
    TooLarge, Backlogged or DependencyDown as the server says.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        timeout_s: float = 120.0,
        lang: str = "",
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._lang = lang
        self._opened: httpx.Client | None = None
        self._opening = threading.Lock()

    @property
    def _http(self) -> httpx.Client:
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> httpx.Client:
        import httpx

        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if self._lang:
            headers["Accept-Language"] = self._lang
        try:
            # A proxy from the environment must not get between this machine and itself.
            own = urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")
            return httpx.Client(
                base_url=self.url,
                headers=headers,
                timeout=httpx.Timeout(self._timeout_s, connect=5.0),
                limits=httpx.Limits(max_connections=64),
                trust_env=not own,
                # To load the authorities takes 50 ms.
                verify=not self.url.lower().startswith("http:"),
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise UsageError(f"{self.url!a} is not a URL: {error}", code="bad_url") from None

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- documents --------------------------------------------------------------------------
    def add(
        self,
        source: Source,
        *,
        filename: str = "",
        user_id: str = "",
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
    ) -> Document:
        """Upload one document; when this returns, it is on disk and accounted for.

        The same bytes of the same user again give the same document, ``duplicate_of`` set.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        path = "/api/rag/documents"
        body = self._upload("POST", path, [(source, filename)], user_id, metadata, headers)
        return document_of(body)

    def add_many(
        self,
        sources: Iterable[Source],
        *,
        user_id: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        """Upload several; small ones share requests, and so one fsync. In the order given."""
        added: list[Document] = []
        for group in groups_of(sources):
            body = self._upload(
                "POST", "/api/rag/documents", [(s, "") for s in group], user_id, metadata, {}
            )
            added += [document_of(item) for item in body.get("items", [body])]
        return added

    def replace(
        self,
        document_id: str,
        source: Source,
        *,
        filename: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> Document:
        """Give a document new content; search answers from the old one until it is complete."""
        path = f"/api/rag/documents/{checked_id(document_id)}"
        return document_of(self._upload("PUT", path, [(source, filename)], "", metadata, {}))

    def get(self, document_id: str) -> Document:
        return document_of(self._json("GET", f"/api/rag/documents/{checked_id(document_id)}"))

    def get_many(self, document_ids: Sequence[str]) -> Mapping[str, Document]:
        """Those of the documents that exist, by id; 200 a request."""
        found: dict[str, Document] = {}
        for start in range(0, len(document_ids), 200):
            ids = ",".join(checked_id(i) for i in document_ids[start : start + 200])
            for item in self._json("GET", "/api/rag/documents", params={"ids": ids})["items"]:
                found[item["id"]] = document_of(item)
        return found

    def list(self, *, state: str = "", user_id: str = "", limit: int = 0) -> Iterator[Document]:
        """Newest first; pages are fetched as they are needed. *limit* 0 = all."""
        given, cursor = 0, ""
        while True:
            size = min(limit - given, 200) if limit else 200
            asked = {"state": state, "user_id": user_id, "cursor": cursor, "limit": str(size)}
            body = self._json(
                "GET", "/api/rag/documents", params={k: v for k, v in asked.items() if v}
            )
            for item in body["items"]:
                yield document_of(item)
                given += 1
            cursor = body["next_cursor"] or ""
            if not cursor or (limit and given >= limit):
                return

    def cancel(self, document_id: str) -> Document:
        return document_of(
            self._json("POST", f"/api/rag/documents/{checked_id(document_id)}/cancel")
        )

    def retry(self, document_id: str) -> Document:
        return document_of(
            self._json("POST", f"/api/rag/documents/{checked_id(document_id)}/retry")
        )

    def delete(self, document_id: str) -> None:
        self._send("DELETE", f"/api/rag/documents/{checked_id(document_id)}")

    def chunks(self, document_id: str) -> Iterator[Mapping[str, Any]]:
        """The chunks that search can find, in order: id, index, text, page, section."""
        cursor = ""
        while True:
            params = {"cursor": cursor} if cursor else {}
            path = f"/api/rag/documents/{checked_id(document_id)}/chunks"
            body = self._json("GET", path, params=params)
            yield from body["items"]
            cursor = body["next_cursor"] or ""
            if not cursor:
                return

    def wait(
        self,
        document_id: str,
        timeout_s: float = 600.0,
        *,
        on_progress: Callable[[Document], None] | None = None,
    ) -> Document:
        """Until the document has ended (searchable, dead, cancelled, deleted), and how it did.

        Survives restarts of the server. Raises NotNow (wait_timeout) after *timeout_s*.
        """
        deadline = time.monotonic() + timeout_s
        after, pause_s = 0, 0.1
        while True:
            try:
                for event in self.events(document_id, after=after, until=deadline):
                    pause_s = 0.1
                    after = event.seq or after
                    if event.kind == "progress" and on_progress is not None:
                        on_progress(document_of(event.data))
                    if event.kind == "end":
                        return self.get(document_id)
            except NotNow as error:
                pause_s = min(5.0, max(pause_s * 2, min(error.retry_after_s, 1.0)))
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise NotNow(
                    f"document {document_id} has not ended after {timeout_s:.0f} s",
                    code="wait_timeout",
                    hint=f"See what it waits for: unjam why {document_id}",
                )
            time.sleep(min(pause_s, left_s))

    def events(
        self,
        document_id: str,
        *,
        after: int = 0,
        follow: bool = False,
        until: float = math.inf,
    ) -> Iterator[Event]:
        """What happened to a document, then what happens, until it has ended (or for ever with
        *follow*). *until*: monotonic time at which to give up, quietly or with DependencyDown."""
        import httpx

        params = {"after": str(after), "follow": "true" if follow else "false"}
        path = f"/api/rag/documents/{checked_id(document_id)}/events"
        quiet_s = min(self._timeout_s, max(0.05, until - time.monotonic()))
        patience = httpx.Timeout(self._timeout_s, connect=5.0, read=quiet_s)
        asked = self._http.stream("GET", path, params=params, timeout=patience)
        with self._translated(), asked as answer:
            if answer.is_error:
                answer.read()
                raise_for(answer)
            lines = takewhile(lambda _: time.monotonic() < until, answer.iter_lines())
            try:
                yield from frames_of(lines)
            except httpx.RemoteProtocolError:
                return  # cut in mid-frame: the server went away; the caller may resume

    # -- search and the rest ----------------------------------------------------------------
    def search(self, query: str, k: int = 5, filter: Mapping[str, Any] | None = None) -> list[Hit]:
        """The *k* chunks nearest to *query*, best first; *filter* e.g. ``{"user_id": "kim"}``."""
        body = self._json(
            "POST", "/api/rag/search", json={"query": query, "k": k, "filter": filter}
        )
        names = {f.name for f in fields(Hit)}
        return [Hit(**{k: v for k, v in raw.items() if k in names}) for raw in body["hits"]]

    def ledger(self) -> dict[str, int]:
        """accepted = searchable + running + queued + waiting + dead + cancelled + deleted +
        missing."""
        return self._json("GET", "/api/rag/ledger")

    def readiness(self) -> dict[str, Any]:
        """``{"ready", "workers", "reasons"}``; never raises for "not ready"."""
        with self._translated():
            return cast("dict[str, Any]", self._http.get("/readyz").json())

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Any route by hand, such as the operators' (with ADMIN_TOKEN as the client's token)."""
        options: dict[str, Any] = {} if body is None else {"json": body}
        if headers:
            options["headers"] = dict(headers)
        return self._json(method, path, params=dict(params or {}), **options)

    def text(self, path: str) -> str:
        """The body of a route that answers with plain text, such as ``/metrics``."""
        return self._send("GET", path).text

    # -- transport --------------------------------------------------------------------------
    def _upload(
        self,
        method: str,
        path: str,
        sources: Sequence[tuple[Source, str]],
        user_id: str,
        metadata: Mapping[str, Any] | None,
        headers: Mapping[str, str],
    ) -> dict[str, Any]:
        data: dict[str, str] = {}
        if user_id:
            data["user_id"] = user_id
        if metadata is not None:
            data["metadata"] = json.dumps(metadata, ensure_ascii=False)
        with ExitStack() as stack:
            files = [("file", part_of(source, name, stack)) for source, name in sources]
            return self._json(method, path, data=data, files=files, headers=dict(headers))

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._send(method, path, **options)
        try:
            return cast("dict[str, Any]", answer.json())
        except ValueError:
            raise UsageError(f"{self.url} is not an unjam server", code="bad_url") from None

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._translated():
            answer = self._http.request(method, path, **options)
        if answer.is_error:
            raise_for(answer)
        return answer

    @contextmanager
    def _translated(self) -> Generator[None]:
        """httpx's errors as ours."""
        import httpx

        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise UsageError(f"{self.url!a} is not a URL: {error}", code="bad_url") from None
        except httpx.ConnectError:
            raise DependencyDown(
                f"no server answers at {self.url}",
                code="api_down",
                hint="Start it with `unjam up`, or name another with --url or UNJAM_URL.",
                retry_after_s=1.0,
            ) from None
        except httpx.TransportError as error:
            raise DependencyDown(
                f"{self.url} did not answer: {type(error).__name__} {error}".rstrip(),
                code="api_down",
                hint="Try again; `unjam status` shows how the server is.",
                retry_after_s=1.0,
            ) from None
