"""Filters for stores whose tables have fixed columns: metadata as tokens and numbers.

An exact test is the presence of a token (``["lang","ko"]``), which also tells kinds apart: the
string "1", the number 1 and true have different ones. A comparison asks the number under a key
that is hexadecimal, since a user's keys hold dots, quotes and brackets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from unjam.core.filters import Scalar, clean, filterable
from unjam.core.ports import ChunkRow


def tokens_of(metadata: Mapping[str, Any]) -> list[str]:
    """A token for each key that can be filtered by."""
    return [token(key, value) for key, value in filterable(metadata).items()]


def numbers_of(metadata: Mapping[str, Any]) -> dict[str, float]:
    """``number_key`` → value, of those that are numbers."""
    return {
        number_key(key): float(value)
        for key, value in filterable(metadata).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def token(key: str, value: Scalar) -> str:
    """2020 and 2020.0 are one value, so they have one token."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps([clean(key), value], ensure_ascii=False, separators=(",", ":"))


def number_key(key: str) -> str:
    return "n" + clean(key).encode("utf-8").hex()


def last_of_each(rows: Sequence[ChunkRow]) -> list[int]:
    """Places of the rows to keep, so that no id is there twice; the last one counts."""
    return sorted({row.id: place for place, row in enumerate(rows)}.values())
