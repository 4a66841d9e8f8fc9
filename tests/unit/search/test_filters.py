"""What a search filter may be."""

from __future__ import annotations

from typing import Any

import pytest

from unjam.core.errors import UsageError
from unjam.core.filters import (
    MAX_DEPTH,
    MAX_KEYS,
    MAX_TESTS,
    Condition,
    Group,
    filterable,
    parse_filter,
)


def test_nothing_asked_for_is_no_filter() -> None:
    assert parse_filter(None) is None
    assert parse_filter({}) is None


def test_a_single_test_needs_no_group() -> None:
    assert parse_filter({"lang": "ko"}) == Condition(False, "lang", "$eq", "ko")
    assert parse_filter({"user_id": "kim"}) == Condition(True, "user_id", "$eq", "kim")
    assert parse_filter({"metadata.user_id": 3}) == Condition(False, "user_id", "$eq", 3)


def test_all_parts_of_a_mapping_must_hold() -> None:
    tree = parse_filter({"year": {"$gte": 1, "$lt": 3}, "lang": "ko"})
    assert isinstance(tree, Group)
    assert (tree.op, len(tree.terms)) == ("$and", 3)


def test_depth_and_size_are_bounded() -> None:
    deep: dict[str, Any] = {"a": 1}
    for _ in range(MAX_DEPTH):
        deep = {"$and": [deep, {"b": 2}]}
    with pytest.raises(UsageError, match="nested"):
        parse_filter(deep)
    assert parse_filter({"a": {"$in": list(range(MAX_TESTS))}})
    with pytest.raises(UsageError, match=str(MAX_TESTS)):
        parse_filter({"a": {"$in": list(range(MAX_TESTS + 1))}})


def test_only_flat_scalars_can_be_filtered_by() -> None:
    metadata = {"a": 1, "b": [1], "c": {"d": 1}, "e": None, "f": "x" * 600, "g": float("inf")}
    assert filterable(metadata) == {"a": 1}
    many = {f"k{i}": i for i in range(MAX_KEYS + 5)}
    assert list(filterable(many)) == list(many)[:MAX_KEYS]


def test_a_number_beyond_64_bits_still_compares() -> None:
    assert filterable({"n": 10**30}) == {"n": 1e30}
    assert parse_filter({"n": 10**30}) == Condition(False, "n", "$eq", 1e30)
