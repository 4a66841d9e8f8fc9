"""Text in any encoding: plain, Markdown, source code. Streams in blocks, at line borders."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from unjam.core.errors import DocumentRejected
from unjam.pipeline.sanitise import safe_cut
from unjam.pipeline.sections import BLOCK_CHARS, HeadingPath, Section
from unjam.pipeline.sniff import bare_utf16

_READ_BYTES = 1 << 20
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEADING = re.compile(r"(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*\n?$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_TABLE_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*\n?$")


def detect_encoding(path: Path) -> str:
    """The encoding of a text file: mark, UTF-8, bare UTF-16, CP949, then charset-normalizer.

    UTF-8 and CP949 are tried on the whole file: a file can be ASCII for its first megabyte. CP949
    decodes much that is not Korean, so most of what it decodes must be Hangul.
    """
    with path.open("rb") as stream:
        head = stream.read(_READ_BYTES)
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    if b"\x00" in head and (wide := bare_utf16(head[:65_536])):
        return wide
    if _decodes(path, "utf-8"):
        return "utf-8"
    if _decodes(path, "cp949") and _mostly_hangul(head.decode("cp949", "ignore")):
        return "cp949"
    return _guess(head)


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    try:
        with path.open("rb") as stream:
            while block := stream.read(_READ_BYTES):
                decoder.decode(block)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _mostly_hangul(text: str) -> bool:
    foreign = [char for char in text if char > "\x7f"]
    hangul = sum(1 for char in foreign if "\uac00" <= char <= "\ud7a3" or "ㄱ" <= char <= "ㆎ")
    return hangul * 2 >= len(foreign)


def _guess(head: bytes) -> str:
    """Neither UTF-8 nor CP949 throughout: damaged, or another legacy encoding."""
    for encoding in ("utf-8", "cp949"):
        text = head.decode(encoding, "replace")
        broken = text.count("\ufffd")
        if broken * 100 <= sum(1 for char in text if char > "\x7f") and (
            encoding == "utf-8" or _mostly_hangul(text)
        ):
            return encoding  # a few damaged bytes in a file that is otherwise clear
    from charset_normalizer import from_bytes  # slow to import; rarely needed

    best = from_bytes(head[:65_536]).best()
    return best.encoding if best is not None else "cp1252"


def read_blocks(path: Path, encoding: str | None = None) -> Iterator[str]:
    """The file's text in blocks of about 64 Ki characters, cut after a newline where there is one.

    Raises DocumentRejected (corrupt) when more than a tenth of a block cannot be decoded.
    """
    with path.open(encoding=encoding or detect_encoding(path), errors="replace") as stream:
        rest = ""
        while block := stream.read(BLOCK_CHARS):
            if block.count("\ufffd") * 10 > len(block):
                raise DocumentRejected("The text cannot be decoded.", code="corrupt")
            block = rest + block
            cut = block.rfind("\n") + 1 or _cut_long_line(block)
            rest = block[cut:]
            if cut:
                yield block[:cut]
        if rest:
            yield rest


def _cut_long_line(block: str) -> int:
    """Where to cut a block that is one line: a space near its end, or any safe place."""
    if len(block) < BLOCK_CHARS:
        return 0
    space = block.rfind(" ", len(block) - 4096) + 1
    return space or safe_cut(block, len(block) - 1)


def read_text(path: Path, limit_bytes: int) -> str:
    """The whole file as one string; for formats that must be seen whole.

    Raises DocumentRejected (parser_memory) above *limit_bytes*.
    """
    if path.stat().st_size > limit_bytes:
        raise DocumentRejected(
            f"The file is larger than {limit_bytes >> 20} MiB, the most that can be read at once "
            "in this format.",
            code="parser_memory",
        )
    return "".join(read_blocks(path))


def plain(path: Path) -> Iterator[Section]:
    for block in read_blocks(path):
        yield Section(block)


def source(path: Path) -> Iterator[Section]:
    for block in read_blocks(path):
        yield Section(block, kind="code")


def markdown(path: Path) -> Iterator[Section]:
    return markdown_sections(_lines(path))


def _lines(path: Path) -> Iterator[str]:
    for block in read_blocks(path):
        yield from block.splitlines(keepends=True)


def markdown_sections(lines: Iterator[str]) -> Iterator[Section]:
    """Headings, fenced code and tables of Markdown told apart; the text itself stays as it is."""
    return _Markdown().run(lines)


class _Markdown:
    def __init__(self) -> None:
        self.path = HeadingPath()
        self.lines: list[str] = []
        self.chars = 0
        self.kind: str = "text"
        self.header = ""
        self.fence = ""

    def run(self, lines: Iterator[str]) -> Iterator[Section]:
        for line in lines:
            if self.fence:
                yield from self._in_code(line)
            elif opened := _FENCE.match(line):
                yield from self._flush("code")
                self.fence = opened.group(1)
                self._add(line)
            elif line.startswith("#") and (found := _HEADING.match(line)):
                yield from self._heading(len(found.group(1)), found.group(2), line)
            elif self.kind == "table":
                if "|" not in line:
                    yield from self._flush("text")
                self._add(line)
            else:
                yield from self._text(line)
            if self.chars >= BLOCK_CHARS:
                yield from self._flush(self.kind)
        yield from self._flush("text")

    def _in_code(self, line: str) -> Iterator[Section]:
        self._add(line)
        bare = line.strip()
        if bare.startswith(self.fence) and not bare.strip(self.fence[0]):
            self.fence = ""
            yield from self._flush("text")

    def _heading(self, level: int, title: str, line: str) -> Iterator[Section]:
        yield from self._flush("text")
        yield Section(line, section=self.path.push(level, title), kind="heading")

    def _text(self, line: str) -> Iterator[Section]:
        last = self.lines[-1] if self.lines else ""
        bare = line.strip()
        if "|" in last and "|" in bare and "-" in bare and _TABLE_RULE.match(line):
            header = self.lines.pop()
            self.chars -= len(header)
            yield from self._flush("table")
            self.header = header + line
            self._add(header)
        elif (
            last.strip()
            and bare
            and (not bare.strip("=") or not bare.strip("-"))
            and (len(bare) >= 3 and len(last) < 200 and self._stands_alone())
        ):  # a title underlined with = or -
            self.lines.pop()
            self.chars -= len(last)
            yield from self._heading(1 if bare[0] == "=" else 2, last.strip(), last + line)
            return
        self._add(line)

    def _stands_alone(self) -> bool:
        return len(self.lines) < 2 or not self.lines[-2].strip()

    def _add(self, line: str) -> None:
        self.lines.append(line)
        self.chars += len(line)

    def _flush(self, following: str) -> Iterator[Section]:
        if self.lines:
            text = "".join(self.lines)
            if self.kind == "table":
                yield Section(text, section=self.path.path, kind="table", header=self.header)
            elif self.kind == "code":
                yield Section(text, section=self.path.path, kind="code")
            else:
                yield Section(text, section=self.path.path)
        self.lines = []
        self.chars = 0
        if following != "table" or self.kind != "table":
            self.header = ""
        self.kind = following
