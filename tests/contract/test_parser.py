"""One suite for the port `Parser`, over the inline double and the sandbox."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from unjam.core.chunk import Chunk
from unjam.core.errors import DocumentFailed, DocumentRejected
from unjam.core.ports import ParseJob, Parser
from unjam.pipeline.inline import InlineParser
from unjam.pipeline.sandbox import SandboxParser
from unjam.pipeline.sniff import HEAD_BYTES, sniff

JobOf = Callable[..., ParseJob]


@pytest.fixture(params=["inline", "sandbox"])
async def parser(request: pytest.FixtureRequest) -> AsyncIterator[Parser]:
    made: Parser = InlineParser() if request.param == "inline" else SandboxParser(parallel=2)
    yield made
    await made.close()


@pytest.fixture
def job_of(tmp_path: Path) -> JobOf:
    def make(content: bytes, filename: str = "a.txt", **changes: object) -> ParseJob:
        path = tmp_path / "blob"
        path.write_bytes(content)
        fields: dict[str, object] = {
            "path": path,
            "filename": filename,
            "media_type": sniff(content[:HEAD_BYTES], filename),
            "size_bytes": len(content),
            "chunk_tokens": 128,
            "overlap_tokens": 16,
            "tokenizer": "openai:cl100k_base",
            "memory_bytes": 512 << 20,
            "cpu_s": 60.0,
            "wall_s": 60.0,
            "output_bytes": 64 << 20,
        }
        return ParseJob(**{**fields, **changes})  # type: ignore[arg-type]

    return make


async def all_of(parser: Parser, job: ParseJob) -> list[Chunk]:
    chunks: list[Chunk] = []
    async for window in parser.chunks(job):
        assert 0 < len(window) <= 256
        chunks.extend(window)
    return chunks


async def test_text_comes_back_as_chunks_in_order(parser: Parser, job_of: JobOf) -> None:
    text = "".join(f"Sentence number {n} speaks of 창고 {n}. " for n in range(4000))
    chunks = await all_of(parser, job_of(text.encode()))
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert len(chunks) > 256, "more than one window"
    assert all(
        chunk.tokens <= 128 and text[chunk.start : chunk.end] == chunk.text for chunk in chunks
    )
    assert "창고 3999." in chunks[-1].text


async def test_pages_and_sections_travel(parser: Parser, job_of: JobOf) -> None:
    rows = b"# Guide\n\n## Water\n\nBring two litres.\n"
    (chunk,) = await all_of(parser, job_of(rows, "guide.md"))
    assert (chunk.page, chunk.section) == (None, "Guide")
    assert "Bring two litres." in chunk.text


@pytest.mark.parametrize(
    ("content", "filename", "code"),
    [
        (b"", "a.txt", "empty"),
        (b" \n\t\n", "a.txt", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "a.png", "unsupported_type"),
        (b"%PDF-1.7\n1 0 obj <<", "a.pdf", "corrupt"),
        (b"PK\x03\x04" + b"word/document.xml" * 9, "a.docx", "corrupt"),
    ],
)
async def test_a_rejection_has_its_name(
    parser: Parser, job_of: JobOf, content: bytes, filename: str, code: str
) -> None:
    with pytest.raises(DocumentRejected) as caught:
        await all_of(parser, job_of(content, filename))
    assert caught.value.code == code
    assert caught.value.detail


async def test_too_much_text_is_refused(parser: Parser, job_of: JobOf) -> None:
    with pytest.raises(DocumentFailed) as caught:
        await all_of(parser, job_of(b"word " * 100_000, output_bytes=100_000))
    assert caught.value.code == "parser_output"


async def test_a_zip_bomb_is_named(parser: Parser, job_of: JobOf) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("word/document.xml", bytes(64 << 20))
    with pytest.raises(DocumentRejected) as caught:
        await all_of(parser, job_of(buffer.getvalue(), "a.docx"))
    assert caught.value.code == "decompression_bomb"


async def test_a_reader_that_stops_early_leaves_the_parser_usable(
    parser: Parser, job_of: JobOf
) -> None:
    stream = parser.chunks(job_of(b"One more line of text.\n" * 200_000))
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]
    assert await all_of(parser, job_of(b"Still here."))
