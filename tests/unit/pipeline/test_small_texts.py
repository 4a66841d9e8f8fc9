"""Small texts that wait together share one child; each still meets its own end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from unjam.core.chunk import Chunk
from unjam.core.errors import DocumentFailed, DocumentRejected
from unjam.core.ports import ParseJob
from unjam.pipeline import sandbox
from unjam.pipeline.fault import FAULT
from unjam.pipeline.inline import InlineParser
from unjam.pipeline.sandbox import SandboxParser, is_small_text

MIB = 1 << 20


def job(path: Path, media_type: str = "text/plain", wall_s: float = 30.0) -> ParseJob:
    size = path.stat().st_size
    return ParseJob(
        *(path, path.name, media_type, size, 64, 8, "openai:cl100k_base"),
        *(512 * MIB, 20.0, wall_s, 64 * MIB),
    )


@pytest.fixture
async def parser() -> AsyncIterator[SandboxParser]:
    made = SandboxParser()
    yield made
    await made.close()


async def parsed(parser: SandboxParser | InlineParser, one: ParseJob) -> list[Chunk]:
    return [chunk async for window in parser.chunks(one) for chunk in window]


def texts(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"t{n}.txt" for n in range(count)]
    for n, path in enumerate(paths):
        path.write_text(f"Note {n}. " + "The pump is serviced weekly. 펌프를 정비한다. " * (n + 1))
    return paths


async def test_they_give_what_each_alone_would_give(parser: SandboxParser, tmp_path: Path) -> None:
    jobs = [job(path) for path in texts(tmp_path, 40)]
    together = await asyncio.gather(*(parsed(parser, one) for one in jobs))
    assert together == [await parsed(InlineParser(), one) for one in jobs]


async def test_an_empty_one_is_rejected_alone(parser: SandboxParser, tmp_path: Path) -> None:
    paths = texts(tmp_path, 8)
    paths[3].write_text(" \n ")  # bytes, but no text
    ends = await asyncio.gather(
        *(parsed(parser, job(path)) for path in paths), return_exceptions=True
    )
    assert [n for n, end in enumerate(ends) if isinstance(end, BaseException)] == [3]
    assert isinstance(ends[3], DocumentRejected)
    assert ends[3].code == "empty"


@pytest.mark.parametrize(
    ("order", "code"), [("sleep", "parser_timeout"), ("segfault", "parser_crashed")]
)
async def test_one_that_takes_the_child_down_is_to_blame_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, order: str, code: str
) -> None:
    monkeypatch.setenv("UNJAM_TESTING", "1")
    parser = SandboxParser()
    jobs = [job(path, wall_s=2.0) for path in texts(tmp_path, 8)]
    jobs[3].path.write_text(order)
    jobs[3] = replace(jobs[3], media_type=FAULT)
    try:
        await parser.warm_up(jobs[0].tokenizer)
        ends = await asyncio.gather(*(parsed(parser, one) for one in jobs), return_exceptions=True)
    finally:
        await parser.close()
    assert [n for n, end in enumerate(ends) if isinstance(end, BaseException)] == [3]
    assert isinstance(ends[3], DocumentFailed)
    assert ends[3].code == code


def children_of(parser: SandboxParser) -> list[str]:
    return Path(f"/proc/{parser.pid}/task/{parser.pid}/children").read_text().split()


async def test_their_child_stays_for_the_next_ones_until_it_has_read_enough(
    parser: SandboxParser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jobs = [job(path) for path in texts(tmp_path, 6)]
    expected = [await parsed(InlineParser(), one) for one in jobs]

    async def read_by() -> str:
        assert await asyncio.gather(*(parsed(parser, one) for one in jobs)) == expected
        (child,) = children_of(parser)
        return child

    first = await read_by()
    assert await read_by() == first
    monkeypatch.setattr(sandbox, "CHILD_TEXTS", 12)
    assert await asyncio.gather(*(parsed(parser, one) for one in jobs)) == expected
    async with asyncio.timeout(10):
        while first in children_of(parser):
            await asyncio.sleep(0.01)


async def test_a_text_that_fails_in_it_is_read_again_alone_and_ends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNJAM_TESTING", "1")
    parser = SandboxParser()
    jobs = [replace(job(path), memory_bytes=64 * MIB) for path in texts(tmp_path, 4)]
    jobs[1].path.write_text("memory")
    jobs[1] = replace(jobs[1], media_type=FAULT)
    try:
        await parser.warm_up(jobs[0].tokenizer)
        ends = await asyncio.gather(*(parsed(parser, one) for one in jobs), return_exceptions=True)
        assert [n for n, end in enumerate(ends) if isinstance(end, BaseException)] == [1]
        assert isinstance(ends[1], DocumentFailed)
        assert ends[1].code == "parser_memory"
        async with asyncio.timeout(10):
            while children_of(parser):
                await asyncio.sleep(0.01)
    finally:
        await parser.close()


async def test_a_child_that_was_killed_while_it_waited_is_replaced(
    parser: SandboxParser, tmp_path: Path
) -> None:
    jobs = [job(path) for path in texts(tmp_path, 6)]
    before = await asyncio.gather(*(parsed(parser, one) for one in jobs))
    (child,) = children_of(parser)
    os.kill(int(child), signal.SIGKILL)
    after = await asyncio.gather(*(parsed(parser, one) for one in jobs))
    assert after == before


def test_only_text_that_memory_safe_code_reads_shares(tmp_path: Path) -> None:
    path = texts(tmp_path, 1)[0]
    assert is_small_text(job(path))
    assert not is_small_text(job(path, "application/pdf"))
    assert not is_small_text(job(path, "text/html"))
    path.write_bytes(b"x" * MIB)
    assert not is_small_text(job(path))
