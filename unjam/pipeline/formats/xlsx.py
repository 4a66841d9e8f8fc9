"""XLSX: one page number a sheet, rows streamed, dates as dates, the first row as header."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path

from unjam.core.errors import DocumentRejected
from unjam.pipeline.formats.package import Package, drive, elements
from unjam.pipeline.sections import Section, TableWriter

_MAIN = "xl/workbook.xml"
_BUILT_IN_DATES = frozenset([*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)])
"""Number formats that are dates without being listed: ECMA-376 part 1, 18.8.30."""
_LITERALS = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.')
_MAX_COLUMNS = 16_384
_MAX_STRINGS_CHARS = 256 << 20


def xlsx(path: Path) -> Iterator[Section]:
    with Package(path) as package:
        book = elements(package, _MAIN)
        epoch = dt.datetime(1904, 1, 1) if _since_1904(book) else dt.datetime(1899, 12, 30)
        targets = package.relations(_MAIN)
        strings = _shared_strings(package)
        dates = _date_styles(package)
        sheets = [attrs for tag, attrs in book if tag == "sheet"]
        for number, attrs in enumerate(sheets, 1):
            part = targets.get(attrs.get("id", ""), f"xl/worksheets/sheet{number}.xml")
            if part not in package or "chartsheets/" in part:
                continue
            sheet = _Sheet(number, attrs.get("name", ""), strings, dates, epoch)
            first = True
            for section in drive(package, part, sheet):
                if first:
                    first = False
                    yield Section(f"{sheet.name}\n\n", number, sheet.name, "heading")
                yield section


def _since_1904(book: list[tuple[str, dict[str, str]]]) -> bool:
    return any(
        tag == "workbookPr" and attrs.get("date1904") in ("1", "true") for tag, attrs in book
    )


class _Strings:
    """The shared strings; ruby (phonetic) text left out."""

    def __init__(self) -> None:
        self.out: list[Section] = []
        self.all: list[str] = []
        self.current: list[str] = []
        self.in_text = False
        self.in_ruby = False
        self.chars = 0

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        if tag == "si":
            self.current = []
        elif tag == "t":
            self.in_text = not self.in_ruby
        elif tag == "rPh":
            self.in_ruby = True

    def end(self, tag: str) -> None:
        if tag == "si":
            text = "".join(self.current)
            self.all.append(text)
            self.chars += len(text)
            if self.chars > _MAX_STRINGS_CHARS:
                raise DocumentRejected("The sheet's strings are too many.", code="parser_output")
        elif tag == "t":
            self.in_text = False
        elif tag == "rPh":
            self.in_ruby = False

    def data(self, text: str) -> None:
        if self.in_text:
            self.current.append(text)


def _shared_strings(package: Package) -> list[str]:
    handler = _Strings()
    if "xl/sharedStrings.xml" in package:
        for _ in drive(package, "xl/sharedStrings.xml", handler):
            pass
    return handler.all


def _date_styles(package: Package) -> dict[int, str]:
    """Cell style index → "%" or "date", for the styles that change what a number says."""
    if "xl/styles.xml" not in package:
        return {}
    formats: dict[int, str] = {}
    styles: dict[int, str] = {}
    in_cells = False
    index = 0
    for tag, attrs in elements(package, "xl/styles.xml"):
        if tag == "numFmt":
            code = _LITERALS.sub("", attrs.get("formatCode", "")).lower()
            kind = "date" if any(mark in code for mark in "ymdhs") else "%" if "%" in code else ""
            formats[_int(attrs.get("numFmtId"))] = kind
        elif tag == "cellXfs":
            in_cells = True
        elif tag in ("cellStyles", "dxfs"):
            in_cells = False
        elif tag == "xf" and in_cells:
            number = _int(attrs.get("numFmtId"))
            kind = formats.get(number, "")
            if number in _BUILT_IN_DATES:
                kind = "date"
            elif number in (9, 10):
                kind = "%"
            if kind:
                styles[index] = kind
            index += 1
    return styles


def _int(text: str | None) -> int:
    return int(text) if text and text.isdigit() and len(text) < 10 else 0


class _Sheet:
    def __init__(
        self, number: int, name: str, strings: list[str], styles: dict[int, str], epoch: dt.datetime
    ) -> None:
        self.out: list[Section] = []
        self.name = name
        self.strings = strings
        self.styles = styles
        self.epoch = epoch
        self.table = TableWriter(number, name)
        self.row: list[str] = []
        self.type = "n"
        self.style = ""
        self.column = 0
        self.value: list[str] = []
        self.in_value = False

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        if tag in ("v", "t"):
            self.in_value = True
        elif tag == "c":
            self.type = attrs.get("t", "n")
            self.style = self.styles.get(_int(attrs.get("s")), "")
            self.column = _column(attrs.get("r", "")) or len(self.row) + 1
            self.value = []
        elif tag == "row":
            self.row = []

    def end(self, tag: str) -> None:
        if tag in ("v", "t"):
            self.in_value = False
        elif tag == "c":
            text = self._shown("".join(self.value))
            if text and self.column <= _MAX_COLUMNS:
                self.row.extend([""] * (self.column - 1 - len(self.row)))
                self.row.append(text)
        elif tag == "row":
            self.out.extend(self.table.row(self.row))
        elif tag == "sheetData":
            self.out.extend(self.table.close())

    def data(self, text: str) -> None:
        if self.in_value:
            self.value.append(text)

    def _shown(self, raw: str) -> str:
        if self.type == "s":
            index = _int(raw)
            return self.strings[index] if index < len(self.strings) else ""
        if self.type == "b":
            return "TRUE" if raw == "1" else "FALSE"
        if self.type != "n" or not raw:
            return raw
        try:
            number = float(raw)
        except ValueError:
            return raw
        if self.style == "date" and 0 <= number < 2_958_466:
            return self._date(number)
        if self.style == "%":
            return f"{number * 100:.10g}%"
        return f"{number:.15g}" if "E" in raw or "." in raw else raw

    def _date(self, number: float) -> str:
        moment = self.epoch + dt.timedelta(seconds=round(number * 86_400))
        if number < 1:
            return f"{moment:%H:%M:%S}"
        return f"{moment:%Y-%m-%d}" if number == int(number) else f"{moment:%Y-%m-%d %H:%M}"


def _column(reference: str) -> int:
    """1-based column of a cell reference ("AB12" → 28); 0 when it has none."""
    column = 0
    for char in reference:
        if not "A" <= char <= "Z":
            break
        column = column * 26 + ord(char) - 64
    return column
