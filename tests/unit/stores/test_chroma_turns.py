"""Who asks Chroma next: each ``Turns`` here stands for a process of the same host."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from pathlib import Path

import pytest

from unjam.stores import chroma_turns
from unjam.stores.chroma_turns import LATELY_S, Turns


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes because it has waited long enough."""
    monkeypatch.setattr(chroma_turns, "TURN_WAIT_S", 3600.0)
    monkeypatch.setattr(chroma_turns, "QUERY_WAIT_S", 3600.0)


async def write(turns: Turns, name: str, said: list[str], may_end: asyncio.Event) -> None:
    async with turns.write():
        said.append(f"{name} begins")
        await may_end.wait()
        said.append(f"{name} ends")


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> asyncio.Semaphore:
    """Released whenever somebody looks in vain."""
    looks, really = asyncio.Semaphore(0), chroma_turns._try

    def look(lock: int, kind: int) -> bool:
        got = really(lock, kind)
        if not got:
            looks.release()
        return got

    monkeypatch.setattr(chroma_turns, "_try", look)
    return looks


async def looks_in_vain(refused: asyncio.Semaphore) -> None:
    for _ in range(10):
        await refused.acquire()


@pytest.mark.usefixtures("patient")
async def test_one_writer_at_a_time(tmp_path: Path, refused: asyncio.Semaphore) -> None:
    said: list[str] = []
    may_end = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for name in ("one", "other"):
            tasks.create_task(write(Turns(tmp_path), name, said, may_end))
        await looks_in_vain(refused)
        assert said == ["one begins"]
        may_end.set()
    assert said == ["one begins", "one ends", "other begins", "other ends"]


@pytest.mark.usefixtures("patient")
async def test_a_writer_lets_queries_end_that_have_begun(
    tmp_path: Path, refused: asyncio.Semaphore
) -> None:
    said: list[str] = []
    may_end = asyncio.Event()
    may_end.set()
    searching = Turns(tmp_path)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        with searching.query():
            with searching.query():
                tasks.create_task(write(Turns(tmp_path), "writer", said, may_end))
                await looks_in_vain(refused)
            await looks_in_vain(refused)
            assert said == []
    assert said == ["writer begins", "writer ends"]


async def test_whoever_is_frozen_delays_others_only_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chroma_turns, "TURN_WAIT_S", 0.01)
    said: list[str] = []
    may_end = asyncio.Event()
    may_end.set()
    with Turns(tmp_path).query():
        async with asyncio.timeout(10), Turns(tmp_path).write():
            await write(Turns(tmp_path), "other", said, may_end)
    assert said == ["other begins", "other ends"]


@pytest.mark.usefixtures("patient")
async def test_a_writer_that_was_cancelled_holds_up_nobody(
    tmp_path: Path, refused: asyncio.Semaphore
) -> None:
    turns, said = Turns(tmp_path), list[str]()
    async with asyncio.timeout(10):
        with Turns(tmp_path).query():
            one = asyncio.create_task(write(turns, "one", said, asyncio.Event()))
            await looks_in_vain(refused)  # it has the turn, and waits for the query
            one.cancel()
            await asyncio.wait([one])
        async with Turns(tmp_path).write():
            assert said == []


def test_writers_see_that_somebody_searches(tmp_path: Path) -> None:
    writer = Turns(tmp_path)
    (tmp_path / "chroma.queries").touch()
    long_ago = time.time() - 2 * LATELY_S
    os.utime(tmp_path / "chroma.queries", (long_ago, long_ago))
    assert not writer.searched_lately
    with Turns(tmp_path).query():
        assert writer.searched_lately
    assert writer.searched_lately


@pytest.mark.usefixtures("patient")
async def test_a_folder_that_knows_no_locks_delays_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(chroma_turns.fcntl, "flock", no_locks)
    async with asyncio.timeout(10), Turns(tmp_path).write():
        with Turns(tmp_path).query():
            pass


@pytest.mark.parametrize("folder", [None, Path("/proc/none")])
async def test_where_there_is_no_such_folder_everybody_goes(folder: Path | None) -> None:
    turns = Turns(folder)
    async with asyncio.timeout(10), turns.write(), Turns(folder).write():
        with turns.query():
            assert not turns.searched_lately
    turns.close()
