"""Flow: paragraphs into sections, headings into paths, cells into table rows.

What word processors have in common once their markup is told apart.
"""

from __future__ import annotations

from unjam.pipeline.sections import BLOCK_CHARS, HeadingPath, Section, TableWriter


class Flow:
    """``out`` grows by what is complete. A table within a table is text of the outer cell."""

    def __init__(self) -> None:
        self.out: list[Section] = []
        self.path = HeadingPath()
        self._tables = 0  # open ones
        self._table: TableWriter | None = None
        self._row: list[str] = []
        self._cell: list[str] = []
        self._body: list[str] = []
        self._chars = 0

    @property
    def in_table(self) -> bool:
        return self._tables > 0

    def paragraph(self, runs: list[str], level: int | None) -> None:
        """One that ended; with *level* it is a heading (0: the document's title)."""
        text = "".join(runs).strip("\n")
        if not text.strip():
            return
        if self._table is not None:
            self._cell.append(text)
        elif level is not None:
            self.flush()
            path = self.path.push(level, text)
            self.out.append(Section(f"{text}\n\n", section=path, kind="heading"))
        else:
            self._body.append(text + "\n\n")
            self._chars += len(text) + 2
            if self._chars >= BLOCK_CHARS:
                self.flush()

    def begin(self, tag: str) -> None:
        """``tbl``, ``tr`` or ``tc``; others are ignored."""
        if tag == "tbl":
            self._tables += 1
            if self._tables == 1:
                self.flush()
                self._table = TableWriter(section=self.path.path)
        elif tag == "tr" and self._tables == 1:
            self._row = []
        elif tag == "tc" and self._tables == 1:
            self._cell = []

    def finish(self, tag: str) -> None:
        """The same at their ends."""
        if tag == "tc" and self._tables == 1:
            self._row.append(" ".join(self._cell))
        elif tag == "tr" and self._tables == 1 and self._table is not None:
            self.out.extend(self._table.row(self._row))
        elif tag == "tbl":
            self._tables -= 1
            if self._tables == 0 and self._table is not None:
                self.out.extend(self._table.close())
                self._table = None

    def flush(self) -> None:
        """What was read so far is a section: a heading, a table or the end follows."""
        if self._body:
            self.out.append(Section("".join(self._body), section=self.path.path))
            self._body = []
            self._chars = 0
