"""Hangul Word Processor: HWP 5 (OLE2) through extract-hwp, HWPX (zip of XML) directly."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import olefile

from unjam.core.errors import DocumentRejected
from unjam.pipeline.formats.flow import Flow
from unjam.pipeline.formats.package import Package, drive, elements
from unjam.pipeline.sections import BLOCK_CHARS, Section

_SECTION_PART = re.compile(r"Contents/section(\d+)\.xml")
_OUTLINE = re.compile(r"(?:개요|제목|outline|heading)\s*(\d)", re.IGNORECASE)
_PASSWORD, _DISTRIBUTION, _DRM, _CERTIFICATE, _CERTIFICATE_DRM = (
    1 << 1,
    1 << 2,
    1 << 4,
    1 << 8,
    1 << 10,
)
"""Bits of the FileHeader's properties: "HWP Document File Formats 5.0", table 3."""


def hwp(path: Path) -> Iterator[Section]:
    """HWP 5 has no page borders in the file: sections have no page.

    Raises DocumentRejected: encrypted, corrupt (nothing comes out of a body that is not empty).
    """
    flags = _flags(path)
    if flags & (_PASSWORD | _DRM | _CERTIFICATE | _CERTIFICATE_DRM):
        raise DocumentRejected("The HWP file needs a password or a certificate.", code="encrypted")
    if flags & _DISTRIBUTION:
        raise DocumentRejected("The HWP file is a protected distribution copy.", code="encrypted")
    logging.getLogger().disabled = True  # extract-hwp logs to the root what it also returns
    from extract_hwp import HwpReadLimitError, extract_text_from_hwp5

    try:
        text = extract_text_from_hwp5(str(path))
    except HwpReadLimitError as error:
        raise DocumentRejected(str(error), code="decompression_bomb") from None
    if not text.strip():
        text = _second_opinion(path)
    for start in range(0, len(text), BLOCK_CHARS):
        yield Section(text[start : start + BLOCK_CHARS])


def _flags(path: Path) -> int:
    try:
        with olefile.OleFileIO(str(path)) as ole:
            with ole.openstream("FileHeader") as stream:
                header: bytes = stream.read(256)
            flags: int = struct.unpack_from("<I", header, 36)[0]
            return flags
    except (OSError, struct.error, ValueError, IndexError, TypeError) as error:
        raise DocumentRejected(f"The HWP container is damaged: {error}", code="corrupt") from None


def _second_opinion(path: Path) -> str:
    """hwp-hwpx-parser tolerates what extract-hwp refuses; nothing from both means damage."""
    from hwp_hwpx_parser import HWP5Reader

    try:
        with HWP5Reader(str(path)) as reader:
            text = reader.extract_text()
    except Exception as error:  # it raises whatever its bytes lead to
        raise DocumentRejected(f"The HWP body is damaged: {error}", code="corrupt") from None
    if not text.strip() and _body_bytes(path) > 2048:
        raise DocumentRejected("The HWP body gives no text: it is damaged.", code="corrupt")
    return text


def _body_bytes(path: Path) -> int:
    with olefile.OleFileIO(str(path)) as ole:
        return sum(int(ole.get_size(entry)) for entry in ole.listdir() if entry[0] == "BodyText")


def hwpx(path: Path) -> Iterator[Section]:
    with Package(path) as package:
        if "META-INF/manifest.xml" in package and any(
            tag == "encryption-data" for tag, _ in elements(package, "META-INF/manifest.xml")
        ):
            raise DocumentRejected("The HWPX file needs a password.", code="encrypted")
        parts = sorted(
            (int(found.group(1)), name)
            for name in package.names
            if (found := _SECTION_PART.fullmatch(name))
        )
        if not parts:
            raise DocumentRejected("The HWPX package has no body.", code="corrupt")
        body = _Body(_heading_styles(package))
        for _, part in parts:
            yield from drive(package, part, body)


def _heading_styles(package: Package) -> dict[str, int]:
    """Ids of styles (``s…``) and paragraph shapes (``p…``) that are outline levels, from 1."""
    levels: dict[str, int] = {}
    if "Contents/header.xml" not in package:
        return levels
    shape = ""
    for tag, attrs in elements(package, "Contents/header.xml"):
        if tag == "paraPr":
            shape = attrs.get("id", "")
        elif tag == "heading" and attrs.get("type") == "OUTLINE":
            levels[f"p{shape}"] = int(attrs.get("level", "0") or 0) + 1
        elif tag == "style" and (found := _OUTLINE.match(attrs.get("name", "").strip())):
            levels[f"s{attrs.get('id', '')}"] = int(found.group(1))
    return levels


class _Body(Flow):
    """Paragraphs nest: a table stands inside the run of a paragraph."""

    def __init__(self, levels: dict[str, int]) -> None:
        super().__init__()
        self._levels = levels
        self._open: list[tuple[list[str], int]] = []
        self._in_text = 0

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        if tag == "p":
            style = self._levels.get(f"s{attrs.get('styleIDRef')}", 0)
            level = style or self._levels.get(f"p{attrs.get('paraPrIDRef')}", 0)
            self._open.append(([], level))
        elif tag == "t":
            self._in_text += 1
        elif tag in ("tab", "lineBreak", "nbSpace", "fwSpace", "hyphen") and self._in_text:
            self.data({"tab": "\t", "lineBreak": "\n", "hyphen": "-"}.get(tag, " "))
        else:
            if tag == "tbl" and not self.in_table:
                self._outer_text()
            self.begin(tag)

    def end(self, tag: str) -> None:
        if tag == "t":
            self._in_text -= 1
        elif tag == "p" and self._open:
            runs, level = self._open.pop()
            self.paragraph(runs, level or None)
        elif tag == "sec":
            self.flush()
        else:
            self.finish(tag)

    def data(self, text: str) -> None:
        if self._in_text and self._open:
            self._open[-1][0].append(text)

    def _outer_text(self) -> None:
        """What the paragraphs around a table hold so far comes before it."""
        for runs, level in self._open:
            self.paragraph(list(runs), level or None)
            runs.clear()
