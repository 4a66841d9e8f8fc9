"""Files made to hurt, through the sandbox with its caps: always a named end, never our death."""

from __future__ import annotations

import asyncio
import io
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF

from unjam.core.chunk import Chunk
from unjam.core.errors import DocumentFailed, DocumentRejected
from unjam.core.ports import ParseJob
from unjam.core.reasons import REASONS
from unjam.pipeline.sandbox import SandboxParser
from unjam.pipeline.sniff import HEAD_BYTES, sniff
from unjam.testing.pdf import korean_pdf

CORPUS = Path(__file__).parents[3] / "examples" / "corpus"
MIB = 1 << 20
BLAME = {"parser_crashed", "parser_timeout"}


@pytest.fixture(scope="module")
def loop_parser() -> Any:
    """One zygote for the whole module, on a loop of its own."""
    loop = asyncio.new_event_loop()
    parser = SandboxParser(parallel=2)

    async def run(path: Path, name: str, **changes: object) -> list[Chunk]:
        with path.open("rb") as stream:
            kind = sniff(stream.read(HEAD_BYTES), name)
        fields: dict[str, object] = {
            "path": path, "filename": name, "media_type": kind, "size_bytes": path.stat().st_size,
            "chunk_tokens": 256, "overlap_tokens": 32, "tokenizer": "openai:cl100k_base",
            "memory_bytes": 384 * MIB, "cpu_s": 60.0, "wall_s": 60.0, "output_bytes": 64 * MIB,
        }  # fmt: skip
        job = ParseJob(**{**fields, **changes})  # type: ignore[arg-type]
        return [chunk async for window in parser.chunks(job) for chunk in window]

    yield lambda *args, **changes: loop.run_until_complete(run(*args, **changes))
    loop.run_until_complete(parser.close())
    loop.close()


def end_of(loop_parser: Any, path: Path, name: str, **changes: object) -> str:
    """The code under which the file ends, or "text" when it gave some."""
    try:
        chunks = loop_parser(path, name, **changes)
    except (DocumentRejected, DocumentFailed) as error:
        assert error.code in REASONS
        assert error.detail
        return error.code
    assert chunks
    return "text"


