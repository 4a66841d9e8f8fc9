"""Sections to chunks: structure first, then sentences; token-exact, streaming, nothing lost.

How it cuts. It reads the document's text once, from left to right. From where a chunk begins it
finds the farthest end that still fits (two or three counts, steered by the characters per token
seen so far). The first heading in that range ends the chunk, unless next to nothing stands before
it. Else it goes back from the farthest end to the best border near it: the start of a section,
else a line (table, code) or sentence (text), else a clause, else a space, else anywhere.

- A chunk never spans two pages, slides or sheets: its citation is exact, however small it is.
- Sections under different headings share a chunk only while they are tiny: mixed topics blur a
  vector (measured on the demo corpus, 256 tokens, one set of Korean questions: recall@5 0.65 when
  chunks were filled to the limit, 0.77 when a heading ends one that holds a little).
- A chunk that does not begin with its own heading carries the heading path as its first line, and
  one that begins inside a table repeats the header row: both embed and read better. These lines
  are not part of ``[start, end)``.
- Overlap goes back to the start of a sentence, never across a heading, and not in tables.
- The covered ranges leave out white space only (a property test holds that).

semchunk 4.1, which does the same for plain text, wants the whole text in memory, knows no
structure, and with overlap halves its units first.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from unjam.core.chunk import Chunk
from unjam.pipeline.sanitise import safe_cut
from unjam.pipeline.sections import Section
from unjam.pipeline.tokens import TokenCounter

_SENTENCE = re.compile(r"[.!?…。]['\"”’)\]」』]*\s+|\n[ \t]*\n\s*|\n(?=[ \t]*([-*•·]|\d+[.)])\s)")
_CLAUSE = re.compile(r"[,;:、，)\]]\s+")
_SPACE = re.compile(r"\s+")
_MAX_CHARS_PER_TOKEN = 12
"""Bounds the window: long runs of blanks or dashes are one token to some tokenizers."""
_JOIN_CHARS = 65_536
_HEADING_FILL, _BLOCK_FILL, _SENTENCE_FILL, _SPACE_FILL = 0.20, 0.50, 0.55, 0.75
"""How full a chunk must be for a border of this kind to end it."""


def chunk_sections(
    sections: Iterable[Section], counter: TokenCounter, chunk_tokens: int, overlap_tokens: int
) -> Iterator[Chunk]:
    """Chunks of at most ``min(chunk_tokens, counter.limit)`` tokens, indices from 0.

    Tokens are counted by *counter*, prefix and special tokens included. Memory is bounded by one
    section and a few chunks, whatever the document's size.
    """
    chunker = _Chunker(counter, min(chunk_tokens, counter.limit), overlap_tokens)
    for section in sections:
        yield from chunker.feed(section)
    yield from chunker.finish()


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where in the buffer a section starts."""

    at: int
    section: Section


