"""The type comes from the bytes; the extension only decides among kinds of text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from unjam.pipeline import sniff as s
from unjam.pipeline.parse import SUPPORTED
from unjam.pipeline.sanitise import sanitise

CORPUS = Path(__file__).parents[3] / "examples" / "corpus"
BY_SUFFIX = {
    "pdf": s.PDF, "docx": s.DOCX, "pptx": s.PPTX, "xlsx": s.XLSX, "epub": s.EPUB, "eml": s.EML,
    "html": s.HTML, "md": s.MARKDOWN, "txt": s.PLAIN, "csv": s.CSV, "json": s.JSON, "py": s.SOURCE,
    "hwpx": s.HWPX,
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_corpus(path: Path) -> None:
    head = path.read_bytes()[: s.HEAD_BYTES]
    kind = path.suffix[1:]
    assert s.sniff(head, path.name) == BY_SUFFIX[kind]
    if kind not in ("txt", "md", "csv", "py"):
        assert s.sniff(head, "liar.txt") == BY_SUFFIX[kind], "its name does not matter"


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (b"", "x", s.PLAIN),
        (b"junk\n%PDF-1.4\n", "x", s.PDF),
        (b"\x7fELF" + bytes(60), "notes.txt", "application/x-elf"),
        (b"BMW is a maker of cars.\n", "x.txt", s.PLAIN),
        (b"MZ: the letters of a name\n", "x.txt", s.PLAIN),
        (bytes(range(256)) * 8, "x.txt", s.UNKNOWN),
        ("가나다라 마바사".encode("cp949"), "x.txt", s.PLAIN),
        ("hello there".encode("utf-16"), "x.txt", s.PLAIN),
        (("가나다 라마바 사아자, " * 20).encode("utf-16-le"), "x", s.PLAIN),
        (b"a,b,c\n1,2,3\n4,5,6\n7,8,9\n", "x", s.CSV),
        (b"From: a@b\nSubject: hi\n\nbody", "x", s.EML),
        (b"From: the desk\nof a poet\n", "x.txt", s.PLAIN),
        (b"# T\n\n```\ncode\n```\n", "x", s.MARKDOWN),
        (b"<!DOCTYPE html><p>x", "x.txt", s.HTML),
        (b'{"a": 1}', "x", s.JSON),
        (b"[Chorus]\nla la la\n", "song.txt", s.PLAIN),
        (b"#!/bin/sh\necho hi\n", "run", s.SOURCE),
        (b"def f(): pass\n", "a.py", s.SOURCE),
        (b"{\\rtf1 x}", "x.doc", s.RTF),
        ("가".encode() * 40_000, "x.txt", s.PLAIN),
    ],
)  # fmt: skip
def test_bytes(head: bytes, name: str, kind: str) -> None:
    assert s.sniff(head[: s.HEAD_BYTES], name) == kind


def test_every_kind_that_is_named_has_a_reader_or_is_refused_by_name() -> None:
    named = {value for key, value in vars(s).items() if key.isupper() and isinstance(value, str)}
    assert named - SUPPORTED == {s.ZIP, s.OLE, s.ENCRYPTED, s.UNKNOWN}


def test_sniffing_imports_next_to_nothing() -> None:
    code = "import sys; import unjam.pipeline.sniff; print(len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("\u1112\u1161\u11ab", "한"),
        ("a\x00b\ud800c", "abc"),
        ("x\r\ny\rz\u2028w", "x\ny\nz\nw"),
        ("ﬁve\u00a0ｗｉｄｅ", "five wide"),
        ("tab\tstays\x07", "tab\tstays"),
        ("e\u00ad\u0301", "é"),
    ],
)
def test_sanitise(dirty: str, clean: str) -> None:
    assert sanitise(dirty) == clean
    assert sanitise(clean) == clean
