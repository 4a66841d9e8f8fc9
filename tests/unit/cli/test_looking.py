"""``unjam capacity``, ``watch``, ``logs`` and ``alerts`` as operators run them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures.web import ADMIN, WORKER, Web
from unjam.cli.capacity import verdict
from unjam.cli.logs import last_lines, time_of
from unjam.testing.wait import until

DEADLINE_S = 60


@dataclass
class Done:
    code: int
    out: str
    err: str


def environment(**given: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "UNJAM_", "ADMIN_"))}
    return {**kept, **given}


@asynccontextmanager
async def started(*arguments: str, **env: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "unjam.cli.main", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=environment(**env),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(*arguments: str, **env: str) -> Done:
    async with started(*arguments, **env) as process, asyncio.timeout(DEADLINE_S):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return Done(process.returncode or 0, out.decode(), err.decode())


async def unjam(web: Web, *arguments: str, **env: str) -> Done:
    return await run(*arguments, UNJAM_URL=web.url, ADMIN_TOKEN=ADMIN, **env)


async def live_worker(web: Web) -> None:
    await asyncio.to_thread(web.house.ledger.renew, WORKER, {}, ())


# -- capacity ---------------------------------------------------------------------------------
async def test_capacity_of_a_house_that_worked(web: Web) -> None:
    await live_worker(web)
    for n in range(3):
        document = await web.added(f"document {n}".encode(), f"{n}.txt")
        await web.house.finish(document, ["one", "two"])
    waits = await web.added(b"this one waits")
    done = await unjam(web, "capacity", "--json", "--workers", "7")
    assert done.code == 0, done
    told = json.loads(done.out)
    assert told["waiting"] == 1 and told["house"]["workers"] == 1
    assert told["basis"] == "best_seen"
    assert told["capability_per_s"] == pytest.approx(3 / 300, abs=0.001)
    assert told["chunks_per_document"] == 2
    assert told["days"] == []  # today is not over
    assert set(told["arrivals_per_s"]) == {"5m", "1h"}
    text = await unjam(web, "capacity")
    assert "arrivals" in text.out and "at least: the best of the last day" in text.out
    korean = await unjam(web, "capacity", "--lang", "ko")
    assert "처리 능력" in korean.out
    assert waits not in text.out


async def test_capacity_needs_an_operator_and_a_server(web: Web) -> None:
    assert (await run("capacity", UNJAM_URL=web.url, ADMIN_TOKEN="wrong")).code == 2
    assert (await run("capacity", "--url", "http://127.0.0.1:1")).code == 3


async def test_arrivals_are_those_of_the_ledger(web: Web) -> None:
    import time

    minute = int(time.time() // 60)
    for n in range(4):
        await web.added(f"arrival {n}".encode(), f"{n}.txt")
    found = await web.house.ledger.arrivals(minute - 60, int(time.time() // 60) + 1)
    assert sum(found.values()) == 4
    assert await web.house.ledger.arrivals(minute - 600, minute - 60) == {}


def test_exit_codes_of_capacity() -> None:
    assert verdict(None, None, "unknown") == 0
    assert verdict(0.5, 1.0, "measured") == 0
    assert verdict(0.1, 1.0, "measured") == 1
    assert verdict(-0.1, 1.0, "measured") == 2
    assert verdict(None, 0.0, "measured") == 2  # documents wait, and nothing is done
    assert verdict(0.0, 1.0, "best_seen") == 0  # all that came was done: a lower bound


# -- watch ------------------------------------------------------------------------------------
async def test_watch_once_and_as_json(web: Web) -> None:
    await live_worker(web)
    stuck = await web.added(b"waits for the endpoint", "w.txt")
    await web.house.snooze(stuck)
    dead = await web.added(b"encrypted", "d.txt")
    await web.house.park(dead)
    done = await unjam(web, "watch", "--once", "--json")
    assert done.code == 1, done
    view = json.loads(done.out)
    assert view["waiting"] == {"embedding_down": 1}
    assert view["ledger"]["dead"] == 1 and view["ready"] is True
    assert {q["name"] for q in view["queues"]} >= {"rag_processing", "rag_dlq"}
    assert [w["kind"] for w in view["workers"]] == ["worker"]
    text = await unjam(web, "watch", "--once", "--lang", "ko")
    assert "rag_processing" in text.out and "embedding_down" in text.out
    assert any("가" <= c <= "힣" for c in text.out)


async def test_watch_in_a_pipe_is_lines_until_ctrl_c(web: Web) -> None:
    await live_worker(web)
    env = {"UNJAM_URL": web.url, "ADMIN_TOKEN": ADMIN}
    async with started("watch", "--interval", "0.2", **env) as process:
        assert process.stdout is not None and process.stderr is not None
        async with asyncio.timeout(DEADLINE_S):
            first = (await process.stdout.readline()).decode()
            assert "idle" in first and "workers=1" in first and "\x1b" not in first
            document = await web.added(b"one that is found", "a.txt")
            while "queued=1" not in (await process.stdout.readline()).decode():
                pass
            await web.house.finish(document, ["text"])
            while "searchable=1" not in (await process.stdout.readline()).decode():
                pass
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
            assert b"Traceback" not in await process.stderr.read()


async def test_watch_says_when_nobody_answers(web: Web) -> None:
    away = await run("watch", "--once", "--url", "http://127.0.0.1:1")
    assert away.code == 3
    assert "api_down" in away.out and "unjam up" in away.out
    unready = await unjam(web, "watch", "--once")
    assert unready.code == 2  # no worker lives
    assert "no_worker" in unready.out
    stranger = await run("watch", "--once", "--json", UNJAM_URL=web.url, ADMIN_TOKEN="wrong")
    view = json.loads(stranger.out)
    assert view["queues"] == [] and view["ledger"]["accepted"] == 0
    assert len([r for r in view["reasons"] if r["code"] != "no_worker"]) == 1


async def test_watch_on_a_terminal_is_a_page_of_its_own(web: Web) -> None:
    await live_worker(web)
    document = await web.added(b"waits for the endpoint", "w.txt")
    await web.house.snooze(document)
    inner, outer = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "unjam.cli.main", "watch", "--interval", "0.2"),
        stdin=outer,
        stdout=outer,
        stderr=outer,
        env=environment(UNJAM_URL=web.url, ADMIN_TOKEN=ADMIN, TERM="xterm", COLUMNS="120"),
    )
    os.close(outer)
    os.set_blocking(inner, False)
    seen = b""

    async def screen() -> bytes:
        nonlocal seen
        try:
            seen += os.read(inner, 1 << 16)
        except (BlockingIOError, OSError):
            pass
        return seen

    try:
        await until("the page", screen, lambda s: b"rag_processing" in s and b"embedding_down" in s)
        assert b"\x1b[?1049h" in seen  # the alternate screen
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_S):
            assert await process.wait() == 1  # something waits
        await until("the way back", screen, lambda s: b"\x1b[?1049l" in s)
        assert b"Traceback" not in seen
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(inner)


# -- logs -------------------------------------------------------------------------------------
def stamped(second: int, text: str) -> str:
    return f"2026-11-23T06:00:{second:02}.000Z {text}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three processes' logs, interleaved in time."""
    (tmp_path / "rag-worker.log").write_text(
        stamped(1, "INFO: Successfully processed a")
        + stamped(4, "ERROR: ChromaDB connection failed")
        + "    a line of its traceback\n" + stamped(9, "INFO: Successfully processed b")
    )  # fmt: skip
    (tmp_path / "rag-worker2.log").write_text(stamped(3, "INFO: Successfully processed c"))
    (tmp_path / "api.log").write_text(stamped(2, "INFO: listening") + stamped(5, "INFO: asked"))
    (tmp_path / "rag-capacity.csv").write_text("20261122,5,900\n")
    return tmp_path


