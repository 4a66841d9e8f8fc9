"""Chunk: a piece of a document's text, and the id that makes storing it idempotent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk. *start*/*end* are character offsets into the sanitised text of its document."""

    index: int
    text: str
    tokens: int
    start: int
    end: int
    page: int | None = None  # 1-based page, slide or sheet number, where the format has one
    section: str = ""  # heading path or sheet name, for citations


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as the vector store gives it back."""

    id: str
    document_id: str
    generation: int
    index: int
    text: str
    page: int | None
    section: str


def chunk_id(document_id: str, generation: int, index: int) -> str:
    """``hash(document, generation, index)``, 32 hex digits.

    The generation is part of it: without it, a file that goes A → B → A loses chunks when the
    late delete of the first A meets the second.
    """
    raw = f"{document_id}/{generation}/{index}".encode()
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def chunk_ids(document_id: str, generation: int, count: int, start: int = 0) -> Sequence[str]:
    """The ids of chunks *start* … *count* − 1."""
    return [chunk_id(document_id, generation, i) for i in range(start, count)]
