"""Search filters: what a caller may ask for, checked once, as a small tree.

``{"user_id": "kim", "year": {"$gte": 2020}, "$or": [{"lang": "ko"}, {"lang": "en"}]}``: all parts
of a mapping must hold. A field is ``user_id``, ``document_id``, ``filename``, or a key of the
document's metadata (``metadata.user_id`` reaches one that is named like those three). A row
without the field passes ``$ne`` and ``$nin`` and no other test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from unjam.core.errors import UsageError

Scalar = str | bool | int | float
COLUMNS = frozenset({"user_id", "document_id", "filename"})
COMPARISONS = frozenset({"$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin"})
_ORDERED = frozenset({"$gt", "$gte", "$lt", "$lte"})

MAX_DEPTH = 8
MAX_TESTS = 256
"""Values compared in one filter; the store below turns each into a bound SQL variable."""

MAX_KEYS = 32
"""Keys of a document's metadata that can be filtered by; each is one more row in the store."""

MAX_STRING_CHARS = 512
_MAX_INT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison. *value* is a tuple for ``$in`` and ``$nin``, else a scalar."""

    column: bool  # a column of the row; else a key of the metadata
    field: str
    op: str
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """All of (``$and``) or one of (``$or``) the terms; never empty."""

    op: Literal["$and", "$or"]
    terms: tuple[Condition | Group, ...]


Filter = Condition | Group


def parse_filter(raw: Mapping[str, Any] | None) -> Filter | None:
    """The tree of *raw*; None when it asks for nothing.

    Raises:
        UsageError: an unknown operator or a value of the wrong kind; the message names it.
    """
    if not raw:
        return None
    tree = _group("$and", _terms(raw, 1))
    if _size(tree) > MAX_TESTS:
        raise UsageError(
            f"the filter compares more than {MAX_TESTS} values",
            hint="Ask in several searches, or filter by a metadata key that covers them.",
        )
    return tree


def filterable(metadata: Mapping[str, Any]) -> dict[str, Scalar]:
    """What of a document's metadata can be filtered by: flat scalars, in the order given.

    Left out: nested values, strings above 512 characters, numbers that are not finite, and
    whatever comes after the 32nd key.
    """
    out: dict[str, Scalar] = {}
    for key, value in metadata.items():
        if len(out) == MAX_KEYS:
            break
        if _is_scalar(value) and not (isinstance(value, str) and len(value) > MAX_STRING_CHARS):
            out[clean(key)] = _number_in_range(value)
    return out


def clean(text: str) -> str:
    """*text* as every store can hold it: no lone surrogates, no NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def _terms(raw: Mapping[str, Any], depth: int) -> list[Filter]:
    if depth > MAX_DEPTH:
        raise UsageError(f"the filter is nested more than {MAX_DEPTH} deep")
    terms: list[Filter] = []
    for key, value in raw.items():
        if key in ("$and", "$or"):
            terms.append(_branch(key, value, depth))
        elif key.startswith("$"):
            raise _unknown(key)
        else:
            terms.extend(_tests(key, value))
    return terms


def _branch(op: Literal["$and", "$or"], value: object, depth: int) -> Filter:
    parts = cast(Sequence[object], value) if isinstance(value, list | tuple) else ()
    if not parts or not all(isinstance(p, Mapping) and p for p in parts):
        raise UsageError(f"{op} needs a list of filters, such as [{{'lang': 'ko'}}]")
    mappings = cast(Sequence[Mapping[str, Any]], parts)
    return _group(op, [_group("$and", _terms(p, depth + 1)) for p in mappings])


def _tests(name: str, value: object) -> list[Filter]:
    column = name in COLUMNS
    field = name.removeprefix("metadata.")
    if not field:
        raise UsageError("a filter names an empty field")
    if not isinstance(value, Mapping):
        return [Condition(column, field, "$eq", _scalar(name, "$eq", value))]
    tests = cast(Mapping[str, Any], value)
    if not tests:
        raise UsageError(f"the filter on {name} is empty")
    return [Condition(column, field, op, _operand(name, op, v)) for op, v in tests.items()]


def _operand(name: str, op: str, value: object) -> Scalar | tuple[Scalar, ...]:
    if op not in COMPARISONS:
        raise _unknown(op)
    if op in ("$in", "$nin"):
        items = cast(Sequence[object], value) if isinstance(value, list | tuple) else ()
        values = tuple(_scalar(name, op, v) for v in items)
        if not values or len({_kind(v) for v in values}) > 1:
            raise UsageError(f"{op} on {name} needs a list of values of one kind")
        return values
    scalar = _scalar(name, op, value)
    if op in _ORDERED and _kind(scalar) != "number":
        raise UsageError(f"{op} on {name} needs a number")
    return scalar


def _scalar(name: str, op: str, value: object) -> Scalar:
    if not _is_scalar(value):
        raise UsageError(f"{op} on {name} needs a string, a number or a boolean")
    return _number_in_range(cast(Scalar, value))


def _is_scalar(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | bool | int)


def _number_in_range(value: Scalar) -> Scalar:
    if isinstance(value, int) and not -_MAX_INT <= value <= _MAX_INT:
        return float(min(max(value, -(10**300)), 10**300))
    return clean(value) if isinstance(value, str) else value


def _kind(value: Scalar) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def _group(op: Literal["$and", "$or"], terms: Sequence[Filter]) -> Filter:
    return terms[0] if len(terms) == 1 else Group(op, tuple(terms))


def _size(tree: Filter) -> int:
    if isinstance(tree, Group):
        return sum(_size(t) for t in tree.terms)
    return len(tree.value) if isinstance(tree.value, tuple) else 1


def _unknown(op: str) -> UsageError:
    return UsageError(
        f"unknown filter operator {op}",
        hint="Operators: " + ", ".join(sorted(COMPARISONS | {"$and", "$or"})),
    )


def matches(tree: Filter | None, columns: Mapping[str, Scalar], keys: Mapping[str, Scalar]) -> bool:
    """Whether a row passes: *columns* are its own fields, *keys* its filterable metadata."""
    if tree is None:
        return True
    if isinstance(tree, Group):
        results = (matches(t, columns, keys) for t in tree.terms)
        return all(results) if tree.op == "$and" else any(results)
    return _holds(tree, (columns if tree.column else keys).get(tree.field))


def _holds(test: Condition, have: Scalar | None) -> bool:
    wanted = test.value if isinstance(test.value, tuple) else (test.value,)
    same_kind = have is not None and _kind(have) == _kind(wanted[0])
    if test.op in ("$eq", "$in"):
        return same_kind and have in wanted
    if test.op in ("$ne", "$nin"):
        return not (same_kind and have in wanted)
    if not same_kind:
        return False
    left, right = cast(float, have), cast(float, wanted[0])
    if test.op == "$gt":
        return left > right
    if test.op == "$gte":
        return left >= right
    return left < right if test.op == "$lt" else left <= right
