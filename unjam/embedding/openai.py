"""Any OpenAI-compatible embeddings endpoint, over plain HTTP.

Nothing is retried below this: waiting, keys and limits are decided here and in ``governor``, or
they would multiply. Answers go as base64 straight into numpy, every value checked, so that nothing
malformed is ever stored. Without the official SDK: its import takes half a second of every
worker's start, and its path of a request thrice the CPU of ``httpx`` alone (measured).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import orjson

from unjam import __version__
from unjam.core.errors import DependencyDown, DocumentRejected
from unjam.core.ports import Vectors
from unjam.embedding.governor import Admission, Governor, Lane, Paused
from unjam.embedding.keys import QUARANTINE_S, Key, KeyPool, NoKey
from unjam.embedding.wire import (
    Malformed,
    estimate_tokens,
    message_of,
    read_vectors,
    retry_after_s,
    room_in_s,
    told_rates,
)

if TYPE_CHECKING:
    import httpx

CONNECT_S = 5.0
TOTAL_S = 60.0
"""A request of 2,048 long texts takes some 10 s; what takes a minute will not come."""

PATIENCE_S = 5.0
"""A pause that the API asks for is sat out here up to this long; above it the documents wait in
the ledger, where everybody can see why."""

LEARN_S = 5.0
"""How often it is looked up which keys other processes saw refused."""

TRUST_S = 60.0
"""After a success this recent, a refused text is the text's fault and not the endpoint's."""

_DECODE_IN_THREAD_BYTES = 1_048_576
_REFUSALS = frozenset({400, 413, 422})
_OVERLOADED = frozenset({408, 503, 504})


class _Refused(Exception):
    """An answer that is no success. *body*: its ``error`` object, or whatever it has instead."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(f"HTTP {answer.status_code}")
        self.status = answer.status_code
        self.headers = answer.headers
        try:
            body: object = answer.json()
        except ValueError:
            body = answer.text
        if isinstance(body, dict):
            told = cast("dict[str, object]", body)
            body = told.get("error") or told
        self.body = body


