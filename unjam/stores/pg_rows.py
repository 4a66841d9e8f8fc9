"""How a chunk stands in a pgvector table, and how a filter is said in SQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from unjam.core.chunk import StoredChunk
from unjam.core.filters import Condition, Filter, Group, Scalar, clean, filterable
from unjam.core.ports import ChunkRow, Vectors
from unjam.stores.apart import apart

SHOWN = "id, document_id, generation, index, text, page, section"

HNSW_MOST = 2000
"""Dimensions that the index takes as ``vector`` …"""

HALF_MOST = 4000
"""… and as ``halfvec``; beyond that a query reads every row."""

CATALOGUE = """
CREATE TABLE IF NOT EXISTS unjam_collections (
    name text PRIMARY KEY,
    identity text NOT NULL UNIQUE,
    dimension integer NOT NULL,
    owners text[] NOT NULL DEFAULT '{}'
)"""


def table_name(identity: str) -> str:
    """*identity* is hexadecimal, made by us: fit for SQL as it is."""
    return f"unjam_vectors_{int(identity, 16):016x}"


def table_sql(identity: str, dimension: int) -> list[str]:
    """The statements that make a collection's table and its index."""
    name = table_name(identity)
    made = [
        f"""CREATE TABLE {name} (
            id text PRIMARY KEY, document_id text NOT NULL, user_id text NOT NULL,
            filename text NOT NULL, generation bigint NOT NULL, index bigint NOT NULL,
            page bigint, section text NOT NULL, text text NOT NULL, keys jsonb NOT NULL,
            embedding vector({int(dimension)}) NOT NULL)"""
    ]
    if dimension <= HNSW_MOST:
        made.append(f"CREATE INDEX ON {name} USING hnsw (embedding vector_cosine_ops)")
    elif dimension <= HALF_MOST:
        made.append(
            f"CREATE INDEX ON {name} USING hnsw"
            f" ((embedding::halfvec({int(dimension)})) halfvec_cosine_ops)"
        )
    return made


def upsert_sql(identity: str) -> str:
    """One statement for all rows: an array for each column."""
    fields = "document_id user_id filename generation index page section text keys embedding"
    names = fields.split()
    new = ", ".join(f"{n} = excluded.{n}" for n in names)
    return f"""
        INSERT INTO {table_name(identity)} (id, {", ".join(names)})
        SELECT a, b, c, d, e, f, g, h, i, j::jsonb, k::vector
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[],
            %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[])
            AS rows (a, b, c, d, e, f, g, h, i, j, k)
        ON CONFLICT (id) DO UPDATE SET {new}"""


def columns_of(rows: Sequence[ChunkRow], vectors: Vectors) -> list[list[Any]]:
    """The arrays of ``upsert_sql``; *vectors* has shape (rows, dimension)."""
    floats = apart(rows, vectors)
    return [
        [r.id for r in rows],
        [r.document_id for r in rows],
        [clean(r.user_id) for r in rows],
        [clean(r.filename) for r in rows],
        [r.generation for r in rows],
        [r.chunk.index for r in rows],
        [r.chunk.page for r in rows],
        [clean(r.chunk.section) for r in rows],
        [clean(r.chunk.text) for r in rows],
        [json.dumps(filterable(r.metadata), ensure_ascii=False) for r in rows],
        [vector_text(v) for v in floats],
    ]


def vector_text(vector: Vectors) -> str:
    """pgvector reads what JSON calls an array of numbers."""
    floats = np.ascontiguousarray(vector, np.float32)
    return orjson.dumps(floats, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def query_sql(
    identity: str, dimension: int, vector: Vectors, k: int, where: tuple[str, list[Any]]
) -> tuple[str, list[Any]]:
    """Each row: the columns of ``SHOWN`` and the cosine distance; nearest first."""
    wanted = vector_text(vector)
    half = HNSW_MOST < dimension <= HALF_MOST
    kind = f"halfvec({int(dimension)})" if half else "vector"
    place = f"embedding::{kind}" if half else "embedding"
    sql = (
        f"SELECT {SHOWN}, embedding <=> %s::vector FROM {table_name(identity)}"
        f" WHERE {where[0]} ORDER BY {place} <=> %s::{kind} LIMIT %s"
    )
    return sql, [wanted, *where[1], wanted, k]


def chunk_of(row: Sequence[Any]) -> StoredChunk:
    chunk_id, document_id, generation, index, text, page, section = row[:7]
    return StoredChunk(chunk_id, document_id, generation, index, text, page, section)


def to_sql(tree: Filter | None) -> tuple[str, list[Any]]:
    """The filter as a condition and its values; never null, so it can be negated."""
    if tree is None:
        return "true", []
    if isinstance(tree, Group):
        parts = [to_sql(t) for t in tree.terms]
        word = " AND " if tree.op == "$and" else " OR "
        return "(" + word.join(p[0] for p in parts) + ")", [v for p in parts for v in p[1]]
    return _column(tree) if tree.column else _key(tree)


def _values(test: Condition) -> Sequence[Scalar]:
    return test.value if isinstance(test.value, tuple) else (test.value,)


def _column(test: Condition) -> tuple[str, list[Any]]:
    texts = [v for v in _values(test) if isinstance(v, str)]
    one_of = f"{test.field} = ANY(%s::text[])"
    if test.op in ("$eq", "$in"):
        return one_of, [texts]
    return (f"NOT {one_of}", [texts]) if test.op in ("$ne", "$nin") else ("false", [])


_SIGN = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def _key(test: Condition) -> tuple[str, list[Any]]:
    """Containment tells kinds apart, and 2020 from 2020.0 it does not; as it should be."""
    sign = _SIGN.get(test.op)
    if sign is not None:
        sql = (
            "CASE jsonb_typeof(keys -> %s) WHEN 'number'"
            f" THEN (keys -> %s)::numeric {sign} %s::numeric ELSE false END"
        )
        return sql, [test.field, test.field, repr(_values(test)[0])]
    pairs = [json.dumps({clean(test.field): v}, ensure_ascii=False) for v in _values(test)]
    one_of = "(" + " OR ".join("keys @> %s::jsonb" for _ in pairs) + ")"
    return (one_of if test.op in ("$eq", "$in") else f"NOT {one_of}"), list(pairs)
