"""Section: the one currency between the readers of formats and the chunker.

A document's text is the concatenation of its sections' texts, as they are: a section brings its
own trailing newline. Chunk offsets count characters of that text, after sanitising.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["text", "table", "code", "heading"]

BLOCK_CHARS = 65_536
"""Readers cut longer runs at about this size, so that a 300 MB file needs no 300 MB."""


@dataclass(frozen=True, slots=True)
class Section:
    """A run of text of one kind, with where it stands."""

    text: str
    page: int | None = None  # 1-based page, slide or sheet number, where the format has one
    section: str = ""  # heading path ("A > B"), sheet name
    kind: Kind = "text"
    header: str = ""  # table: its header row, which chunks that start inside repeat


@dataclass(slots=True)
class HeadingPath:
    """The headings above the current place."""

    _stack: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def push(self, level: int, title: str) -> str:
        """Enter heading *title* of *level* (1 = top); returns the new path."""
        while self._stack and self._stack[-1][0] >= level:
            self._stack.pop()
        self._stack.append((level, " ".join(title.split())[:120]))
        return self.path

    @property
    def path(self) -> str:
        return " > ".join(title for _, title in self._stack if title)


@dataclass(slots=True)
class TableWriter:
    """Turns rows of cells into table sections of bounded size; the first row is the header."""

    page: int | None = None
    section: str = ""
    header: str = ""
    _rows: list[str] = field(default_factory=list[str])
    _chars: int = 0
    _started: bool = False

    def row(self, cells: list[str]) -> Iterator[Section]:
        """Add a row; yields a section whenever a block is full."""
        flat = [" ".join(cell.split()) for cell in cells]
        while flat and not flat[-1]:
            flat.pop()
        if not flat:
            return
        line = " | ".join(flat) + "\n"
        if not self._started:
            self._started = True
            # A "header" that is a paragraph of text would be repeated in every chunk.
            self.header = line if len(line) <= 400 else ""
        self._rows.append(line)
        self._chars += len(line)
        if self._chars >= BLOCK_CHARS:
            yield self._take("")

    def close(self) -> Iterator[Section]:
        if self._rows:
            yield self._take("\n")

    def _take(self, tail: str) -> Section:
        text = "".join(self._rows) + tail
        self._rows.clear()
        self._chars = 0
        return Section(text, self.page, self.section, "table", self.header)