class OpenAIProvider:
    """Provider over one endpoint and model, for one lane of one process.

    Raises:
        DependencyDown: embedding_throttled, embedding_quota, embedding_unauthorised,
            embedding_down, embedding_dimension_changed.
        DocumentRejected: (embedding_refused) the endpoint refuses this batch, or, when it is of
            one text, that text, while it takes others.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        keys: KeyPool,
        governor: Governor,
        lane: Lane = "ingest",
        dimension: int = 0,
        patience_s: float = PATIENCE_S,
        total_s: float = TOTAL_S,
    ) -> None:
        """*dimension* 0: that of the first answer; later ones must agree with it."""
        self._base_url = base_url
        self._model = model
        self._keys = keys
        self._governor = governor
        self._lane: Lane = lane
        self._dimension = dimension
        self._patience_s = patience_s
        self._total_s = total_s
        self._client: httpx.AsyncClient | None = None
        self._last_success = float("-inf")
        self._learnt_at = float("-inf")
        # Limits belong to a project of one endpoint.
        self._scope = f"{urlsplit(base_url).netloc}/"

    async def warm_up(self) -> None:
        """Imports, certificates and what the others learnt of the keys: half a second."""
        await asyncio.to_thread(getattr, self, "_http")
        await self._learn_keys()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        async with self._governor.place(self._lane):
            try:
                content = await self._send(texts)
            except DocumentRejected:
                if len(texts) == 1 and not await self._takes_other_texts():
                    raise _down("The endpoint refuses every text", self._base_url) from None
                raise
            vectors = await self._read(content, len(texts))
        self._last_success = time.monotonic()
        return vectors

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @property
    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(self._total_s, connect=CONNECT_S),
                limits=httpx.Limits(max_connections=128, max_keepalive_connections=32),
                headers={"User-Agent": f"unjam/{__version__}"},
                follow_redirects=True,
            )
        return self._client

    async def _send(self, texts: Sequence[str]) -> bytes:
        """The body of the answer, by whichever key may be used; short pauses are sat out."""
        tokens = sum(estimate_tokens(text) for text in texts)
        patience_s = self._patience_s
        while True:
            await self._learn_keys()
            keys = self._keys.candidates()
            if isinstance(keys, NoKey):
                if keys.code != "embedding_throttled" or keys.wait_s > patience_s:
                    raise _no_key(keys)
                patience_s -= keys.wait_s
                await asyncio.sleep(keys.wait_s)
                continue
            groups = list(dict.fromkeys(self._scope + key.group for key in keys))
            answer = await self._governor.admit(self._lane, groups, len(texts), tokens)
            group = answer.group.removeprefix(self._scope)
            if isinstance(answer, Paused):
                self._keys.rest(group, answer.wait_s)
                continue
            key = next(key for key in keys if key.group == group)
            if not self._keys.is_ready(key):  # throttled while we stood in line
                continue
            self._keys.use(key)
            content = await self._try(key, texts, answer)
            if content is not None:
                return content

    async def _learn_keys(self) -> None:
        now = time.monotonic()
        if now - self._learnt_at >= LEARN_S:
            self._learnt_at = now
            self._keys.learn(await self._governor.limiter.barred())

    async def _try(self, key: Key, texts: Sequence[str], admission: Admission) -> bytes | None:
        """One request; None when *key* was refused and another may be tried."""
        try:
            answer = await self._post(key, texts)
        except _Refused as error:
            if await self._blames_key(error, key, admission):
                return None
            self._governor.failed(admission, timed_out=error.status in _OVERLOADED)
            raise self._translate(error) from None
        except TimeoutError:
            self._governor.failed(admission, timed_out=True)
            raise _down(f"No answer within {self._total_s:g} s", self._base_url) from None
        except DependencyDown:
            self._governor.failed(admission)
            raise
        headers = answer.headers
        await self._governor.answered(
            admission, told_rates(headers), room_in_s(headers, admission.tokens)
        )
        return answer.content

    async def _post(self, key: Key, texts: Sequence[str]) -> httpx.Response:
        """A success. Raises _Refused, TimeoutError, DependencyDown."""
        import httpx

        url = f"{self._base_url.rstrip('/')}/embeddings"
        asked = {"input": list(texts), "model": self._model, "encoding_format": "base64"}
        headers = {"Authorization": f"Bearer {key.secret}", "Content-Type": "application/json"}
        for attempt in (1, 2):
            try:
                async with asyncio.timeout(self._total_s):
                    answer = await self._http.post(
                        url, content=orjson.dumps(asked), headers=headers
                    )
            except httpx.TimeoutException:
                raise TimeoutError from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                # A kept-alive connection that the server closed in the same instant looks like
                # an outage; a new one tells them apart.
                if attempt == 2:
                    raise _down(f"{type(error).__name__}: {error}", self._base_url) from None
                continue
            if not answer.is_success:
                raise _Refused(answer)
            return answer
        raise AssertionError("unreachable")

    async def _blames_key(self, error: _Refused, key: Key, admission: Admission) -> bool:
        status, body = error.status, error.body
        if status == 429 and not _is_quota(body):
            told_s = retry_after_s(error.headers, time.time())
            self._keys.rest(key.group, await self._governor.refused(admission, told_s))
            return True
        if status not in (401, 403, 429):
            return False
        self._governor.failed(admission)
        code = "embedding_quota" if status == 429 else "embedding_unauthorised"
        self._keys.bar(key, code)
        await self._governor.bar(key.id, key.name, code, QUARANTINE_S)
        return True

    def _translate(self, error: _Refused) -> Exception:
        status, said = error.status, message_of(error.body)
        if status in _REFUSALS:
            return DocumentRejected(
                f"The embedding endpoint refuses it ({status}): {said}", code="embedding_refused"
            )
        pause_s = retry_after_s(error.headers, time.time())
        return _down(f"HTTP {status}: {said}", self._base_url, pause_s)

    async def _takes_other_texts(self) -> bool:
        """Whether the endpoint works at all: a wrong setting must not park every document."""
        if time.monotonic() - self._last_success < TRUST_S:
            return True
        try:
            await self._read(await self._send(["probe"]), 1)
        except DocumentRejected:
            return False
        self._last_success = time.monotonic()
        return True

    async def _read(self, content: bytes, count: int) -> Vectors:
        try:
            if len(content) > _DECODE_IN_THREAD_BYTES:
                vectors = await asyncio.to_thread(read_vectors, content, count)
            else:
                vectors = read_vectors(content, count)
        except Malformed as error:
            raise _down(f"Malformed answer: {error}", self._base_url) from None
        dimension = vectors.shape[1]
        if self._dimension and dimension != self._dimension:
            raise DependencyDown(
                f"{self._model} gave {dimension} dimensions instead of {self._dimension}",
                code="embedding_dimension_changed",
                retry_after_s=60.0,
            )
        self._dimension = dimension
        return vectors


def _is_quota(body: object) -> bool:
    if not isinstance(body, dict):
        return False
    told = cast("dict[str, object]", body)
    return "insufficient_quota" in (told.get("code"), told.get("type"))


def _down(detail: str, where: str, retry_after: float | None = None) -> DependencyDown:
    return DependencyDown(
        f"{detail} ({where})",
        code="embedding_down",
        retry_after_s=5.0 if retry_after is None else retry_after,
    )


def _no_key(reason: NoKey) -> DependencyDown:
    details = {
        "embedding_throttled": f"The embedding API asks to wait {reason.wait_s:.1f} s (429)",
        "embedding_quota": "No embedding key has quota left (429 insufficient_quota)",
        "embedding_unauthorised": "Every embedding key is refused (401 or 403)",
    }
    return DependencyDown(
        details[reason.code],
        code=reason.code,
        retry_after_s=reason.wait_s,
        throttled=reason.code == "embedding_throttled",
    )
