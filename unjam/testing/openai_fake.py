"""An OpenAI-compatible embeddings endpoint over real HTTP, whose troubles can be ordered.

    python -m unjam.testing.openai_fake --port 9000 --latency-ms 100

``POST /v1/embeddings``, ``GET /v1/models``; ``POST /control`` changes any field of ``Behaviour``,
``GET /stats`` tells what was seen, ``POST /reset`` puts everything back. ``FakeOpenAI`` runs it as
a process of its own.

Faults (``fault`` holds for every request, ``next_faults`` for one each, in order): ``429``,
``quota`` (429 insufficient_quota), ``401``, ``403``, ``404``, ``400``, ``500``, ``503``, ``hang``
(until the next control or reset), ``drop`` (connection closed), ``bad_json``, ``html``,
``bad_count``, ``nan``, ``wrong_dimension``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from email.utils import formatdate
from typing import Any, Literal

import numpy as np
import orjson

from unjam.testing.fake_http import Request, Response, serve
from unjam.testing.fake_vectors import MAKERS

DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
OTHER_DIMENSION = 256
RECENT_REQUESTS = 10_000


@dataclass
class Behaviour:
    """What the endpoint does; every field may be changed while it runs."""

    latency_ms: float = 0.0
    mode: Literal["hash", "bag", "latent"] = "hash"  # see ``fake_vectors``
    dimension: int = 0  # 0: the model's own, 256 for names it does not know
    fault: str = ""
    next_faults: list[str] = field(default_factory=list[str])
    retry_after_s: float = 1.0
    retry_after_style: Literal["seconds", "date", "ms", "reset", "none"] = "seconds"
    requests_per_minute: int = 0  # per project; 0 = no limit
    tokens_per_minute: int = 0
    window_s: float = 60.0  # what a "minute" is
    tell_limits: bool = False  # x-ratelimit-* with every answer
    projects: dict[str, str] = field(default_factory=dict[str, str])  # key -> project it bills
    bad_keys: list[str] = field(default_factory=list[str])
    quota_keys: list[str] = field(default_factory=list[str])
    refuse_marker: str = ""  # a request with a text that contains it is a 400
    max_batch: int = 2048
    max_request_tokens: int = 300_000
    max_text_tokens: int = 8_192


@dataclass
class Stats:
    """What the endpoint has seen since the last reset. *embedded*: texts answered with vectors."""

    requests: int = 0
    texts: int = 0
    embedded: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    statuses: Counter[str] = field(default_factory=Counter[str])
    per_key: Counter[str] = field(default_factory=Counter[str])
    per_model: Counter[str] = field(default_factory=Counter[str])
    per_text: Counter[str] = field(default_factory=Counter[str])  # hash of an embedded text
    batches: deque[int] = field(default_factory=lambda: deque[int](maxlen=RECENT_REQUESTS))
    arrivals: deque[float] = field(default_factory=lambda: deque[float](maxlen=RECENT_REQUESTS))

    def as_json(self, *, with_texts: bool) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("per_text",)}
        plain["distinct"] = len(self.per_text)
        plain["repeated"] = self.embedded - len(self.per_text)
        plain["batches"] = list(self.batches)
        plain["arrivals"] = list(self.arrivals)
        if with_texts:
            plain["per_text"] = self.per_text
        return plain


def text_hash(text: str) -> str:
    """The key of *text* in ``per_text``."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class _Bucket:
    """A token bucket over one window, refilled continuously, as the real API's limits are."""

    def __init__(self) -> None:
        self.level = 1.0
        self.at = time.monotonic()

    def take(self, cost: float, limit: float, window_s: float) -> float:
        """0 when *cost* was taken, else the seconds until it could be. *limit* per window."""
        now = time.monotonic()
        self.level = min(1.0, self.level + (now - self.at) / window_s)
        self.at = now
        share = cost / limit
        # A cost above the whole limit could never be paid: it passes when the bucket is full.
        if self.level >= min(share, 1.0):
            self.level -= share
            return 0.0
        return (min(share, 1.0) - self.level) * window_s


