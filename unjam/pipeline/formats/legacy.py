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
from unjam.pipeline.sniff import RTF


def legacy(path: Path, media_type: str) -> Iterator[Section]:
    import kreuzberg

    content = path.read_bytes()
    if media_type == RTF:
        _check_rtf(content)
    config = kreuzberg.ExtractionConfig(
        output_format="markdown",
        use_cache=False,
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
    )
    try:
        result = kreuzberg.extract_bytes_sync(content, media_type, config)
    except kreuzberg.KreuzbergError as error:
        text = str(error)
        code = "encrypted" if "password" in text.lower() or "encrypt" in text.lower() else "corrupt"
        raise DocumentRejected(text[:500], code=code) from None
    yield from markdown_sections(iter(result.content.splitlines(keepends=True)))


def _check_rtf(content: bytes) -> None:
    """RTF is 7-bit text that closes its first brace last; kreuzberg makes words of anything."""
    foreign = sum(content.count(byte) for byte in range(128, 256))
    if foreign * 10 > len(content) or not content.rstrip(b"\0\r\n\t ").endswith(b"}"):
        raise DocumentRejected("The RTF file is damaged or truncated.", code="corrupt")