def test_a_page_of_200_000_nested_tags(loop_parser: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text(
        "<html><body>" + "<div>" * 200_000 + "deep inside stands a whole sentence" + "</div>" * 9
    )
    (chunk,) = loop_parser(path, "a.html", cpu_s=20.0)
    assert "deep inside" in chunk.text


def test_xml_nested_without_end(loop_parser: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("word/document.xml", "<w>" * 500_000)
    assert end_of(loop_parser, path, "a.docx") == "decompression_bomb"


def test_json_nested_without_end(loop_parser: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    assert end_of(loop_parser, path, "a.json") == "corrupt"


def test_a_bomb_that_lies_about_its_size(loop_parser: Any, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("[Content_Types].xml", "<a/>")
        package.writestr("word/document.xml", b"<d>" + b" " * (300 * MIB) + b"</d>")
    raw = bytearray(buffer.getvalue())
    entry = raw.rfind(b"PK\x01\x02")
    raw[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    path = tmp_path / "a.docx"
    path.write_bytes(raw)
    assert end_of(loop_parser, path, "a.docx") in ("corrupt", "decompression_bomb")


def test_a_line_of_five_megabytes(loop_parser: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("한줄" * 600_000 + "x" * 3_200_000)
    chunks = loop_parser(path, "a.txt")
    assert chunks[-1].end == 600_000 * 2 + 3_200_000
    assert max(chunk.tokens for chunk in chunks) <= 256


def test_an_xlsx_of_a_million_cells_in_little_memory(loop_parser: Any, tmp_path: Path) -> None:
    rows = "".join(
        f'<row r="{n}">' + "".join(f"<c><v>{n * c}</v></c>" for c in range(1, 21)) + "</row>"
        for n in range(1, 20_001)
    )
    path = tmp_path / "a.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr(
            "xl/workbook.xml", '<workbook><sheets><sheet name="S" sheetId="1"/></sheets></workbook>'
        )
        package.writestr(
            "xl/worksheets/sheet1.xml", f"<worksheet><sheetData>{rows}</sheetData></worksheet>"
        )
    chunks = loop_parser(path, "a.xlsx", memory_bytes=96 * MIB)
    assert len(chunks) > 1000
    assert {chunk.page for chunk in chunks} == {1}


def test_truncated_files_of_every_format_are_never_a_whole_success(
    loop_parser: Any, tmp_path: Path
) -> None:
    """Half a text is a text; half a package or PDF is corrupt."""
    ends: dict[str, str] = {}
    for source in sorted(CORPUS.iterdir()):
        path = tmp_path / "half"
        path.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
        ends[source.name] = end_of(loop_parser, path, source.name)
    for name, end in ends.items():
        kind = name.rpartition(".")[2]
        allowed = {"text"} if kind in ("txt", "md", "csv", "html", "py", "eml") else {"corrupt"}
        assert end in allowed, (name, end)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_damaged_files_of_every_format_end_with_a_name(loop_parser: Any, tmp_path: Path) -> None:
    """Random bytes sprinkled over real files; a Python traceback out of a reader is a defect."""
    chance = random.Random(7)
    seen: dict[str, int] = {}
    for source in sorted(CORPUS.iterdir()):
        for _ in range(6):
            raw = bytearray(source.read_bytes())
            for _ in range(chance.choice([1, 20, 400])):
                raw[chance.randrange(len(raw))] = chance.randrange(256)
            path = tmp_path / "damaged"
            path.write_bytes(raw)
            try:
                end = end_of(loop_parser, path, source.name)
            except AssertionError as error:
                raise AssertionError(f"{source.name}: {error}") from error
            assert end not in BLAME, source.name
            seen[end] = seen.get(end, 0) + 1
    print(f"\n{seen}")
    assert seen["text"] > 20
    assert seen["corrupt"] > 20


def test_random_bytes_under_every_magic(loop_parser: Any, tmp_path: Path) -> None:
    chance = random.Random(3)
    noise = chance.randbytes(100_000)
    for magic, name in (
        (b"%PDF-1.7\n", "a.pdf"),
        (b"PK\x03\x04", "a.docx"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a.hwp"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "WordDocument".encode("utf-16-le"), "a.doc"),
        (b"{\\rtf1", "a.rtf"),
        (b"", "a.txt"),
    ):
        path = tmp_path / "noise"
        path.write_bytes(magic + noise + (b"%%EOF" if name == "a.pdf" else b""))
        end = end_of(loop_parser, path, name)
        assert end in ("corrupt", "unsupported_type", "empty", "too_little_text", "encrypted"), name


def test_a_korean_pdf_of_300_pages_cites_them(loop_parser: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(korean_pdf(300))
    chunks = loop_parser(path, "a.pdf")
    assert {chunk.page for chunk in chunks} == set(range(1, 301))
    for chunk in chunks:
        assert f"{chunk.page}쪽" in chunk.text
        assert "운송 계획" in chunk.text


def test_an_encrypted_and_an_image_pdf(loop_parser: Any, tmp_path: Path) -> None:
    from PIL import Image

    locked = FPDF()
    locked.add_page()
    locked.set_encryption(owner_password="owner", user_password="user")
    path = tmp_path / "a.pdf"
    path.write_bytes(bytes(locked.output()))
    assert end_of(loop_parser, path, "a.pdf") == "encrypted"
    scan = FPDF()
    scan.add_page()
    scan.image(Image.new("RGB", (60, 60), (9, 9, 9)), w=150)
    path.write_bytes(bytes(scan.output()))
    assert end_of(loop_parser, path, "a.pdf") == "needs_ocr"


def test_a_huge_text_in_little_memory(loop_parser: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with path.open("w") as stream:
        for number in range(60):
            stream.write(
                f"Part {number} of a long report on nothing at all, line after line.\n" * 9000
            )
    assert path.stat().st_size > 30 * MIB
    chunks = loop_parser(path, "a.txt", memory_bytes=48 * MIB, chunk_tokens=1024)
    assert "Part 59" in chunks[-1].text
