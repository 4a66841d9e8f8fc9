"""How a chunk stands in Qdrant: a point's id and payload, and a filter in its words."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from unjam.core.chunk import StoredChunk
from unjam.core.filters import Condition, Filter, Group, Scalar, clean
from unjam.core.ports import ChunkRow
from unjam.stores.row_tests import number_key, numbers_of, token, tokens_of

_OTHER = uuid.UUID("5b1f6e0e-7a55-4c8e-9d0a-756e6a616d00")


def point_id(chunk_id: str) -> str:
    """Qdrant takes UUIDs and numbers; a chunk's id has 32 hex digits, which are one."""
    try:
        return str(uuid.UUID(hex=chunk_id))
    except ValueError:
        return str(uuid.uuid5(_OTHER, clean(chunk_id)))


def payload_of(row: ChunkRow) -> dict[str, Any]:
    chunk = row.chunk
    return {
        "id": row.id,
        "document_id": row.document_id,
        "user_id": clean(row.user_id),
        "filename": clean(row.filename),
        "generation": row.generation,
        "index": chunk.index,
        "page": chunk.page,
        "section": clean(chunk.section),
        "text": clean(chunk.text),
        "tokens": tokens_of(row.metadata),
        **numbers_of(row.metadata),
    }


def chunk_of(payload: Mapping[str, Any]) -> StoredChunk:
    """Raises KeyError when the point was not written by us."""
    names = ("id", "document_id", "generation", "index", "text", "page", "section")
    return StoredChunk(**{name: payload[name] for name in names})


def to_filter(tree: Filter | None) -> dict[str, Any] | None:
    """Qdrant's filter; its missing-field rules are those of ``core.filters``."""
    if tree is None:
        return None
    clause = _clause(tree)
    return clause if "key" not in clause else {"must": [clause]}


def _clause(tree: Filter) -> dict[str, Any]:
    if isinstance(tree, Group):
        word = "must" if tree.op == "$and" else "should"
        return {word: [_clause(t) for t in tree.terms]}
    return _test(tree)


def _values(test: Condition) -> Sequence[Scalar]:
    return test.value if isinstance(test.value, tuple) else (test.value,)


_SIGN = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}


def _test(test: Condition) -> dict[str, Any]:
    sign = _SIGN.get(test.op)
    if sign is not None and not test.column:
        return {"key": number_key(test.field), "range": {sign: float(_values(test)[0])}}
    if test.column:  # columns hold text
        key, wanted = test.field, [v for v in _values(test) if isinstance(v, str)]
    else:
        key, wanted = "tokens", [token(test.field, v) for v in _values(test)]
    one_of = {"key": key, "match": {"any": wanted if sign is None else []}}
    return one_of if test.op not in ("$ne", "$nin") else {"must_not": [one_of]}