class FakeEndpoint:
    """The application; one per process."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self._initial = asdict(behaviour or Behaviour())
        self.reset()

    def reset(self) -> None:
        self.behaviour = Behaviour(**json.loads(json.dumps(self._initial)))
        self.stats = Stats()
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._release()

    def _release(self) -> None:
        """Let the requests go that hang."""
        previous = getattr(self, "_changed", None)
        self._changed = asyncio.Event()
        if previous is not None:
            previous.set()

    async def __call__(self, request: Request) -> Response | None:
        route = (request.method, request.path)
        if route == ("POST", "/v1/embeddings"):
            return await self._embeddings(request)
        if route == ("GET", "/stats"):
            return _answer(200, self.stats.as_json(with_texts="texts" in request.query))
        if route == ("GET", "/v1/models"):
            models = [{"id": name, "object": "model"} for name in DIMENSIONS]
            return _answer(200, {"object": "list", "data": models})
        if route == ("POST", "/control"):
            known = {f.name for f in fields(Behaviour)}
            changes = orjson.loads(request.body)
            if unknown := set(changes) - known:
                return _error(400, f"unknown: {sorted(unknown)}", "invalid_request_error")
            for name, value in changes.items():
                setattr(self.behaviour, name, value)
            self._release()
            return _answer(200, asdict(self.behaviour))
        if route == ("POST", "/reset"):
            self.reset()
            return _answer(200, {})
        return _error(404, f"no {request.path}", "invalid_request_error")

    async def _embeddings(self, request: Request) -> Response | None:
        stats = self.stats
        stats.requests += 1
        stats.in_flight += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        stats.arrivals.append(time.time())
        try:
            response = await self._judge(request)
        finally:
            stats.in_flight -= 1
        stats.statuses[str(response.status) if response else "dropped"] += 1
        return response

    async def _judge(self, request: Request) -> Response | None:
        behaviour, stats = self.behaviour, self.stats
        try:
            body = orjson.loads(request.body)
            texts = _texts(body["input"])
            model = str(body.get("model", ""))
        except (ValueError, KeyError, TypeError):
            return _error(400, "Invalid body", "invalid_request_error")
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        stats.texts += len(texts)
        stats.per_key[key] += 1
        stats.per_model[model] += 1
        stats.batches.append(len(texts))
        fault = behaviour.next_faults.pop(0) if behaviour.next_faults else behaviour.fault
        if fault == "hang":
            await self._changed.wait()
            return None
        if behaviour.latency_ms:
            await asyncio.sleep(behaviour.latency_ms / 1000)
        if fault == "drop":
            return None
        refusal = self._refuse_for_key(key, fault) or self._refuse_for_body(texts, fault)
        refusal = refusal or self._refuse_for_rate(key, texts, fault)
        if refusal is not None:
            return refusal
        response = self._vectors(texts, model, body, fault)
        if behaviour.tell_limits:
            response.headers.update(self._limits_of(key))
        return response

    def _refuse_for_key(self, key: str, fault: str) -> Response | None:
        if key in self.behaviour.bad_keys or fault == "401":
            return _error(401, "Incorrect API key", "invalid_request_error", "invalid_api_key")
        if fault == "403":
            return _error(403, "Not allowed", "invalid_request_error", "forbidden")
        if key in self.behaviour.quota_keys or fault == "quota":
            kind = "insufficient_quota"
            return _error(429, "You exceeded your current quota", kind, kind)
        return None

    def _refuse_for_body(self, texts: Sequence[str], fault: str) -> Response | None:
        behaviour = self.behaviour
        if fault in ("500", "503", "404", "400"):
            return _error(int(fault), "The server had an error", "server_error")
        if len(texts) > behaviour.max_batch:
            return _bad_request(f"'input' has too many inputs: maximum {behaviour.max_batch}")
        sizes = [_tokens(text) for text in texts]
        if max(sizes, default=0) > behaviour.max_text_tokens:
            limit = behaviour.max_text_tokens
            return _bad_request(f"This model's maximum context length is {limit} tokens")
        if sum(sizes) > behaviour.max_request_tokens:
            return _bad_request(f"Requested {sum(sizes)} tokens, max per request exceeded")
        if not texts or any(not text for text in texts):
            return _bad_request("'$.input' is invalid")
        marker = behaviour.refuse_marker
        if marker and any(marker in text for text in texts):
            return _bad_request("The input was refused")
        return None

    def _refuse_for_rate(self, key: str, texts: Sequence[str], fault: str) -> Response | None:
        behaviour = self.behaviour
        if fault == "429":
            return self._throttled(behaviour.retry_after_s)
        project = behaviour.projects.get(key, "default")
        tokens = sum(_tokens(text) for text in texts)
        for name, cost, limit in (
            ("requests", 1, behaviour.requests_per_minute),
            ("tokens", tokens, behaviour.tokens_per_minute),
        ):
            if limit:
                bucket = self._buckets.setdefault((project, name), _Bucket())
                wait_s = bucket.take(cost, limit, behaviour.window_s)
                if wait_s:
                    return self._throttled(wait_s)
        return None

    def _limits_of(self, key: str) -> dict[str, str]:
        """Limit, what is left of it, and the time until it is whole again, as the real API does."""
        behaviour = self.behaviour
        project = behaviour.projects.get(key, "default")
        headers: dict[str, str] = {}
        for name, limit in (
            ("requests", behaviour.requests_per_minute),
            ("tokens", behaviour.tokens_per_minute),
        ):
            bucket = self._buckets.get((project, name))
            if limit and bucket is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(int(bucket.level * limit))
                reset_s = (1.0 - bucket.level) * behaviour.window_s
                headers[f"x-ratelimit-reset-{name}"] = f"{reset_s:.3f}s"
        return headers

    def _throttled(self, wait_s: float) -> Response:
        style = self.behaviour.retry_after_style
        headers = {
            "seconds": {"retry-after": f"{wait_s:g}"},
            "date": {"retry-after": formatdate(time.time() + wait_s, usegmt=True)},
            "ms": {"retry-after-ms": f"{wait_s * 1000:.0f}"},
            "reset": {"x-ratelimit-reset-requests": f"{wait_s:g}s"},
            "none": {},
        }[style]
        kind = "rate_limit_exceeded"
        return _error(429, "Rate limit reached", "requests", kind, headers)

    def _vectors(self, texts: list[str], model: str, body: dict[str, Any], fault: str) -> Response:
        if fault == "bad_json":
            return Response(200, b'{"object": "list", "data": [{"embed')
        if fault == "html":
            return Response(200, b"<html>Bad gateway</html>", {"content-type": "text/html"})
        behaviour = self.behaviour
        dimension = behaviour.dimension or DIMENSIONS.get(model, OTHER_DIMENSION)
        dimension = int(body.get("dimensions") or dimension)
        if fault == "wrong_dimension":
            dimension += 1
        vectors = MAKERS[behaviour.mode](texts, dimension)
        if fault == "nan":
            vectors[-1, 0] = np.nan
        if fault == "bad_count":
            vectors = vectors[:-1]
        self.stats.embedded += len(texts)
        self.stats.per_text.update(text_hash(text) for text in texts)
        return _answer(200, _listing(vectors, model, texts, body.get("encoding_format")))


def _listing(vectors: Any, model: str, texts: list[str], encoding: str | None) -> dict[str, Any]:
    rows: list[Any]
    if encoding == "base64":
        rows = [base64.b64encode(row).decode("ascii") for row in vectors.astype("<f4")]
    else:
        rows = list(vectors)
    tokens = sum(_tokens(text) for text in texts)
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": r} for i, r in enumerate(rows)],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _texts(value: Any) -> list[str]:
    """The inputs as texts: a string, a list of them, token ids, or lists of token ids."""
    if isinstance(value, str):
        return [value]
    items: list[Any] = list(value)
    if items and isinstance(items[0], int):
        items = [items]
    return [i if isinstance(i, str) else " ".join(map(str, i)) for i in items]


def _tokens(text: str) -> int:
    return len(text.encode()) // 4 + 1


def _answer(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(status, orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), headers or {})


def _bad_request(message: str) -> Response:
    return _error(400, message, "invalid_request_error")


def _error(
    status: int, message: str, kind: str, code: str = "", headers: dict[str, str] | None = None
) -> Response:
    error = {"message": message, "type": kind, "param": None, "code": code or None}
    return _answer(status, {"error": error}, headers)


def main() -> None:
    parser = argparse.ArgumentParser(description="OpenAI-compatible embeddings endpoint (fake)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one, printed")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--mode", choices=sorted(MAKERS), default="hash")
    parser.add_argument("--dimension", type=int, default=0)
    parser.add_argument("--exit-on-eof", action="store_true", help="end when stdin closes")
    options = parser.parse_args()
    behaviour = Behaviour(
        latency_ms=options.latency_ms, mode=options.mode, dimension=options.dimension
    )

    async def run() -> None:
        def announce(port: int) -> None:
            sys.stdout.write(f"http://{options.host}:{port}/v1\n")
            sys.stdout.flush()

        await serve(
            FakeEndpoint(behaviour),
            options.host,
            options.port,
            announce,
            exit_on_eof=options.exit_on_eof,
        )

    import uvloop

    uvloop.run(run())


if __name__ == "__main__":
    main()
