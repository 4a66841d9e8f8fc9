"""What an OpenAI-compatible endpoint says, read with suspicion. Pure."""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, cast

import numpy as np
import orjson

from unjam.core.ports import Vectors
from unjam.embedding.pace import MINUTE_S, Rates

MAX_PAUSE_S = 3600.0
"""However long an endpoint wants to be left alone: it is asked again once an hour."""

_SAID_CHARS = 300
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Malformed(ValueError):
    """The answer is not what was asked for; says how."""


def read_vectors(content: bytes, count: int) -> Vectors:
    """Unit vectors, shape (count, dimension), in the order of the inputs.

    Raises:
        Malformed: no JSON, a wrong number of vectors, of unequal length, or not finite.
    """
    try:
        rows = orjson.loads(content)["data"]
        by_index = {int(row["index"]): _vector(row["embedding"]) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed(f"{type(error).__name__}: {str(error)[:_SAID_CHARS]}") from None
    if len(rows) != count or set(by_index) != set(range(count)):
        raise Malformed(f"{len(by_index)} vectors for {count} texts")
    if len({len(vector) for vector in by_index.values()}) != 1:
        raise Malformed("vectors of different length")
    vectors = np.stack([by_index[i] for i in range(count)]).astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise Malformed("a vector is not finite, or zero")
    vectors /= norms[:, None].astype(np.float32)
    return vectors


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the endpoint asks to wait; None when it does not say. *now*: Unix time, where
    the answer does not say by which clock its date is meant (``date``).

    ``retry-after-ms``, then ``retry-after`` (seconds or an HTTP date, RFC 9110 10.2.3), then the
    ``x-ratelimit-reset-*`` of whichever limit is used up.
    """
    for seconds in (
        _number(headers.get("retry-after-ms"), 0.001),
        _number(headers.get("retry-after"), 1.0),
        _date(headers.get("retry-after"), now + (_date(headers.get("date"), now) or 0.0)),
        _reset(headers),
    ):
        if seconds is not None:
            return min(max(seconds, 0.0), MAX_PAUSE_S)
    return None


def told_rates(headers: Mapping[str, str]) -> Rates:
    """The endpoint's own limits per minute (``x-ratelimit-limit-*``); 0 where it does not say."""
    return Rates(
        int(_number(headers.get("x-ratelimit-limit-requests"), 1.0) or 0),
        int(_number(headers.get("x-ratelimit-limit-tokens"), 1.0) or 0),
    )


def room_in_s(headers: Mapping[str, str], tokens: int) -> float:
    """Seconds until a further request of *tokens* fits, by ``x-ratelimit-remaining-*`` and
    ``-reset-*`` of an answer; 0 when it fits now, or nothing is said.

    The reset tells when the limit is whole again; where the limit is known, too, the room that is
    missing comes back earlier, in proportion.
    """
    wait_s = 0.0
    for name, cost in (("requests", 1), ("tokens", tokens)):
        remaining = _number(headers.get(f"x-ratelimit-remaining-{name}"), 1.0)
        reset_s = _duration(headers.get(f"x-ratelimit-reset-{name}"))
        if remaining is None or reset_s is None or remaining >= cost:
            continue
        limit = _number(headers.get(f"x-ratelimit-limit-{name}"), 1.0)
        if limit:
            reset_s = min(reset_s, (min(cost, limit) - remaining) / limit * MINUTE_S)
        wait_s = max(wait_s, reset_s)
    return min(max(wait_s, 0.0), MAX_PAUSE_S)


def message_of(body: object) -> str:
    """What an error body says to a person, cut short."""
    said: object = body
    if isinstance(body, dict):
        error = cast("dict[str, Any]", body)
        said = error.get("message") or error.get("detail") or error.get("error") or error
    return " ".join(str(said or "no reason given").split())[:_SAID_CHARS]


def estimate_tokens(text: str) -> int:
    """About how many tokens *text* costs, on the high side: three bytes of UTF-8 each."""
    return len(text.encode("utf-8", errors="surrogatepass")) // 3 + 1


def _vector(value: object) -> Vectors:
    if isinstance(value, str):
        return np.frombuffer(binascii.a2b_base64(value), "<f4")
    # Some servers ignore encoding_format and send lists of numbers.
    return np.array(cast(Sequence[float], value), np.float32, ndmin=1)


def _number(value: str | None, unit_s: float) -> float | None:
    try:
        number = None if value is None else float(value) * unit_s
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None


def _date(value: str | None, now: float) -> float | None:
    try:
        return None if value is None else parsedate_to_datetime(value).timestamp() - now
    except ValueError:
        return None


def _reset(headers: Mapping[str, str]) -> float | None:
    resets = {
        limit: _duration(headers.get(f"x-ratelimit-reset-{limit}"))
        for limit in ("requests", "tokens")
    }
    used_up = [
        seconds
        for limit, seconds in resets.items()
        if seconds is not None and headers.get(f"x-ratelimit-remaining-{limit}") == "0"
    ]
    if used_up:
        return max(used_up)
    return resets["requests"] if resets["requests"] is not None else resets["tokens"]


def _duration(value: str | None) -> float | None:
    """``6m0s``, ``1.5s``, ``120ms`` in seconds."""
    if value is None:
        return None
    parts = _DURATION.findall(value)
    return sum(float(n) * _UNIT_S[unit] for n, unit in parts) if parts else _number(value, 1.0)
