"""Formats of older office programs, read by kreuzberg: DOC, XLS, PPT, RTF, ODT.

Imported in the child, after the fork and only for such a file: kreuzberg starts threads, which
the single-threaded parent of all children must never have.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unjam.core.errors import DocumentRejected
from unjam.pipeline.formats.text import markdown_sections
from unjam.pipeline.sections import Section


def legacy(path: Path, media_type: str) -> Iterator[Section]:
    import kreuzberg

    config = kreuzberg.ExtractionConfig(
        output_format="markdown",
        use_cache=False,
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
    )
    try:
        result = kreuzberg.extract_bytes_sync(path.read_bytes(), media_type, config)
    except kreuzberg.KreuzbergError as error:
        text = str(error)
        code = "encrypted" if "password" in text.lower() or "encrypt" in text.lower() else "corrupt"
        raise DocumentRejected(text[:500], code=code) from None
    yield from markdown_sections(iter(result.content.splitlines(keepends=True)))
