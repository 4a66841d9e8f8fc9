"""DOCX: paragraphs, headings by style or outline level, tables, notes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from unjam.pipeline.formats.package import Package, drive, elements
from unjam.pipeline.sections import BLOCK_CHARS, HeadingPath, Section, TableWriter

_HEADING_NAME = re.compile(r"(?:heading|제목|개요)\s*(\d)", re.IGNORECASE)
_MAIN = "word/document.xml"


def docx(path: Path) -> Iterator[Section]:
    with Package(path) as package:
        main = _main_part(package)
        levels = _heading_styles(package, main)
        yield from drive(package, main, _Body(levels))
        for name, title in (("footnotes", "Footnotes"), ("endnotes", "Endnotes")):
            part = f"word/{name}.xml"
            if part in package:
                notes = _Body({})
                notes.path.push(1, title)
                yield from drive(package, part, notes)


def _main_part(package: Package) -> str:
    if _MAIN in package:
        return _MAIN
    for part in package.relations("").values():  # strict producers may name it otherwise
        if "document" in part and part.endswith(".xml") and part in package:
            return part
    return _MAIN  # opening it says what is missing


def _heading_styles(package: Package, main: str) -> dict[str, int]:
    """Style id → heading level. Ids are local ("1" in Korean Word), names are not."""
    part = main.rpartition("/")[0] + "/styles.xml"
    levels: dict[str, int] = {}
    if part not in package:
        return levels
    style = ""
    for tag, attrs in elements(package, part):
        if tag == "style":
            style = attrs.get("styleId", "")
        elif tag == "name" and style:
            name = attrs.get("val", "")
            if found := _HEADING_NAME.fullmatch(name.strip()):
                levels[style] = int(found.group(1))
            elif name.lower() == "title":
                levels[style] = 0
        elif tag == "outlineLvl" and style and attrs.get("val", "9") < "9":
            levels.setdefault(style, int(attrs["val"]) + 1)
    return levels


class _Body:
    """Collects runs into paragraphs, paragraphs into sections, cells into table rows."""

    def __init__(self, levels: dict[str, int]) -> None:
        self.out: list[Section] = []
        self.path = HeadingPath()
        self.levels = levels
        self.paragraphs: list[tuple[list[str], list[int]]] = []  # open ones: a text box nests
        self.in_text = False
        self.in_run = 0
        self.skipped = 0  # depth inside mc:Fallback, which repeats its mc:Choice
        self.tables = 0
        self.table: TableWriter | None = None
        self.row: list[str] = []
        self.cell: list[str] = []
        self.body: list[str] = []
        self.chars = 0

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        if self.skipped or tag == "Fallback":
            self.skipped += 1
            return
        if tag == "p":
            self.paragraphs.append(([], []))
        elif tag == "r":
            self.in_run += 1
        elif tag == "t":
            self.in_text = True
        elif tag in ("tab", "br", "cr", "noBreakHyphen") and self.in_run and self.paragraphs:
            mark = {"tab": "\t", "noBreakHyphen": "-"}.get(tag, "\n")
            self.paragraphs[-1][0].append(mark)
        elif tag == "pStyle" and self.paragraphs:
            level = self.levels.get(attrs.get("val", ""))
            if level is not None:
                self.paragraphs[-1][1].append(level)
        elif tag == "outlineLvl" and self.paragraphs and attrs.get("val", "9") < "9":
            self.paragraphs[-1][1].append(int(attrs["val"]) + 1)
        elif tag == "tbl":
            self._open_table()
        elif tag == "tr" and self.tables == 1:
            self.row = []
        elif tag == "tc" and self.tables == 1:
            self.cell = []

    def end(self, tag: str) -> None:
        if self.skipped:
            self.skipped -= 1
            return
        if tag == "t":
            self.in_text = False
        elif tag == "r":
            self.in_run -= 1
        elif tag == "p" and self.paragraphs:
            self._paragraph()
        elif tag == "tc" and self.tables == 1:
            self.row.append(" ".join(self.cell))
        elif tag == "tr" and self.tables == 1 and self.table is not None:
            self.out.extend(self.table.row(self.row))
        elif tag == "tbl":
            self.tables -= 1
            if self.tables == 0 and self.table is not None:
                self.out.extend(self.table.close())
                self.table = None
        elif tag in ("body", "footnotes", "endnotes"):
            self._flush()

    def data(self, text: str) -> None:
        if self.in_text and not self.skipped and self.paragraphs:
            self.paragraphs[-1][0].append(text)

    def _open_table(self) -> None:
        self.tables += 1
        if self.tables == 1:
            self._flush()
            self.table = TableWriter(section=self.path.path)

    def _paragraph(self) -> None:
        runs, levels = self.paragraphs.pop()
        text = "".join(runs).strip("\n")
        if not text.strip():
            return
        if self.table is not None:
            self.cell.append(text)
        elif levels:
            self._flush()
            # Level 0 is the document's title: everything stands below it.
            path = self.path.push(levels[-1], text)
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
