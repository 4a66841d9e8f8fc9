"""The sandbox: what a child may not do, whose fault its end is, and what outlives what."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from unjam.core.chunk import Chunk
from unjam.core.errors import (
    DependencyDown,
    DocumentFailed,
    DocumentRejected,
    SetupError,
    WorkerUnfit,
)
from unjam.core.ports import ParseJob
from unjam.pipeline.job import FAULT
from unjam.pipeline.sandbox import SandboxParser

MIB = 1 << 20


@pytest.fixture
async def parser(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SandboxParser]:
    monkeypatch.setenv("UNJAM_TESTING", "1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret-of-the-worker")
    made = SandboxParser(parallel=4)
    yield made
    await made.close()


def job(tmp_path: Path, text: str, *, media_type: str = FAULT, **changes: object) -> ParseJob:
    path = tmp_path / f"blob-{abs(hash(text[:100]))}"
    path.write_text(text)
    fields: dict[str, object] = {
        "path": path, "filename": "a.txt", "media_type": media_type, "size_bytes": len(text),
        "chunk_tokens": 64, "overlap_tokens": 0, "tokenizer": "openai:cl100k_base",
        "memory_bytes": 256 * MIB, "cpu_s": 30.0, "wall_s": 30.0, "output_bytes": 64 * MIB,
    }  # fmt: skip
    return ParseJob(**{**fields, **changes})  # type: ignore[arg-type]


async def all_of(parser: SandboxParser, job: ParseJob) -> list[Chunk]:
    return [chunk async for window in parser.chunks(job) for chunk in window]


async def until(condition: object, deadline_s: float = 10.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


def children_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("order", "limits", "code"),
    [
        ("loop", {"cpu_s": 1.0}, "parser_timeout"),
        ("sleep", {"wall_s": 0.3}, "parser_timeout"),
        ("memory", {"memory_bytes": 64 * MIB}, "parser_memory"),
        ("segfault", {}, "parser_crashed"),
        ("exit", {}, "parser_crashed"),
    ],
)
async def test_a_misbehaving_child_is_its_document_s_error(
    parser: SandboxParser, tmp_path: Path, order: str, limits: dict[str, object], code: str
) -> None:
    with pytest.raises(DocumentFailed) as caught:
        await all_of(parser, job(tmp_path, order, **limits))
    assert caught.value.code == code
    zygote = parser.pid
    assert zygote is not None
    await until(lambda: not children_of(zygote))
    assert await all_of(parser, job(tmp_path, "All is well again.")), "the next one is unharmed"
    assert parser.pid == zygote


async def test_the_evidence_is_in_the_detail(parser: SandboxParser, tmp_path: Path) -> None:
    with pytest.raises(DocumentFailed) as caught:
        await all_of(parser, job(tmp_path, "segfault"))
    assert "signal 11" in caught.value.detail
    assert "MiB resident" in caught.value.detail
    evidence = caught.value.evidence
    assert evidence["signal"] == "SIGSEGV"
    assert evidence["max_rss_bytes"] > MIB
    assert 0 <= evidence["cpu_s"] < 60
    assert evidence["memory_cap_bytes"] > 0


async def test_what_the_child_says_itself_comes_with_its_resources(
    parser: SandboxParser, tmp_path: Path
) -> None:
    with pytest.raises(DocumentFailed) as killed:
        await all_of(parser, job(tmp_path, "sleep", wall_s=0.3))
    assert killed.value.evidence["signal"] == "SIGKILL"
    assert killed.value.evidence["wall_limit_s"] == 0.3
    with pytest.raises(DocumentFailed) as starved:
        await all_of(parser, job(tmp_path, "memory", memory_bytes=64 * MIB))
    assert starved.value.evidence["max_rss_bytes"] > 8 * MIB
    with pytest.raises(DocumentRejected) as refused:
        await all_of(parser, job(tmp_path, "", media_type="text/plain"))
    assert refused.value.evidence["exit_status"] == 0


async def test_a_child_cannot_write_files(parser: SandboxParser, tmp_path: Path) -> None:
    target = tmp_path / "written"
    with pytest.raises(DocumentFailed):
        await all_of(parser, job(tmp_path, f"write {target}"))
    assert not target.exists() or target.stat().st_size == 0


async def test_sigterm_to_a_child_alone_is_not_the_document_s_error(
    parser: SandboxParser, tmp_path: Path
) -> None:
    """Terminated in mid-stream, the parse is done again; no chunk is missing or doubled."""
    text = "".join(f"Line {n} of the ledger. " for n in range(60_000))
    seen: list[Chunk] = []
    killed = 0
    async for window in parser.chunks(job(tmp_path, text, media_type="text/plain")):
        seen.extend(window)
        assert parser.pid is not None
        if killed < 2:
            for pid in children_of(parser.pid):
                os.kill(pid, signal.SIGTERM)
                killed += 1
    assert killed == 2
    assert [chunk.index for chunk in seen] == list(range(len(seen)))
    assert "Line 59999 of" in seen[-1].text


async def test_always_terminated_is_given_up_after_three(
    parser: SandboxParser, tmp_path: Path
) -> None:
    with pytest.raises(DocumentFailed) as caught:
        await all_of(parser, job(tmp_path, "term"))
    assert caught.value.code == "processing_error"
    assert "3 times" in caught.value.detail


async def test_a_dead_zygote_is_replaced_and_the_parse_done_again(
    parser: SandboxParser, tmp_path: Path
) -> None:
    text = "".join(f"Row {n} stays. " for n in range(60_000))
    seen: list[Chunk] = []
    first = None
    async for window in parser.chunks(job(tmp_path, text, media_type="text/plain")):
        seen.extend(window)
        if first is None:
            first = parser.pid
            assert first is not None
            orphans = children_of(first)
            os.kill(first, signal.SIGKILL)
            await until(lambda: not any(is_running(pid) for pid in orphans))  # noqa: B023
    assert parser.pid != first
    assert [chunk.index for chunk in seen] == list(range(len(seen)))


async def test_signals_for_the_worker_do_not_end_the_zygote(
    parser: SandboxParser, tmp_path: Path
) -> None:
    await parser.warm_up()
    assert parser.pid is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(parser.pid, number)
    pid = parser.pid
    assert await all_of(parser, job(tmp_path, "Still parsing."))
    assert parser.pid == pid
    assert os.getsid(pid) == pid != os.getsid(0)


async def test_the_zygote_is_single_threaded_titled_and_knows_no_secrets(
    parser: SandboxParser, tmp_path: Path
) -> None:
    await parser.warm_up("openai:cl100k_base")
    assert await all_of(parser, job(tmp_path, "Warm."))
    assert parser.zygote_threads == 1
    assert len(list(Path(f"/proc/{parser.pid}/task").iterdir())) == 1, (
        "after loading a tokenizer, too"
    )
    line = Path(f"/proc/{parser.pid}/cmdline").read_bytes().replace(b"\0", b" ")
    assert b"unjam parse" in line
    assert b"rq worker" not in line
    assert Path(f"/proc/{parser.pid}/comm").read_text().strip() == "unjam parse"
    assert b"secret-of-the-worker" not in Path(f"/proc/{parser.pid}/environ").read_bytes()


async def test_a_slow_reader_stops_the_child_and_costs_no_wall_time(
    parser: SandboxParser, tmp_path: Path
) -> None:
    text = "".join(f"Backpressure {n} holds the writer. " for n in range(400_000))
    stream = parser.chunks(job(tmp_path, text, media_type="text/plain", wall_s=20.0))
    first = await anext(stream)
    assert parser.pid is not None
    (child,) = children_of(parser.pid)

    def cpu() -> int:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def asleep() -> bool:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    await until(asleep)
    spent = cpu()
    await asyncio.sleep(0.5)
    assert cpu() - spent <= 5, "it waits for us"
    rest = [chunk async for window in stream for chunk in window]
    assert rest[-1].end > 12_000_000
    assert first[0].index == 0


async def test_many_documents_at_once(parser: SandboxParser, tmp_path: Path) -> None:
    jobs = [job(tmp_path, f"Document {n} says {n * n}.") for n in range(60)]
    results = await asyncio.gather(*(all_of(parser, one) for one in jobs))
    assert [chunks[0].text for chunks in results] == [
        f"Document {n} says {n * n}." for n in range(60)
    ]


async def test_a_waiting_reader_holds_no_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNJAM_TESTING", "1")
    parser = SandboxParser(parallel=1)
    try:
        text = "".join(f"A very long report {n}. " for n in range(400_000))
        huge = job(tmp_path, text, media_type="text/plain")
        stream = parser.chunks(huge)
        await anext(stream)
        async with asyncio.timeout(20):
            assert await all_of(parser, job(tmp_path, "A short note."))
        assert [chunk async for window in stream for chunk in window][-1].end > 7_000_000
    finally:
        await parser.close()


async def test_an_abandoned_parse_leaves_no_child(parser: SandboxParser, tmp_path: Path) -> None:
    task = asyncio.create_task(all_of(parser, job(tmp_path, "sleep")))
    await until(lambda: parser.pid is not None and bool(children_of(parser.pid)))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert parser.pid is not None
    zygote = parser.pid
    await until(lambda: not children_of(zygote))


async def test_a_missing_original_is_a_dependency_s_trouble(
    parser: SandboxParser, tmp_path: Path
) -> None:
    gone = job(tmp_path, "x", media_type="text/plain")
    gone.path.unlink()
    with pytest.raises(DependencyDown) as caught:
        await all_of(parser, gone)
    assert caught.value.code == "blob_store_down"


async def test_a_missing_tokenizer_is_a_setup_error(parser: SandboxParser, tmp_path: Path) -> None:
    with pytest.raises(SetupError):
        await all_of(parser, job(tmp_path, "x y", tokenizer="local:/nowhere/tokenizer.json"))


async def test_a_closed_parser_says_so(tmp_path: Path) -> None:
    closed = SandboxParser()
    await closed.close()
    with pytest.raises(SetupError):
        await all_of(closed, job(tmp_path, "x"))


async def test_a_parser_that_does_not_start_is_the_worker_s_trouble_and_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = SandboxParser(python="/bin/false")
    for _ in range(3):
        with pytest.raises(WorkerUnfit) as caught:
            await all_of(broken, job(tmp_path, "x y", media_type="text/plain"))
        assert 0 < caught.value.retry_after_s <= 1.0
    assert broken.pid is None
    monkeypatch.setattr(broken, "_python", sys.executable)
    async with asyncio.timeout(20):
        while True:  # it goes on by itself
            try:
                chunks = await all_of(broken, job(tmp_path, "x y", media_type="text/plain"))
                break
            except WorkerUnfit as error:
                await asyncio.sleep(error.retry_after_s)
    assert [chunk.text for chunk in chunks] == ["x y"]
    await broken.close()


def test_a_worker_whose_folder_was_deleted_still_parses(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "text").write_text("some words")
    script = f"""
