from __future__ import annotations

import base64
from email.utils import formatdate
from typing import Any

import numpy as np
import orjson
import pytest

from unjam.embedding.pace import Rates
from unjam.embedding.wire import (
    MAX_PAUSE_S,
    Malformed,
    message_of,
    read_vectors,
    retry_after_s,
    room_in_s,
    told_rates,
)

NOW = 1_800_000_000.0


def body(*vectors: Any, indices: list[int] | None = None) -> bytes:
    rows = [
        {"index": i if indices is None else indices[i], "embedding": v}
        for i, v in enumerate(vectors)
    ]
    return orjson.dumps({"data": rows})


def b64(*values: float) -> str:
    return base64.b64encode(np.array(values, "<f4").tobytes()).decode()


def test_base64_and_lists_read_the_same_and_become_unit_length():
    vectors = read_vectors(body(b64(3, 4), [0.0, 2.0]), 2)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0.0, 1.0]], rtol=1e-6)


def test_order_is_that_of_the_index():
    vectors = read_vectors(body(b64(0, 1), b64(1, 0), indices=[1, 0]), 2)
    np.testing.assert_array_equal(vectors, [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    "content",
    [
        b'{"data": [{"embed',
        b"<html>",
        b"{}",
        b'{"data": null}',
        body(b64(1, 0)),
        body(b64(1, 0), b64(1, 0), b64(1, 0)),
        body(b64(1, 0), b64(1, 0), indices=[0, 0]),
        body(b64(1, 0), b64(1, 0), indices=[0, 5]),
        body(b64(1, 0), b64(1, 0, 0)),
        body(b64(1, 0), b64(float("nan"), 0)),
        body(b64(1, 0), b64(float("inf"), 0)),
        body(b64(1, 0), b64(0, 0)),
        body(b64(1, 0), "no base64 at all!"),
        body(b64(1, 0), ["x", "y"]),
        body([], []),
    ],
)
def test_nothing_malformed_passes(content: bytes):
    with pytest.raises(Malformed):
        read_vectors(content, 2)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"retry-after": "99999999"}, MAX_PAUSE_S),
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-reset-requests": "1m30.5s"}, 90.5),
        ({"x-ratelimit-reset-requests": "120ms"}, 0.12),
        ({"x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        (
            {
                "x-ratelimit-remaining-requests": "10",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "8s",
            },
            8.0,
        ),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float | None):
    assert retry_after_s(headers, NOW) == (None if seconds is None else pytest.approx(seconds))


def test_messages_are_found_and_cut():
    assert message_of({"message": "too\n long"}) == "too long"
    assert message_of(None) == "no reason given"
    assert len(message_of("x" * 5000)) == 300


def limits(**values: str) -> dict[str, str]:
    return {f"x-ratelimit-{k.replace('_', '-')}": v for k, v in values.items()}


def test_limits_that_an_answer_tells():
    assert told_rates(limits(limit_requests="500", limit_tokens="200000")) == Rates(500, 200_000)
    assert told_rates({}) == Rates(0, 0)
    assert told_rates(limits(limit_requests="many", limit_tokens="nan")) == Rates(0, 0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        (limits(remaining_requests="1", reset_requests="59s"), 0.0),
        (limits(remaining_requests="0", reset_requests="12s"), 12.0),
        # The limit is known: one request's worth is back after a 600th of a minute.
        (limits(remaining_requests="0", reset_requests="60s", limit_requests="600"), 0.1),
        (limits(remaining_tokens="100", reset_tokens="30s", limit_tokens="6000"), 9.0),
        (limits(remaining_tokens="100", reset_tokens="30s"), 30.0),
        (limits(remaining_tokens="1000", reset_tokens="6m0s"), 0.0),
        (limits(remaining_requests="0"), 0.0),
        (limits(remaining_requests="0", reset_requests="900h"), MAX_PAUSE_S),
    ],
)
def test_the_time_until_a_request_of_a_thousand_tokens_fits(
    headers: dict[str, str], seconds: float
):
    assert room_in_s(headers, 1000) == pytest.approx(seconds)
