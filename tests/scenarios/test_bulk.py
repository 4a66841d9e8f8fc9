"""Back-fills: many texts through the lane ``rag_bulk``, with deaths on the way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.stack import FAST, model_of
from unjam.app.bulk.run import BulkOptions, BulkReport, Telling, bulk
from unjam.app.bulk.texts import Reading
from unjam.core.document import RUNNING
from unjam.queue.lanes import BULK
from unjam.stores.bulk_source import BulkSource
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Process, Stack
from unjam.testing.wait import until

pytestmark = pytest.mark.timeout(400)


def texts(path: Path, count: int, *, odd: str = "") -> Path:
    rows = [
        json.dumps(
            {
                "id": f"note-{n}",
                "text": f"Note {n} tells of the mill of number {n}.",
                "user_id": f"u{n % 3}",
                "metadata": {"n": n},
            }
        )
        for n in range(count)
    ]
    path.write_text("\n".join(rows) + "\n" + odd)
    return path


async def run(stack: Stack, source: Path, **options: Any) -> BulkReport:
    reading = Reading(BulkSource.at(str(source)))
    env = stack.environment()
    with pytest.MonkeyPatch.context() as patched:  # the workers are children of this process
        for name, value in env.items():
            patched.setenv(name, value)
        return await bulk(stack.settings, BulkOptions(reading, **options), Telling())


async def test_rows_become_searchable_and_a_second_run_finds_nothing_to_do(
    stack: Stack, tmp_path: Path, fake_openai: FakeOpenAI
) -> None:
    source = texts(tmp_path / "notes.jsonl", 40, odd='{"id": "x", "body": "lost"}\n')
    report = await run(stack, source, workers=1)
    assert (report.new, report.states, report.open) == (40, {"searchable": 40}, 0)
    assert [u.where for u in report.unfit] == [f"{source}, line 41"]
    assert "there are: body, id" in report.unfit[0].why
    assert not report.whole
    assert report.equation.missing == 0 and report.equation.accepted == 40
    paid = fake_openai.stats()["texts"]
    page = await stack.services.ledger.list(limit=100)
    assert {d.filename for d in page.items} == {f"note-{n}" for n in range(40)}
    assert {d.lane for d in page.items} == {BULK}
    assert Counter(d.user_id for d in page.items) == {"u0": 14, "u1": 13, "u2": 13}
    assert {d.metadata["n"] for d in page.items} == set(range(40))

    texts(source, 42)
    again = await run(stack, source, workers=1)
    assert (again.new, again.done_before, again.states) == (2, 40, {"searchable": 2})
    assert again.whole
    assert fake_openai.stats()["texts"] == paid + 2


def children_of(pid: int, word: str) -> list[int]:
    """Descendants of *pid* whose command line holds *word*."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found: list[int] = []
    for one in parents:
        above = one
        while above in parents and above != pid:
            above = parents[above]
        if above == pid and one != pid and word in line_of(one):
            found.append(one)
    return found


def line_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


async def kill_one_on_the_way(stack: Stack, command: Process, word: str, some: int) -> None:
    """After *some* documents are searchable, kill -9 a worker."""
    ledger = stack.services.ledger

    async def under_way() -> bool:
        assert command.popen.poll() is None, command.output()
        return (await ledger.equation()).searchable >= some

    await until("some searchable", under_way, deadline_s=120)
    victims = children_of(command.pid, word)
    assert victims
    os.kill(victims[0], signal.SIGKILL)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("engine", "word"), [("local", "rq worker rag_bulk"), ("ray", "RayWorker.serve")]
)
async def test_a_worker_killed_on_the_way_costs_at_most_what_it_had_in_flight(
    reconciled: Stack, tmp_path: Path, fake_openai: FakeOpenAI, engine: str, word: str
) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="unjam[ray] is not installed")
    count = 2000
    source = texts(tmp_path / "notes.jsonl", count)
    command = reconciled.start("bulk", str(source), "--engine", engine, "--json")
    await kill_one_on_the_way(reconciled, command, word, 300)
    assert await command.ended(300) == 0, command.output()
    report = json.loads(command.output()[command.output().index("{") :])
    assert report["states"] == {"searchable": count} and report["whole"]
    equation = await reconciled.services.ledger.equation()
    assert (equation.accepted, equation.searchable, equation.missing) == (count, count, 0)
    # What the dead one had asked for and not stored yet: three requests of 32 texts.
    assert count <= fake_openai.stats()["texts"] <= count + 3 * 32


@pytest.mark.thorough
async def test_the_whole_command_killed_is_finished_by_ordinary_workers(
    stack: Stack, tmp_path: Path, fake_openai: FakeOpenAI
) -> None:
    count = 600
    source = texts(tmp_path / "notes.jsonl", count)
    fake_openai.control(latency_ms=200)
    command = stack.start("bulk", str(source), "--workers", "1")
    ledger = stack.services.ledger

    async def accepted() -> bool:
        return (await ledger.equation()).accepted == count

    await until("all accepted", accepted, deadline_s=60)
    command.popen.kill()
    await command.ended()
    fake_openai.control(latency_ms=0)
    stack.worker()
    stack.watchdog()

    async def searchable() -> bool:
        return (await ledger.equation()).searchable == count

    await until("all searchable", searchable, deadline_s=180)
    assert (await ledger.equation()).missing == 0
    assert children_of(os.getpid(), "rq worker rag_bulk") == []


@pytest.mark.thorough
async def test_uploads_find_their_share_of_the_slots_free(
    tmp_path: Path, redis_url: str, chroma_url: str, fake_openai: FakeOpenAI
) -> None:
    extra = {
        "RAG_EMBEDDING_MODEL": model_of(tmp_path),
        "RAG_MAX_CONCURRENT_JOBS": "8",
        **FAST,
    }
    fake_openai.control(latency_ms=100)
    async with Stack(
        tmp_path / "data", redis_url, chroma_url, fake_openai.url, extra=extra
    ) as stack:
        source = texts(tmp_path / "notes.jsonl", 60)
        running = asyncio.create_task(run(stack, source, workers=2, share_percent=25))
        most = 0
        while not running.done():
            counts = await stack.services.ledger.state_counts()
            most = max(most, sum(counts.get(s, 0) for s in RUNNING))
            await asyncio.wait({running}, timeout=0.01)
        assert running.result().states == {"searchable": 60}
        assert most == 2  # 25 % of 8, by both workers together


@pytest.mark.thorough
@pytest.mark.parametrize("engine", ["local", "ray"])
async def test_told_to_stop_it_hands_back_what_it_has_and_leaves_nobody(
    stack: Stack, tmp_path: Path, fake_openai: FakeOpenAI, engine: str
) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="unjam[ray] is not installed")
    source = texts(tmp_path / "notes.jsonl", 3000)
    fake_openai.control(latency_ms=100)
    command = stack.start("bulk", str(source), "--workers", "1", "--engine", engine, "--json")
    ledger = stack.services.ledger

    async def under_way() -> bool:
        assert command.popen.poll() is None, command.output()
        return (await ledger.equation()).searchable >= 20

    await until("some searchable", under_way, deadline_s=120)
    assert await command.stop(90) == 1, command.output()
    report = json.loads(command.output()[command.output().index("{") :])
    assert report["stopped"] and report["open"]
    equation = await ledger.equation()
    assert equation.running == 0 and equation.dead == 0 and equation.missing == 0