class _Chunker:
    def __init__(self, counter: TokenCounter, limit: int, overlap: int) -> None:
        self._count = counter.count
        self._limit = limit
        self._overlap = min(overlap, limit // 2)
        self._max_chars = limit * _MAX_CHARS_PER_TOKEN
        self._ratio = 3.0  # characters per token, learnt on the way
        self._index = 0
        self._base = 0  # document offset of the buffer's first character
        self._text = ""
        self._pending: list[str] = []
        self._pending_chars = 0
        self._marks: list[_Mark] = []
        self._starts: list[int] = []  # the marks' places, for bisect
        self._covered = 0  # buffer offset up to which chunks were given out
        self._pos = 0  # buffer offset where the next chunk begins (≤ covered: overlap)
        self._prefix_cache: tuple[str, int] = ("", 0)

    # -- input ------------------------------------------------------------------------------
    def feed(self, section: Section) -> Iterator[Chunk]:
        if self._marks and section.page != self._marks[-1].section.page:
            yield from self._drain(final=True)
        self._marks.append(_Mark(len(self._text) + self._pending_chars, section))
        self._pending.append(section.text)
        self._pending_chars += len(section.text)
        if self._pending_chars >= max(_JOIN_CHARS, 2 * self._max_chars):
            yield from self._drain(final=False)

    def finish(self) -> Iterator[Chunk]:
        yield from self._drain(final=True)

    def _drain(self, *, final: bool) -> Iterator[Chunk]:
        self._text += "".join(self._pending)
        self._pending.clear()
        self._pending_chars = 0
        self._starts = [mark.at for mark in self._marks]
        keep = 0 if final else self._max_chars + 1
        while len(self._text) - self._pos > keep:
            chunk = self._next()
            if chunk is not None:
                yield chunk
        self._forget(len(self._text) if final else self._pos)

    def _forget(self, upto: int) -> None:
        """Drop the buffer before *upto*; the mark that is in force there stays."""
        first = len(self._marks) if upto == len(self._text) else self._mark_index(upto)
        kept = [_Mark(max(mark.at - upto, -1), mark.section) for mark in self._marks[first:]]
        self._marks = kept
        self._text = self._text[upto:]
        self._base += upto
        self._pos = max(0, self._pos - upto)
        self._covered = max(0, self._covered - upto)

    # -- one chunk --------------------------------------------------------------------------
    def _next(self) -> Chunk | None:
        """The chunk that begins at the current place; None when only white space is left of it."""
        text = self._text
        self._pos = _skip_blank(text, self._pos)
        if self._pos >= len(text):
            self._covered = self._pos
            return None
        mark = self._marks[self._mark_index(self._pos)]
        prefix, cost = self._prefix(mark)
        end = self._farthest(self._pos, self._limit - cost)
        if end <= self._covered and self._pos < self._covered:
            self._pos = self._covered  # the overlap left no room for anything new
            return None
        heading = self._next_heading(end)
        if heading is not None:
            cut, soft = heading, False
        else:
            cut, soft = (end, False) if end == len(text) else self._border(end)
        if self._pos < self._covered and not text[self._covered : cut].strip():
            self._pos = self._covered = cut  # beyond the overlap there is only white space
            return None
        while True:
            body = text[self._pos : cut].rstrip()
            tokens = self._count(prefix + body)
            if tokens <= self._limit or cut - self._pos <= 1:
                break
            # The parts of a text count for a little less than the whole, now and then.
            cut = self._pos + max(1, int((cut - self._pos) * 0.95 * self._limit / tokens))
            cut, soft = max(cut, min(self._covered + 1, self._pos + 1)), True
        return self._emit(mark, prefix, body, tokens, cut, soft)

    def _emit(
        self, mark: _Mark, prefix: str, body: str, tokens: int, cut: int, soft: bool
    ) -> Chunk | None:
        start = self._pos
        self._covered = max(cut, self._covered)
        self._pos = self._overlapped(start, cut) if soft else cut
        if not body:
            return None
        chunk = Chunk(
            index=self._index,
            text=prefix + body,
            tokens=tokens,
            start=self._base + start,
            end=self._base + start + len(body),
            page=mark.section.page,
            section=mark.section.section,
        )
        self._index += 1
        return chunk

    def _mark_index(self, at: int) -> int:
        starts = self._starts
        return max(0, bisect_right(starts, at) - 1)

    def _prefix(self, mark: _Mark) -> tuple[str, int]:
        """The lines that a chunk repeats from above, and about what they cost."""
        section = mark.section
        path = section.section
        if section.kind == "heading":
            path = path.rpartition(" > ")[0] if self._pos <= mark.at else path
        lines = f"{path}\n" if path else ""
        if section.header and not self._text.startswith(section.header, self._pos):
            lines += section.header
        if not lines:
            return "", 0
        if self._prefix_cache[0] != lines:
            self._prefix_cache = (lines, self._count(lines) + 1)
        cost = self._prefix_cache[1]
        return (lines, cost) if cost * 3 <= self._limit else ("", 0)

    def _farthest(self, pos: int, limit: int) -> int:
        """About the largest end for which ``text[pos:end]`` counts at most *limit* tokens."""
        text = self._text
        top = min(len(text), pos + self._max_chars)
        low, high = pos, top + 1
        guess = min(top, pos + max(1, int(limit * self._ratio)))
        for _ in range(12):
            tokens = self._count(text[pos:guess])
            if tokens <= limit:
                low = guess
                if guess == top or tokens >= limit * 0.94:
                    break
            else:
                high = guess
            if high - low <= 1:
                break
            self._ratio = max(0.2, (guess - pos) / max(1, tokens))
            guess = min(top, pos + int(limit * self._ratio * 0.975))
            if not low < guess < high:
                guess = (low + high) // 2
        return max(low, pos + 1)

    # -- borders ----------------------------------------------------------------------------
    def _border(self, end: int) -> tuple[int, bool]:
        """Where to end a chunk that may reach to *end*, and whether the next may overlap it."""
        pos = self._pos
        span = end - pos
        floor = max(pos, self._covered)
        structural = self._last_section(max(floor, pos + int(span * _BLOCK_FILL)), end)
        if structural is not None:
            return structural, False
        kind = self._marks[self._mark_index(end - 1)].section.kind
        if kind in ("table", "code"):
            low = max(floor, pos + int(span * _BLOCK_FILL))
            for needle in ("\n\n", "\n") if kind == "code" else ("\n",):
                at = self._text.rfind(needle, low, end)
                if at > low:
                    return at + len(needle), kind == "code"
        for pattern, fill in (
            (_SENTENCE, _SENTENCE_FILL),
            (_CLAUSE, _SPACE_FILL),
            (_SPACE, _SPACE_FILL),
            (_SPACE, 0.0),
        ):
            at = _last(pattern, self._text, max(floor, pos + int(span * fill)), end)
            if at is not None:
                return at, True
        cut = safe_cut(self._text, end)
        return (cut if cut > floor else end), True

    def _next_heading(self, end: int) -> int | None:
        """The first heading up to *end* before which this chunk holds enough to stand alone."""
        low = max(self._pos + int(self._limit * self._ratio * _HEADING_FILL), self._covered)
        for index in range(self._mark_index(low), len(self._marks)):
            mark = self._marks[index]
            if mark.at > end:
                return None
            is_first = index == 0 or self._marks[index - 1].section.kind != "heading"
            if mark.at > low and mark.section.kind == "heading" and is_first:
                return mark.at
        return None

    def _last_section(self, low: int, end: int) -> int | None:
        """The last start of a section in ``(low, end]``, if it stands at the start of a line.

        A border right behind a heading would leave it alone at the end of a chunk.
        """
        for index in range(self._mark_index(end), 0, -1):
            at = self._marks[index].at
            if at <= low:
                return None
            if self._marks[index - 1].section.kind != "heading" and self._text[at - 1] == "\n":
                return at
        return None

    def _overlapped(self, start: int, cut: int) -> int:
        """Where the next chunk begins so that it repeats the end of this one; *cut* for nowhere."""
        if not self._overlap:
            return cut
        mark = self._marks[self._mark_index(cut - 1)]
        if mark.section.kind in ("table", "heading"):
            return cut
        text = self._text
        begin = max(start + 1, mark.at, cut - int(self._overlap * self._ratio))
        pattern = re.compile(r"\n") if mark.section.kind == "code" else _SENTENCE
        for found in pattern.finditer(text, begin, cut):
            if found.end() < cut:
                return found.end()
        space = _SPACE.search(text, begin, cut)
        if space is not None:
            return space.end()
        return safe_cut(text, begin)


def _skip_blank(text: str, pos: int) -> int:
    """The next visible character; of a line of code, its indentation stays."""
    found = re.compile(r"\S").search(text, pos)
    if found is None:
        return len(text)
    line = text.rfind("\n", pos, found.start()) + 1
    return line if line > pos else found.start()


def _last(pattern: re.Pattern[str], text: str, low: int, end: int) -> int | None:
    """The end of the last match in ``(low, end]``, looking at the end first."""
    step = 400
    begin = end
    while begin > low:
        begin = max(low, begin - step)
        step *= 4
        last = None
        for last in pattern.finditer(text, begin, end):  # noqa: B007 - the last one is wanted
            pass
        if last is not None and low < last.end():
            return last.end()
    return None