async def test_logs_are_one_stream_in_the_order_of_time(folder: Path) -> None:
    done = await run("logs", RAG_LOG_DIR=str(folder))
    assert done.code == 0, done
    heads = [line.split()[0] for line in done.out.splitlines()]
    assert heads == [
        *("rag-worker", "api", "rag-worker2", "rag-worker", "rag-worker", "api", "rag-worker")
    ]
    assert "traceback" in done.out.splitlines()[4]
    last = await run("logs", "-n", "2", RAG_LOG_DIR=str(folder))
    assert [line.split()[0] for line in last.out.splitlines()] == ["api", "rag-worker"]


def test_servers_colours_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "chroma.log"
    log.write_bytes(b"\x1b[2m\x1b[38;2;1;2;3mSaving\x1b[0m data to: \x1b[32m./chroma\x1b[m\n")
    (line,) = last_lines([log], 5, re.compile("Saving data"))
    assert line.text == "Saving data to: ./chroma"


async def test_logs_by_name_and_pattern(folder: Path) -> None:
    workers = await run("logs", "worker", "--grep", "successfully", RAG_LOG_DIR=str(folder))
    assert workers.out.count("Successfully processed") == 3
    assert "api" not in workers.out
    one = await run("logs", "rag-worker2.log", RAG_LOG_DIR=str(folder))
    assert one.out == stamped(3, "INFO: Successfully processed c")  # one file: no name in front
    as_json = await run("logs", "api", "--json", RAG_LOG_DIR=str(folder))
    assert [json.loads(line)["log"] for line in as_json.out.splitlines()] == ["api", "api"]
    nothing = await run("logs", "--grep", "no such thing", RAG_LOG_DIR=str(folder))
    assert (nothing.code, nothing.out) == (1, "")
    stranger = await run("logs", "cook", RAG_LOG_DIR=str(folder))
    assert stranger.code == 2 and "rag-worker2" in stranger.err
    wrong = await run("logs", "--grep", "(", RAG_LOG_DIR=str(folder))
    assert wrong.code == 2 and "--grep" in wrong.err
    empty = await run("logs", RAG_LOG_DIR=str(folder / "nowhere"), RAG_LANG="ko")
    assert empty.code == 2 and "unjam up" in empty.err


