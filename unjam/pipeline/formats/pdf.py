"""PDF, page by page (pdfium; pypdf when pdfium cannot open it)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from unjam.core.errors import DocumentRejected
from unjam.pipeline.sections import Section

_TEXT_CHARS = 10
"""A page with fewer letters than this has no text worth the name: a page number, a stamp."""
_TAIL_BYTES = 65_536


def pdf(path: Path) -> Iterator[Section]:
    """One section a page.

    Raises DocumentRejected: encrypted (needs a password to open), corrupt (the end-of-file mark is
    missing or a page does not load: what is readable of it would be an empty success), needs_ocr
    (more than half of the pages show something but hold fewer than 10 letters), too_little_text
    (fonts without a mapping to Unicode), empty.
    """
    if not _has_end(path):
        raise DocumentRejected("The PDF has no end-of-file mark: it is truncated.", code="corrupt")
    try:
        document = pdfium.PdfDocument(str(path))
    except pdfium.PdfiumError as error:
        if getattr(error, "err_code", None) == pdfium_c.FPDF_ERR_PASSWORD:
            raise DocumentRejected("The PDF needs a password.", code="encrypted") from None
        yield from _second_opinion(path, str(error))
        return
    try:
        yield from _pages(document)
    finally:
        document.close()


def _has_end(path: Path) -> bool:
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _TAIL_BYTES))
        return b"%%EOF" in stream.read()


class _Verdict:
    """Counts what the pages held, to tell scans and unreadable fonts from documents."""

    def __init__(self) -> None:
        self.pages = 0
        self.letters = 0
        self.unreadable = 0
        self.pictures = 0  # pages that show something but have no text

    def add(self, text: str, shows_something: bool) -> None:
        letters = sum(1 for char in text if char.isalnum())
        self.pages += 1
        self.letters += letters
        self.unreadable += sum(
            1 for char in text if char == "\ufffd" or "\ue000" <= char <= "\uf8ff"
        )
        if letters < _TEXT_CHARS and shows_something:
            self.pictures += 1

    def check(self) -> None:
        if self.pictures * 2 > self.pages:
            raise DocumentRejected(
                f"{self.pictures} of {self.pages} pages are images without a text layer.",
                code="needs_ocr",
            )
        if self.letters == 0 and self.unreadable == 0:
            raise DocumentRejected(f"{self.pages} pages, none with text.", code="empty")
        if self.unreadable > self.letters:
            raise DocumentRejected(
                "The fonts do not say which letters their glyphs are.", code="too_little_text"
            )


def _pages(document: Any) -> Iterator[Section]:
    verdict = _Verdict()
    # Held back until a page with text is seen: a pure scan is refused before anything is embedded.
    held: list[Section] = []
    for index in range(len(document)):
        text, shows_something = _page_text(document, index)
        verdict.add(text, shows_something)
        if text.strip():
            held.append(Section(text.rstrip() + "\n\n", index + 1))
        if verdict.letters >= _TEXT_CHARS and verdict.pictures * 2 <= verdict.pages:
            yield from held
            held.clear()
    verdict.check()
    yield from held


def _page_text(document: Any, index: int) -> tuple[str, bool]:
    try:
        page = document[index]
    except pdfium.PdfiumError:
        raise DocumentRejected(
            f"Page {index + 1} of {len(document)} cannot be read.", code="corrupt"
        ) from None
    try:
        textpage = page.get_textpage()
        try:
            text: str = textpage.get_text_range()
        finally:
            textpage.close()
        shows_something = False
        if sum(1 for char in text if char.isalnum()) < _TEXT_CHARS:
            shows_something = next(iter(page.get_objects(max_depth=2)), None) is not None
        # pdfium marks a hyphen at a line's end with U+FFFE (older: U+0002): join the word.
        for mark in ("\ufffe\r\n", "\x02\r\n", "\ufffe", "\x02"):
            text = text.replace(mark, "")
        return text, shows_something
    finally:
        page.close()


def _second_opinion(path: Path, first: str) -> Iterator[Section]:
    """pypdf opens some files that pdfium refuses."""
    from pypdf import PdfReader  # 100 ms to import; rarely needed
    from pypdf.errors import PyPdfError

    verdict = _Verdict()
    held: list[Section] = []
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentRejected("The PDF needs a password.", code="encrypted")
        for number, page in enumerate(reader.pages, 1):
            text = page.extract_text()
            verdict.add(text, "/Contents" in page)
            if text.strip():
                held.append(Section(text.rstrip() + "\n\n", number))
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DocumentRejected(
            f"The PDF cannot be opened: {first or error}", code="corrupt"
        ) from None
    if not verdict.pages:
        raise DocumentRejected(f"The PDF cannot be opened: {first}", code="corrupt")
    verdict.check()
    yield from held
