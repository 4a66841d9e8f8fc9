"""Repeats: a text that a document says over and over is indexed a few times, not thousands.

Equal texts have equal vectors, and the vector store's graph (HNSW) links each vector to its nearest
ones: thousands of equal ones link to nothing but each other, and a search that enters among them
never leaves. Measured: five files of one repeated 5 MB line each (13,550 chunks) made all 80 other
documents of the collection unfindable, with and without a filter.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from unjam.core.chunk import Chunk

COPIES = 4
"""Chunks of one text that a document keeps: far fewer than the graph's links per vector (16)."""

REMEMBERED = 8192
"""Texts that are remembered, those seen last: what repeats often is always among them."""


def without_repeats(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The chunks without the fifth and later copy of a text, numbered anew from 0."""
    seen: OrderedDict[bytes, int] = OrderedDict()
    index = 0
    for chunk in chunks:
        key = hashlib.blake2b(chunk.text.encode(), digest_size=12).digest()
        copies = seen.get(key, 0) + 1
        seen[key] = copies
        seen.move_to_end(key)
        if len(seen) > REMEMBERED:
            seen.popitem(last=False)
        if copies <= COPIES:
            yield chunk if chunk.index == index else replace(chunk, index=index)
            index += 1
