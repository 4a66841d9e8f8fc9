"""Bytes on disk to sections of clean text, or a named reason why not.

"Success with too little text for its bytes or pages" is never success. What counts as too little
was chosen per family:

- PDF: `formats.pdf` counts pages with pictures and without letters → needs_ocr.
- Packages (DOCX, PPTX, XLSX, EPUB, HWPX, ODT) are mostly markup and pictures, and a flyer may be
  one big picture with a line of text. Only nearly nothing is refused: fewer than 3 letters.
- HWP is known to give nothing "successfully": fewer than 3 letters is refused, too.
- HTML: a page of more than 20 KiB with fewer than 20 letters is a script's shell, no document.
- Text of any kind: what is there is all there is; only a file without any letter or digit is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from unjam.core.errors import DocumentRejected
from unjam.core.ports import ParseJob
from unjam.pipeline import sniff
from unjam.pipeline.formats import (
    docx,
    eml,
    epub,
    html,
    hwp,
    legacy,
    package,
    pdf,
    pptx,
    tabular,
    text,
    xlsx,
)
from unjam.pipeline.sanitise import sanitise
from unjam.pipeline.sections import Section

PARSER_VERSION = 1
"""Pinned by a generation: raise it when the same bytes give other text or other chunks."""

Reader = Callable[[Path], Iterator[Section]]

READERS: dict[str, Reader] = {
    sniff.PLAIN: text.plain,
    sniff.SOURCE: text.source,
    sniff.MARKDOWN: text.markdown,
    sniff.HTML: html.html,
    sniff.CSV: tabular.csv_rows,
    sniff.JSON: tabular.json_values,
    sniff.PDF: pdf.pdf,
    sniff.DOCX: docx.docx,
    sniff.PPTX: pptx.pptx,
    sniff.XLSX: xlsx.xlsx,
    sniff.EPUB: epub.epub,
    sniff.EML: eml.eml,
    sniff.HWP: hwp.hwp,
    sniff.HWPX: hwp.hwpx,
}
_LEGACY = frozenset({sniff.DOC, sniff.XLS, sniff.PPT, sniff.RTF, sniff.ODT})
SUPPORTED = frozenset(READERS) | _LEGACY
"""Media types that some reader takes; `sniff` names them."""

_NEARLY_NOTHING = {
    **dict.fromkeys(
        (sniff.DOCX, sniff.PPTX, sniff.XLSX, sniff.EPUB, sniff.HWPX, sniff.HWP), (0, 3)
    ),
    **dict.fromkeys(_LEGACY, (0, 3)),
    sniff.HTML: (20_480, 20),
}
"""Media type → (only for files of more bytes than this, fewest letters)."""

LETTERS_SURE = 64
"""More than any of them asks for: then nobody goes on counting."""


def parse(job: ParseJob) -> Iterator[Section]:
    """The document's sections, sanitised, none without visible text, in order.

    Raises DocumentRejected (encrypted, empty, needs_ocr, unsupported_type, corrupt,
    too_little_text, decompression_bomb, parser_memory): at the first step or, as some verdicts
    need the whole file, at the last.
    """
    if job.size_bytes == 0 or job.path.stat().st_size == 0:
        raise DocumentRejected("The file has no bytes.", code="empty")
    media_type, reader = _reader(job)
    letters = 0
    # A file of text whose every block is blank still has to be told from one that has none.
    for section in reader(job.path):
        clean = sanitise(section.text)
        if not clean:
            continue
        if letters < LETTERS_SURE:
            found = (char for char in clean[:4096] if char.isalnum())
            letters += sum(1 for _ in islice(found, LETTERS_SURE))
        header = sanitise(section.header) if section.header else ""
        yield replace(section, text=clean, section=sanitise(section.section), header=header)
    _check(media_type, job.size_bytes, letters)


def _check(media_type: str, size_bytes: int, letters: int) -> None:
    above, fewest = _NEARLY_NOTHING.get(media_type, (0, 0))
    if size_bytes > above and letters < fewest:
        raise DocumentRejected(
            f"{letters} letters came out of {size_bytes:,} bytes.",
            code="too_little_text" if letters else "empty",
        )
    if letters == 0:
        raise DocumentRejected("There is not one letter or digit in it.", code="empty")


def _reader(job: ParseJob) -> tuple[str, Reader]:
    media_type = job.media_type
    if not media_type:
        with job.path.open("rb") as stream:
            media_type = sniff.sniff(stream.read(sniff.HEAD_BYTES), job.filename)
    if media_type == sniff.ZIP:
        media_type = _look_into_zip(job.path)
    elif media_type == sniff.OLE:
        media_type = _look_into_ole(job.path)
    if media_type == sniff.ENCRYPTED:
        raise DocumentRejected("The office document needs a password.", code="encrypted")
    if media_type in _LEGACY:
        return media_type, lambda path: legacy.legacy(path, media_type)
    reader = READERS.get(media_type)
    if reader is None:
        raise DocumentRejected(f"No reader for {media_type}.", code="unsupported_type")
    return media_type, reader


def _look_into_zip(path: Path) -> str:
    """A package whose telling members lie behind big pictures."""
    with package.Package(path) as zipped:
        for name, kind in (
            ("word/document.xml", sniff.DOCX),
            ("ppt/presentation.xml", sniff.PPTX),
            ("xl/workbook.xml", sniff.XLSX),
            ("Contents/section0.xml", sniff.HWPX),
            ("META-INF/container.xml", sniff.EPUB),
        ):
            if name in zipped:
                return kind
    return sniff.ZIP


def _look_into_ole(path: Path) -> str:
    import olefile

    try:
        with olefile.OleFileIO(str(path)) as ole:
            for name, kind in (
                ("EncryptedPackage", sniff.ENCRYPTED),
                ("FileHeader", sniff.HWP),
                ("WordDocument", sniff.DOC),
                ("Workbook", sniff.XLS),
                ("PowerPoint Document", sniff.PPT),
            ):
                if ole.exists(name):
                    return kind
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise DocumentRejected(f"The OLE container is damaged: {error}", code="corrupt") from None
    return sniff.OLE
