"""DOCX: paragraphs, headings by style or outline level, tables, notes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from unjam.pipeline.formats.flow import Flow
from unjam.pipeline.formats.package import Package, drive, elements
from unjam.pipeline.sections import Section

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


class _Body(Flow):
    """Collects runs into paragraphs."""

    def __init__(self, levels: dict[str, int]) -> None:
        super().__init__()
        self._levels = levels
        self._open: list[tuple[list[str], list[int]]] = []  # paragraphs: a text box nests
        self._in_text = False
        self._in_run = 0
        self._skipped = 0  # depth inside mc:Fallback, which repeats its mc:Choice

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        if self._skipped or tag == "Fallback":
            self._skipped += 1
            return
        if tag == "p":
            self._open.append(([], []))
        elif tag == "r":
            self._in_run += 1
        elif tag == "t":
            self._in_text = True
        elif tag in ("tab", "br", "cr", "noBreakHyphen") and self._in_run and self._open:
            mark = {"tab": "\t", "noBreakHyphen": "-"}.get(tag, "\n")
            self._open[-1][0].append(mark)
        elif tag == "pStyle" and self._open:
            level = self._levels.get(attrs.get("val", ""))
            if level is not None:
                self._open[-1][1].append(level)
        elif tag == "outlineLvl" and self._open and attrs.get("val", "9") < "9":
            self._open[-1][1].append(int(attrs["val"]) + 1)
        else:
            self.begin(tag)

    def end(self, tag: str) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        if tag == "t":
            self._in_text = False
        elif tag == "r":
            self._in_run -= 1
        elif tag == "p" and self._open:
            runs, levels = self._open.pop()
            self.paragraph(runs, levels[-1] if levels else None)
        elif tag in ("body", "footnotes", "endnotes"):
            self.flush()
        else:
            self.finish(tag)

    def data(self, text: str) -> None:
        if self._in_text and not self._skipped and self._open:
            self._open[-1][0].append(text)
