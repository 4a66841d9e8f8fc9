"""Hangul Word Processor: HWP 5 (OLE2) through extract-hwp, HWPX (zip of XML) directly."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import olefile

from unjam.core.errors import DocumentRejected
from unjam.pipeline.formats.package import Package, drive, elements
from unjam.pipeline.sections import BLOCK_CHARS, HeadingPath, Section, TableWriter

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


class _Body:
    """Paragraphs nest: a table stands inside the run of a paragraph."""

    def __init__(self, levels: dict[str, int]) -> None:
        self.out: list[Section] = []
        self.path = HeadingPath()
        self.levels = levels
        self.open: list[tuple[list[str], int]] = []
        self.in_text = 0
        self.tables = 0
        self.table: TableWriter | None = None
        self.row: list[str] = []
        self.cell: list[str] = []
        self.body: list[str] = []
        self.chars = 0

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        if tag == "p":
            style = self.levels.get(f"s{attrs.get('styleIDRef')}", 0)
            level = style or self.levels.get(f"p{attrs.get('paraPrIDRef')}", 0)
            self.open.append(([], level))
        elif tag == "t":
            self.in_text += 1
        elif tag in ("tab", "lineBreak", "nbSpace", "fwSpace", "hyphen") and self.in_text:
            self.data({"tab": "\t", "lineBreak": "\n", "hyphen": "-"}.get(tag, " "))
        elif tag == "tbl":
            self.tables += 1
            if self.tables == 1:
                self._outer_text()
                self._flush()
                self.table = TableWriter(section=self.path.path)
        elif tag == "tr" and self.tables == 1:
            self.row = []
        elif tag == "tc" and self.tables == 1:
            self.cell = []

    def end(self, tag: str) -> None:
        if tag == "t":
            self.in_text -= 1
        elif tag == "p" and self.open:
            self._paragraph(*self.open.pop())
        elif tag == "tc" and self.tables == 1:
            self.row.append(" ".join(self.cell))
        elif tag == "tr" and self.tables == 1 and self.table is not None:
            self.out.extend(self.table.row(self.row))
        elif tag == "tbl":
            self.tables -= 1
            if self.tables == 0 and self.table is not None:
                self.out.extend(self.table.close())
                self.table = None
        elif tag == "sec":
            self._flush()

    def data(self, text: str) -> None:
        if self.in_text and self.open:
            self.open[-1][0].append(text)

    def _outer_text(self) -> None:
        """What the paragraphs around a table hold so far comes before it."""
        for runs, level in self.open:
            self._paragraph(list(runs), level)
            runs.clear()

    def _paragraph(self, runs: list[str], level: int) -> None:
        text = "".join(runs).strip("\n")
        if not text.strip():
            return
        if self.table is not None:
            self.cell.append(text)
        elif level:
            self._flush()
            path = self.path.push(level, text)
            self.out.append(Section(f"{text}\n\n", section=path, kind="heading"))
        else:
            self.body.append(text + "\n\n")
            self.chars += len(text) + 2
            if self.chars >= BLOCK_CHARS:
                self._flush()

    def _flush(self) -> None:
        if self.body:
            self.out.append(Section("".join(self.body), section=self.path.path))
            self.body = []
            self.chars = 0
