"""PPTX: one page number a slide, in the order they are shown; titles, text, tables, notes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unjam.pipeline.formats.package import Package, drive, elements
from unjam.pipeline.sections import Section, TableWriter

_MAIN = "ppt/presentation.xml"


def pptx(path: Path) -> Iterator[Section]:
    with Package(path) as package:
        targets = package.relations(_MAIN)
        order = [attrs.get("id", "") for tag, attrs in elements(package, _MAIN) if tag == "sldId"]
        for number, part in enumerate(_slides(package, order, targets), 1):
            slide = _Slide(number)
            yield from drive(package, part, slide)
            yield from slide.rest()
            for related in package.relations(part).values():
                if "notesSlides/" in related and related in package:
                    notes = _Slide(number, slide.title, notes=True)
                    yield from drive(package, related, notes)
                    yield from notes.rest()


def _slides(package: Package, order: list[str], targets: dict[str, str]) -> list[str]:
    # `sldId` has both `id` and `r:id`; without namespaces the later attribute, r:id, wins.
    listed = [targets[key] for key in order if key in targets]
    if listed:
        return listed
    names = [name for name in package.names if name.startswith("ppt/slides/slide")]
    return sorted(names, key=lambda name: (len(name), name))


class _Slide:
    def __init__(self, number: int, title: str = "", *, notes: bool = False) -> None:
        self.out: list[Section] = []
        self.number = number
        self.title = title
        self.notes = notes
        self.in_text = False
        self.placeholder = ""
        self.paragraph: list[str] = []
        self.shape: list[str] = []
        self.body: list[str] = []
        self.table: TableWriter | None = None
        self.row: list[str] = []

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        if tag == "t":
            self.in_text = True
        elif tag == "br":
            self.paragraph.append("\n")
        elif tag == "sp":
            self.placeholder = ""
            self.shape = []
        elif tag == "ph":
            self.placeholder = attrs.get("type", "body")
        elif tag == "tbl":
            self._flush()
            self.table = TableWriter(self.number, self.title)
        elif tag == "tr":
            self.row = []
        elif tag == "tc":
            self.shape = []

    def end(self, tag: str) -> None:
        if tag == "t":
            self.in_text = False
        elif tag == "p":
            text = "".join(self.paragraph).strip()
            self.paragraph = []
            if text:
                self.shape.append(text)
        elif tag == "tc":
            self.row.append(" ".join(self.shape))
            self.shape = []
        elif tag == "tr" and self.table is not None:
            self.out.extend(self.table.row(self.row))
        elif tag == "tbl" and self.table is not None:
            self.out.extend(self.table.close())
            self.table = None
        elif tag in ("sp", "graphicFrame"):
            self._shape()

    def data(self, text: str) -> None:
        if self.in_text:
            self.paragraph.append(text)

    def _shape(self) -> None:
        lines, self.shape = self.shape, []
        if not lines or self.placeholder in ("sldNum", "dt", "ftr", "hdr"):
            return
        if self.placeholder in ("title", "ctrTitle") and not self.notes:
            self._flush()
            self.title = " ".join(" ".join(lines).split())
            self.out.append(Section(f"{self.title}\n\n", self.number, self.title, "heading"))
        else:
            self.body.append("\n".join(lines) + "\n\n")

    def rest(self) -> Iterator[Section]:
        self._flush()
        yield from self.out
        self.out.clear()

    def _flush(self) -> None:
        if self.body:
            self.out.append(Section("".join(self.body), self.number, self.title))
            self.body = []