async def test_logs_follow_growth_rotation_and_new_files(folder: Path) -> None:
    async with started("logs", "-f", "-n", "1", RAG_LOG_DIR=str(folder)) as process:
        assert process.stdout is not None

        async def line_with(text: str) -> None:
            assert process.stdout is not None
            async with asyncio.timeout(DEADLINE_S):
                while text not in (await process.stdout.readline()).decode():
                    pass

        await line_with("processed b")
        with (folder / "api.log").open("a") as log:
            log.write("half a li")
            log.flush()
            log.write("ne, and whole\n")
        await line_with("half a line, and whole")
        worker = folder / "rag-worker.log"
        worker.write_text("")  # truncated, as copytruncate does
        worker.write_text(stamped(20, "INFO: after the truncation"))
        await line_with("after the truncation")
        (folder / "api.log").rename(folder / "api.log.1")
        (folder / "api.log").write_text(stamped(21, "INFO: after the rotation"))
        await line_with("after the rotation")
        (folder / "rag-worker3.log").write_text(stamped(22, "INFO: a new worker"))
        await line_with("a new worker")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_S):
            assert await process.wait() == 0


def test_the_end_of_a_large_log_is_read_from_its_end(tmp_path: Path) -> None:
    log = tmp_path / "rag-worker.log"
    with log.open("w") as file:
        for n in range(200_000):
            file.write(f"line {n} 한글\n")
    assert [line.text for line in last_lines([log], 3)] == [
        f"line {n} 한글" for n in (199_997, 199_998, 199_999)
    ]
    log.write_text("no line break at the end")
    assert [line.text for line in last_lines([log], 3)] == ["no line break at the end"]
    assert last_lines([log], 0) == []


def test_valkeys_lines_have_a_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Seoul")
    time.tzset()
    try:
        line = "812:M 23 Nov 2026 15:00:07.250 * Ready to accept connections"
        assert time_of(line) == "2026-11-23T06:00:07.250Z"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert time_of("no time at all") == ""


# -- alerts -----------------------------------------------------------------------------------
async def test_alerts_that_hold_now(web: Web) -> None:
    await web.added(b"nobody works on this")
    done = await unjam(web, "alerts")
    assert done.code == 2, done
    assert "NoActiveRAGWorkers (rag_processing)" in done.out
    assert "RAGWatchdogAbsent" in done.out and "RAGDocumentsMissing" not in done.out
    every = json.loads((await unjam(web, "alerts", "--json")).out)
    states = {row["name"]: row["state"] for row in every}
    assert states["RAGNoLiveWorkers"] == "holds"
    assert states["RAGRedisUnsafe"] == "quiet"
    assert states["RAGQueueStagnation"] == "needs_history"
    korean = await unjam(web, "alerts", "--all", "--lang", "ko")
    assert "살아 있는" in korean.out or "레인" in korean.out


async def test_alerts_prints_the_rules_without_a_server() -> None:
    done = await run("alerts", "--rules", UNJAM_URL="http://127.0.0.1:1")
    root = Path(__file__).resolve().parents[3]
    assert done.code == 0
    assert done.out == (root / "deploy/prometheus/unjam-rules.yml").read_text("utf-8")
