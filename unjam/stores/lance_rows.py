"""How a chunk stands in a LanceDB table, and how a filter is said in its SQL (DataFusion's)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unjam.core.chunk import StoredChunk
from unjam.core.filters import Condition, Filter, Group, Scalar, clean
from unjam.core.ports import ChunkRow, Vectors
from unjam.stores.row_tests import number_key, numbers_of, token, tokens_of

IDENTITY = b"unjam.identity"
"""Key of the schema's metadata: a random word for each table that is made."""

SHOWN = ("id", "document_id", "generation", "index", "page", "section", "text")


def schema_of(dimension: int, identity: str = "") -> Any:
    """The ``pyarrow.Schema`` of a table. (The one that a table tells has text for JSON, and rows
    given so are no JSON to its functions.)"""
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    return pa.schema(
        [
            ("id", text),
            ("document_id", text),
            ("user_id", text),
            ("filename", text),
            ("generation", number),
            ("index", number),
            ("page", number),
            ("section", text),
            ("text", text),
            ("tokens", pa.list_(text)),
            ("numbers", pa.json_()),
            ("vector", pa.list_(pa.float32(), dimension)),
        ],
        metadata={IDENTITY: identity.encode()} if identity else None,
    )


def table_of(rows: Sequence[ChunkRow], vectors: Vectors) -> Any:
    """A ``pyarrow.Table``; *vectors* has shape (rows, dimension)."""
    import pyarrow as pa

    dimension = vectors.shape[1]
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    numbers = [json.dumps(numbers_of(r.metadata)) for r in rows]
    columns = [
        pa.array([r.id for r in rows]),
        pa.array([r.document_id for r in rows]),
        pa.array([clean(r.user_id) for r in rows]),
        pa.array([clean(r.filename) for r in rows]),
        pa.array([r.generation for r in rows], pa.int64()),
        pa.array([r.chunk.index for r in rows], pa.int64()),
        pa.array([r.chunk.page for r in rows], pa.int64()),
        pa.array([clean(r.chunk.section) for r in rows]),
        pa.array([clean(r.chunk.text) for r in rows]),
        pa.array([tokens_of(r.metadata) for r in rows], pa.list_(pa.string())),
        pa.array(numbers, pa.json_()),
        pa.FixedSizeListArray.from_arrays(flat, dimension),
    ]
    return pa.Table.from_arrays(columns, schema=schema_of(dimension))


def decode_row(row: Mapping[str, Any]) -> StoredChunk:
    """Raises KeyError when the row was not written by us."""
    return StoredChunk(**{name: row[name] for name in SHOWN})


def ids_in(ids: Sequence[str]) -> str:
    return f"id IN ({', '.join(quoted(i) for i in ids)})"


def quoted(text: str) -> str:
    return "'" + clean(text).replace("'", "''") + "'"


def to_sql(tree: Filter | None) -> str | None:
    """The filter as a condition; its missing-field rules are those of ``core.filters``."""
    if tree is None:
        return None
    if isinstance(tree, Group):
        word = " AND " if tree.op == "$and" else " OR "
        return "(" + word.join(f"{to_sql(t)}" for t in tree.terms) + ")"
    return _column(tree) if tree.column else _key(tree)


def _values(test: Condition) -> Sequence[Scalar]:
    return test.value if isinstance(test.value, tuple) else (test.value,)


def _column(test: Condition) -> str:
    """Columns hold text, and never nothing."""
    texts = [v for v in _values(test) if isinstance(v, str)]
    one_of = f"{test.field} IN ({', '.join(quoted(t) for t in texts)})" if texts else "false"
    if test.op in ("$eq", "$in"):
        return one_of
    return f"NOT ({one_of})" if test.op in ("$ne", "$nin") else "false"


_SIGN = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def _key(test: Condition) -> str:
    sign = _SIGN.get(test.op)
    if sign is not None:  # nothing under that key: null, which is no hit
        value = float(_values(test)[0])
        return f"json_get_float(numbers, '{number_key(test.field)}') {sign} {value!r}"
    some = [f"array_has(tokens, {quoted(token(test.field, v))})" for v in _values(test)]
    one_of = "(" + " OR ".join(some) + ")"
    return one_of if test.op in ("$eq", "$in") else f"NOT {one_of}"
