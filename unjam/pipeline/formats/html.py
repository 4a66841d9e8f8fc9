"""HTML: headings, tables, code and text; scripts, styles and navigation dropped."""

from __future__ import annotations

import html as entities
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from unjam.core.errors import DocumentRejected
from unjam.pipeline.formats.text import detect_encoding
from unjam.pipeline.sections import BLOCK_CHARS, HeadingPath, Section, TableWriter

_MAX_BYTES = 128 << 20
_CHARSET = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_KOREAN = {"euc-kr": "cp949", "ks_c_5601-1987": "cp949", "ksc5601": "cp949", "euckr": "cp949"}
_DROPPED = frozenset((
    "script", "style", "nav", "noscript", "template", "svg", "iframe", "object", "button",
    "select", "form", "head",
))  # fmt: skip
_BLOCKS = frozenset((
    "p", "div", "section", "article", "header", "footer", "main", "aside", "ul", "ol", "li",
    "dl", "dt", "dd", "blockquote", "figure", "figcaption", "address", "hr", "tr", "body",
    "details", "summary", "fieldset", "caption",
))  # fmt: skip
_MAX_DEPTH = 2_000
"""Browsers stop nesting at 512. lexbor needs time with the square of the depth: 60 s at 200,000."""
_NESTING = re.compile(
    r"<(/?)(?!(?:p|li|dt|dd|td|th|tr|br|hr|img|input|meta|link|col|wbr|area|base|source|track|option"
    r"|embed|param)\b)[a-z][^<>]*?(/?)>",
    re.IGNORECASE,
)
_HIDDEN = re.compile(r"<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


def html(path: Path) -> Iterator[Section]:
    if path.stat().st_size > _MAX_BYTES:
        raise DocumentRejected(
            f"The page is larger than {_MAX_BYTES >> 20} MiB, the most that can be read at once.",
            code="parser_memory",
        )
    raw = path.read_bytes()
    yield from html_sections(_decode(raw, path))


def _decode(raw: bytes, path: Path) -> str:
    if found := _CHARSET.search(raw[:4096]):
        name = found.group(1).decode("ascii").lower()
        try:
            return raw.decode(_KOREAN.get(name, name))
        except (LookupError, UnicodeDecodeError):
            pass  # it lies, as pages do: look at the bytes
    return raw.decode(detect_encoding(path), "replace")


def html_sections(
    text: str, page: int | None = None, path: HeadingPath | None = None
) -> Iterator[Section]:
    """The sections of a page; *path* carries headings on from the page before."""
    if _nests_absurdly(text):
        bare = entities.unescape(re.sub(r"<[^<>]*>", " ", _HIDDEN.sub(" ", text)))
        yield Section(re.sub(r"[ \t]+", " ", bare).strip() + "\n\n", page)
        return
    tree = LexborHTMLParser(text)
    title = tree.css_first("title")
    walk = _Walk(page, path or HeadingPath())
    if title is not None and path is None and (name := " ".join(title.text().split())):
        walk.path.push(0, name)
        yield Section(f"{name}\n\n", page, walk.path.path, "heading")
    if tree.body is not None:
        yield from walk.run(tree.body)


def _nests_absurdly(text: str) -> bool:
    """Whether elements nest deeper than `_MAX_DEPTH`; void and self-ending ones do not count."""
    if text.count("<") <= _MAX_DEPTH:
        return False
    depth = 0
    for tag in _NESTING.finditer(text):
        if tag.group(1):
            depth = max(0, depth - 1)
        elif not tag.group(2):
            depth += 1
            if depth > _MAX_DEPTH:
                return True
    return False


class _Walk:
    """Depth first without recursion: 200,000 nested tags are one line of a script."""

    def __init__(self, page: int | None, path: HeadingPath) -> None:
        self.page = page
        self.path = path
        self.text: list[str] = []
        self.chars = 0
        self.pre = 0
        self.tables: list[TableWriter] = []
        self.row: list[str] | None = None
        self.cell: list[str] | None = None

    def run(self, root: Any) -> Iterator[Section]:
        node: Any = root
        end: int = root.mem_id
        while node is not None:
            tag: str = node.tag
            skipped = tag in _DROPPED or tag == "-comment"
            if not skipped:
                yield from self._enter(tag, node)
            child = None if skipped else node.first_child
            if child is not None:
                node = child
                continue
            if not skipped:
                yield from self._leave(tag)
            while node is not None and node.next is None:
                node = node.parent
                # By identity: comparing nodes compares their whole HTML.
                if node is None or node.mem_id == end:
                    node = None
                    break
                yield from self._leave(node.tag)
            node = node.next if node is not None else None
        yield from self._flush()

    def _enter(self, tag: str, node: Any) -> Iterator[Section]:
        if tag == "-text":
            self._say(node.text_content or "")
        elif tag == "br":
            self._say("\n", raw=True)
        elif tag == "img" and (alt := node.attributes.get("alt")):
            self._say(f" {alt} ")
        elif self.cell is None:
            if tag in _HEADINGS or tag in ("pre", "table"):
                yield from self._flush()
            elif tag in _BLOCKS:
                self._break()
            if tag == "li":
                self._say("- ", raw=True)
        if tag == "pre":
            self.pre += 1
        elif tag == "table":
            self.tables.append(TableWriter(self.page, self.path.path))
        elif tag == "tr" and len(self.tables) == 1:
            self.row = []
        elif tag in ("td", "th") and len(self.tables) == 1:
            self.cell = []

    def _leave(self, tag: str) -> Iterator[Section]:
        if tag in ("td", "th") and len(self.tables) == 1 and self.cell is not None:
            if self.row is None:
                self.row = []
            self.row.append("".join(self.cell))
            self.cell = None
        elif tag == "tr" and len(self.tables) == 1 and self.row is not None:
            yield from self.tables[0].row(self.row)
            self.row = None
        elif tag == "table" and self.tables:
            table = self.tables.pop()
            if not self.tables:
                yield from table.close()
                self.row = self.cell = None
        elif tag == "pre":
            self.pre -= 1
            if self.cell is None:
                yield from self._flush("code")
        elif self.cell is None:
            if level := _HEADINGS.get(tag):
                yield from self._heading(level)
            elif tag in _BLOCKS:
                self._break()
                if self.chars >= BLOCK_CHARS:
                    yield from self._flush()
        elif tag in _BLOCKS:
            self.cell.append(" ")

    def _say(self, text: str, raw: bool = False) -> None:
        if self.cell is not None:
            self.cell.append(text)
            return
        if not raw and not self.pre:
            flat = re.sub(r"[ \t\r\n\f]+", " ", text)
            if flat == " " and (not self.text or self.text[-1].endswith(("\n", " "))):
                return
            at_start = not self.text or self.text[-1].endswith("\n")
            text = flat.lstrip(" ") if at_start else flat
        if text:
            self.text.append(text)
            self.chars += len(text)

    def _break(self) -> None:
        if self.text and not self.text[-1].endswith("\n") and self.text[-1] != "- ":
            self.text.append("\n")

    def _heading(self, level: int) -> Iterator[Section]:
        title = " ".join("".join(self.text).split())
        self.text, self.chars = [], 0
        if title:
            yield Section(f"{title}\n\n", self.page, self.path.push(level, title), "heading")

    def _flush(self, kind: str = "text") -> Iterator[Section]:
        text = "".join(self.text)
        self.text, self.chars = [], 0
        if text.strip():
            body = text.strip("\n") + "\n\n"
            yield Section(body, self.page, self.path.path, "code" if kind == "code" else "text")
