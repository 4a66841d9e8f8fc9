"""Rules of ``prioritize-queue``: what matches, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from unjam.core.document import Ticket
from unjam.core.errors import UsageError
from unjam.core.ports import InLine
from unjam.queue.rules import MIB, parse_rules, priority_of

NOW = 1_000_000.0


def waiting(mb: float = 1.0, **more: Any) -> InLine:
    values: dict[str, Any] = {
        "media_type": "application/pdf",
        "accepted_at": NOW - 60,
        "attempts": 0,
        "home_lane": "rag_processing",
        **more,
    }
    user = values.pop("user_id", "kim")
    return InLine(Ticket("d1", 1, "rag_processing", int(mb * MIB), user), **values)


def matched(condition: dict[str, Any], document: InLine) -> bool:
    return priority_of(document, parse_rules([{**condition, "priority": "low"}]), NOW) == "low"


RUNBOOK = [
    {"file_size_mb": {"$lt": 5}, "priority": "high"},
    {"file_size_mb": {"$lt": 20}, "priority": "normal"},
    {"file_size_mb": {"$gte": 20}, "priority": "low"},
]


@pytest.mark.parametrize(
    ("mb", "priority"), [(0, "high"), (4.999, "high"), (5, "normal"), (19.9, "normal"), (20, "low")]
)
def test_the_runbooks_rules(mb: float, priority: str) -> None:
    assert priority_of(waiting(mb), parse_rules(RUNBOOK), NOW) == priority


@pytest.mark.parametrize(
    ("op", "below", "at", "above"),
    [
        ("$lt", True, False, False),
        ("$lte", True, True, False),
        ("$gt", False, False, True),
        ("$gte", False, True, True),
        ("$eq", False, True, False),
        ("$ne", True, False, True),
    ],
)
def test_numbers(op: str, below: bool, at: bool, above: bool) -> None:
    rule = {"attempts": {op: 3}}
    found = [matched(rule, waiting(attempts=n)) for n in (2, 3, 4)]
    assert found == [below, at, above]


def test_every_field() -> None:
    assert matched({"age_s": {"$gte": 60}}, waiting())
    assert not matched({"age_s": {"$gt": 60}}, waiting())
    assert matched({"media_type": {"$in": ["text/plain", "application/pdf"]}}, waiting())
    assert matched({"media_type": "application/pdf"}, waiting())
    assert not matched({"media_type": {"$ne": "application/pdf"}}, waiting())
    assert matched({"user_id": {"$eq": ""}}, waiting(user_id=""))
    assert matched({"user_id": {"$in": ["kim", "lee"]}}, waiting())
    assert matched({"attempts": {"$in": [0, 2]}}, waiting())


def test_all_conditions_must_hold_and_none_means_every_document() -> None:
    both = {"file_size_mb": {"$gt": 1, "$lt": 3}, "user_id": "kim"}
    assert matched(both, waiting(2))
    assert not matched(both, waiting(3))
    assert not matched(both, waiting(2, user_id="lee"))
    assert matched({}, waiting())


def test_the_first_rule_wins_and_no_match_is_none() -> None:
    rules = parse_rules(
        [
            {"user_id": "kim", "priority": "low"},
            {"file_size_mb": {"$lt": 5}, "priority": "high"},
        ]
    )
    assert priority_of(waiting(1), rules, NOW) == "low"
    assert priority_of(waiting(1, user_id="lee"), rules, NOW) == "high"
    assert priority_of(waiting(9, user_id="lee"), rules, NOW) is None


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        (
            {"size": {"$lt": 5}, "priority": "high"},
            r"rules\.0\.size.*no field 'size'.*file_size_mb",
        ),
        ({"file_size_mb": {"$near": 5}, "priority": "high"}, r"'\$near'.*file_size_mb"),
        ({"file_size_mb": {"lt": 5}, "priority": "high"}, r"'lt' is no operator"),
        ({"user_id": {"$lt": "a"}, "priority": "high"}, r"'\$lt' is no operator of user_id"),
        ({"file_size_mb": {"$lt": "5"}, "priority": "high"}, r"'5' is no number"),
        ({"file_size_mb": {"$lt": True}, "priority": "high"}, r"True is no number"),
        ({"file_size_mb": {}, "priority": "high"}, r"holds no operator"),
        ({"user_id": {"$in": "kim"}, "priority": "high"}, r"'kim' is no list"),
        ({"user_id": 7, "priority": "high"}, r"7 is no text"),
        ({"file_size_mb": {"$lt": 5}, "priority": "urgent"}, r"rules\.0\.priority: 'urgent'"),
        ({"file_size_mb": {"$lt": 5}}, r"rules\.0\.priority: None"),
    ],
)
def test_what_is_refused_is_named(rule: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        parse_rules([rule])
