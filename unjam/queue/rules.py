"""Rules of ``prioritize-queue``: conditions on waiting documents, and a priority. Pure.

``{"file_size_mb": {"$lt": 5}, "priority": "high"}``; all conditions of a rule must hold, the first
rule that matches wins. A plain value stands for ``{"$eq": value}``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from unjam.core.errors import UsageError
from unjam.core.ports import InLine

MIB = 1_048_576
Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
Test = Callable[[InLine, float], bool]
"""Whether a document matches, at a moment (Unix s)."""

_NUMBERS: Mapping[str, Callable[[InLine, float], float]] = {
    "file_size_mb": lambda d, _: d.ticket.size_bytes / MIB,
    "age_s": lambda d, now: now - d.accepted_at,
    "attempts": lambda d, _: d.attempts,
}
_TEXTS: Mapping[str, Callable[[InLine], str]] = {
    "media_type": lambda d: d.media_type,
    "user_id": lambda d: d.ticket.user_id,
}
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "$lt": operator.lt,
    "$lte": operator.le,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$in": lambda value, some: value in some,
}
FIELDS = (*_NUMBERS, *_TEXTS)
OPERATORS = tuple(_COMPARE)
_ORDERING = frozenset({"$lt", "$lte", "$gt", "$gte"})


@dataclass(frozen=True, slots=True)
class Rule:
    """*tests*: all must hold; none means every document."""

    priority: Priority
    tests: Sequence[Test]


def parse_rules(raw: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """Raises UsageError, which names the rule and its unknown field, operator or value."""
    return [_parse(n, rule) for n, rule in enumerate(raw)]


def priority_of(document: InLine, rules: Sequence[Rule], now: float) -> Priority | None:
    """That of the first rule that matches; None: no rule does."""
    for rule in rules:
        if all(test(document, now) for test in rule.tests):
            return rule.priority
    return None


def _parse(n: int, raw: Mapping[str, Any]) -> Rule:
    priority = raw.get("priority")
    if priority not in PRIORITIES:
        known = ", ".join(PRIORITIES)
        raise UsageError(f"rules.{n}.priority: {priority!r} is none of {known}")
    tests = [
        test
        for name, condition in raw.items()
        if name != "priority"
        for test in _tests(f"rules.{n}.{name}", name, condition)
    ]
    return Rule(priority, tests)


def _tests(where: str, name: str, condition: object) -> list[Test]:
    if name not in FIELDS:
        known = ", ".join(FIELDS)
        raise UsageError(f"{where}: there is no field {name!r}; there are {known}")
    if not isinstance(condition, Mapping):
        return [_test(where, name, "$eq", condition)]
    pairs = cast("Mapping[str, object]", condition)
    if not pairs:
        raise UsageError(f"{where}: holds no operator; there are {', '.join(OPERATORS)}")
    return [_test(where, name, op, value) for op, value in pairs.items()]


def _test(where: str, name: str, op: str, wanted: object) -> Test:
    compare = _COMPARE.get(op)
    if compare is None or (name in _TEXTS and op in _ORDERING):
        known = ", ".join(o for o in OPERATORS if name in _NUMBERS or o not in _ORDERING)
        raise UsageError(f"{where}: {op!r} is no operator of {name}; there are {known}")
    several = cast("Sequence[object]", wanted) if op == "$in" else [wanted]
    if op == "$in" and not isinstance(wanted, list):
        raise UsageError(f"{where}.$in: {wanted!r} is no list")
    for value in several:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number if name in _NUMBERS else isinstance(value, str)):
            kind = "number" if name in _NUMBERS else "text"
            raise UsageError(f"{where}.{op}: {value!r} is no {kind}")
    if name in _NUMBERS:
        measure = _NUMBERS[name]
        return lambda document, now: compare(measure(document, now), wanted)
    read = _TEXTS[name]
    return lambda document, _: compare(read(document), wanted)
