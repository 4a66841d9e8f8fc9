"""What stands in a Chroma collection: who it belongs to, how much it holds, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from unjam.core.ports import CollectionFacts, StoredId
from unjam.stores.chroma_http import ChromaHttp, CollectionGone
from unjam.stores.chroma_rows import decode_row

OWNER = "owner:"
"""Prefix of a key of the collection's metadata: the id of a ledger behind it."""


async def facts(http: ChromaHttp, name: str, timeout_s: float) -> CollectionFacts | None:
    """Raises DependencyDown."""
    try:
        raw = await http.describe(name, timeout_s)
        rows = await http.count(str(raw["id"]), timeout_s)
    except CollectionGone:
        return None
    return CollectionFacts(str(raw["id"]), rows, frozenset(_owners(raw)))


async def sign(http: ChromaHttp, name: str, owner: str, timeout_s: float) -> None:
    """Chroma replaces the whole metadata: what was there before is written along."""
    try:
        raw = await http.describe(name, timeout_s)
        if owner not in _owners(raw):
            metadata = {**(raw.get("metadata") or {}), OWNER + owner: True}
            await http.set_metadata(str(raw["id"]), metadata, timeout_s)
    except CollectionGone:
        return


def _owners(raw: Mapping[str, Any]) -> list[str]:
    metadata: Mapping[str, Any] = raw.get("metadata") or {}
    return [key.removeprefix(OWNER) for key in metadata if key.startswith(OWNER)]


def page(offset: int, limit: int) -> bytes:
    """The body of a ``get`` that walks the collection."""
    return orjson.dumps({"offset": offset, "limit": limit, "include": ["metadatas"]})


def stored_id(chunk_id: str, metadata: Mapping[str, Any] | None) -> StoredId:
    try:
        chunk = decode_row(chunk_id, metadata or {})
    except (KeyError, ValueError, TypeError):
        return StoredId(chunk_id, "", 0)
    return StoredId(chunk_id, chunk.document_id, chunk.generation)
