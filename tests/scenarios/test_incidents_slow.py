"""What is slow and not away: named so within half a minute, and over once it is quick again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fixtures.holding import Holding
from tests.fixtures.play import NOTICED_S, SLACK_S, STATISTICAL_S, Play, play_on
from unjam.testing.embedded_stack import EmbeddedStack
from unjam.testing.slow_line import SlowLine
from unjam.testing.wait import until

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(420)]


async def test_slow_lines_to_redis_and_chroma(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1, slow=("valkey", "chroma")) as stack:
        play = await play_on(stack)
        for cause, server, delay_s, only in (
            ("redis_slow", "valkey", 0.35, b""),
            ("chroma_slow", "chroma", 1.3, b"/get HTTP"),
        ):
            line = stack.lines[server]

            async def slow(
                line: SlowLine = line, delay_s: float = delay_s, only: bytes = only
            ) -> None:
                line.delay_s, line.only = delay_s, only
                await play.add(1)

            async def quick(line: SlowLine = line) -> None:
                line.delay_s = 0.0

            await play.closed(await play.fault(cause, slow, quick, within_s=STATISTICAL_S))
        await play.all_over()
        assert [i.cause for i in play.opened] == [i.cause for i in await play.every()]


async def test_a_slow_endpoint(tmp_path: Path) -> None:
    one_by_one = {"RAG_EMBEDDING_BATCH_SIZE": "1"}
    async with EmbeddedStack(tmp_path / "data", workers=1, extra=one_by_one) as stack:
        play = await play_on(stack)
        await play.fault(
            "embedding_slow",
            play.asking(latency_ms=11_000, documents=6),
            play.answering(latency_ms=0),
            within_s=STATISTICAL_S,
        )
        await play.all_over()


async def test_a_ledger_that_is_slow_and_one_that_cannot_be_written(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        play = await play_on(stack)
        path = stack.data_dir / "ledger.db"
        async with Holding(path, 1.6, 0.1):
            at = time.time()
            await play.add(1)
            slow = await play.expect("ledger_slow", at, STATISTICAL_S)
        await play.closed(slow)
        async with Holding(path):
            at = time.time()
            await unwritten(play, "ledger_down")
            assert time.time() - at <= NOTICED_S + SLACK_S
        await play.add(1)
        down = await play.expect("ledger_down", at)
        assert down.started_at <= down.noticed_at
        await play.all_over()


async def unwritten(play: Play, cause: str) -> None:
    """The watchdog has said that there is trouble which it cannot write down."""

    async def said() -> bool:
        lines = play.stack.log("watchdog-1").splitlines()
        return any("cannot be written down yet" in line and cause in line for line in lines)

    await until(f"{cause} is in the log", said, every_s=0.1)
