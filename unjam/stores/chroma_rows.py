"""How a chunk stands in Chroma, and how a filter is said in Chroma's ``where``.

Measured with ``bench/chroma_wall.py`` (Chroma 1.5.9, 384-d, server CPU per row): text given as a
*document* costs 1.0–1.2 ms through the full-text index, as metadata 0.6 ms; Korean text 1.8 ms
either way, for the server walks strings beyond ASCII slowly, and 0.6–0.75 ms once it is ASCII.
So text is metadata, and text beyond ASCII is stored as base64 of zlib. Each further key of
metadata costs about 0.03 ms: what nobody filters by shares one key.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from unjam.core.chunk import StoredChunk
from unjam.core.filters import Filter, Group, Scalar, clean, filterable
from unjam.core.ports import ChunkRow, Vectors
from unjam.stores.apart import apart

PREFIX = "m."
"""In front of a key of the user's metadata, so that it never meets one of ours."""


def encode_upsert(rows: Sequence[ChunkRow], vectors: Vectors, *, base64_vectors: bool) -> bytes:
    """The body of an upsert; *vectors* has shape (rows, dimension)."""
    floats = apart(rows, vectors)
    embeddings: Any = floats
    if base64_vectors:
        embeddings = [base64.b64encode(v.tobytes()).decode("ascii") for v in floats]
    return orjson.dumps(
        {
            "ids": [r.id for r in rows],
            "embeddings": embeddings,
            "metadatas": [row_metadata(r) for r in rows],
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def row_metadata(row: ChunkRow) -> dict[str, Any]:
    chunk = row.chunk
    at = [row.generation, chunk.index, chunk.page, clean(chunk.section)]
    out: dict[str, Any] = {
        "document_id": row.document_id,
        "user_id": clean(row.user_id),
        "filename": clean(row.filename),
        "at": json.dumps(at, separators=(",", ":")),
    }
    if chunk.text.isascii():
        out["text"] = chunk.text
    else:
        packed = zlib.compress(clean(chunk.text).encode("utf-8"), 1)
        out["textz"] = base64.b64encode(packed).decode("ascii")
    for key, value in filterable(row.metadata).items():
        out[PREFIX + key] = value
    return out


def decode_row(chunk_id: str, metadata: Mapping[str, Any]) -> StoredChunk:
    """Raises KeyError or ValueError when the row was not written by us."""
    generation, index, page, section = json.loads(metadata["at"])
    packed = metadata.get("textz")
    text = metadata["text"] if packed is None else _unpack(packed)
    return StoredChunk(
        id=chunk_id,
        document_id=metadata["document_id"],
        generation=generation,
        index=index,
        text=text,
        page=page,
        section=section,
    )


def _unpack(packed: str) -> str:
    try:
        return zlib.decompress(base64.b64decode(packed)).decode("utf-8")
    except zlib.error as e:
        raise ValueError(str(e)) from None


def to_where(tree: Filter | None) -> dict[str, Any] | None:
    """Chroma's ``where`` for a filter. Its missing-field rules are those of ``core.filters``."""
    if tree is None:
        return None
    if isinstance(tree, Group):
        return {tree.op: [to_where(t) for t in tree.terms]}
    field = tree.field if tree.column else PREFIX + tree.field
    if not isinstance(tree.value, tuple):
        return {field: {tree.op: tree.value}}
    if len(tree.value) > 1 and _numbers(tree.value):
        # Whole numbers and others stand in two columns: Chroma's lists are of one kind, its
        # comparisons with one value look into both.
        word, op = ("$or", "$eq") if tree.op == "$in" else ("$and", "$ne")
        return {word: [{field: {op: v}} for v in tree.value]}
    return {field: {tree.op: list(tree.value)}}


def _numbers(values: Sequence[Scalar]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