import asyncio, os
from pathlib import Path
from unjam.core.ports import ParseJob
from unjam.pipeline.sandbox import SandboxParser
os.rmdir(os.getcwd())
async def main():
    parser = SandboxParser()
    job = ParseJob(Path({str(tmp_path / "text")!r}), "a", "text/plain", 10, 64, 0,
                   "openai:cl100k_base", 1 << 28, 60, 60, 1 << 20)
    print([c.text async for w in parser.chunks(job) for c in w])
    await parser.close()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path / "gone",
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "['some words']\n", done.stderr


async def test_when_the_worker_is_killed_nothing_outlives_it(tmp_path: Path) -> None:
    script = f"""
import asyncio, sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from unjam.core.ports import ParseJob
from unjam.pipeline.sandbox import SandboxParser
async def main():
    parser = SandboxParser()
    await parser.warm_up()
    path = Path({str(tmp_path)!r}) / "order"
    path.write_text("sleep")
    job = ParseJob(path, "a", {FAULT!r}, 5, 64, 0, "openai:cl100k_base", 1 << 28, 60, 60, 1 << 20)
    print(parser.pid, flush=True)
    async for _ in parser.chunks(job): pass
asyncio.run(main())
"""
    env = {**os.environ, "UNJAM_TESTING": "1"}
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=env
    ) as worker:
        assert worker.stdout is not None
        zygote = int(await asyncio.to_thread(worker.stdout.readline))
        await until(lambda: bool(children_of(zygote)))
        family = [zygote, *children_of(zygote)]
        worker.kill()
        await until(lambda: not any(is_running(pid) for pid in family))


@pytest.mark.slow
async def test_a_small_document_costs_milliseconds(parser: SandboxParser, tmp_path: Path) -> None:
    small = job(tmp_path, "A short note about nothing much. " * 30, media_type="text/plain")
    await all_of(parser, small)
    began = time.perf_counter()
    for _ in range(50):
        await all_of(parser, small)
    each_ms = (time.perf_counter() - began) / 50 * 1e3
    print(f"\n{each_ms:.2f} ms a document: fork, parse, chunk")
    assert each_ms < 60, "an order of magnitude above an idle machine's"
