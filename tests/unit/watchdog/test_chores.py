"""Statistics as the runbook reads them (redis-cli), the CSV, upkeep; over real ledgers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from tests.fixtures.ledger import accepted, searchable
from unjam.observe.stats import zone_of
from unjam.queue.memory import MemoryQueue
from unjam.queue.rq_queue import RqQueue
from unjam.stores import schema
from unjam.stores.ledger import SqlLedger
from unjam.stores.memory import memory_ledger
from unjam.watchdog.chores import CapacityFile, StatsMirror, Upkeep

SEOUL = ZoneInfo("Asia/Seoul")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=SEOUL).timestamp()


@pytest.fixture
async def book() -> AsyncIterator[SqlLedger]:
    ledger = await memory_ledger()
    yield ledger
    await ledger.close()


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[RqQueue]:
    opened = RqQueue(redis_url)
    yield opened
    await opened.close()


def completed(ledger: SqlLedger, moment: float, jobs: int = 1, spent_s: float = 0.0) -> None:
    row = {"minute": int(moment // 60), "queue": "rag_processing", "jobs": jobs}
    with ledger._dialect.writer().begin() as conn:
        conn.execute(sa.insert(schema.completions), {**row, "duration_s": spent_s})


async def sh(command: str, redis_url: str, zone: str = "") -> str:
    """A line of the runbook, with this test's port where it says nothing."""
    port = redis_url.rpartition(":")[2].partition("/")[0]
    line = command.replace("redis-cli", f"redis-cli -p {port} -n 5")
    env = {**os.environ, **({"TZ": zone} if zone else {})}
    done = await asyncio.to_thread(
        subprocess.run, ["bash", "-c", line], capture_output=True, text=True, env=env, check=True
    )
    return done.stdout.strip()


JOBS_OF_TEN_MINUTES = (
    "redis-cli GET rag:stats:jobs_completed:$(date -d '10 minutes ago' +%Y%m%d%H%M)"
)
JOBS_OF_TODAY = 'DATE=$(date +%Y%m%d); redis-cli GET "rag:stats:daily:$DATE" || echo "0"'


@pytest.mark.parametrize("zone", ["", "Asia/Seoul"])
async def test_the_runbooks_two_gets(
    book: SqlLedger, queue: RqQueue, redis_url: str, zone: str
) -> None:
    mirror = StatsMirror(book, queue, zone_of(zone))
    await mirror()
    assert await sh(JOBS_OF_TEN_MINUTES, redis_url, zone) == "0"
    assert await sh(JOBS_OF_TODAY, redis_url, zone) == "0"
    await searchable(book, 1)  # in the minute that still runs: not in the ten before it
    completed(book, time.time() - 300, jobs=3)
    completed(book, time.time() - 120, jobs=2)
    await mirror()
    assert await sh(JOBS_OF_TEN_MINUTES, redis_url, zone) in ("5", "6")
    today = int(await sh(JOBS_OF_TODAY, redis_url, zone))
    assert today == 6 or datetime.now(zone_of(zone)).hour == 0  # midnight was minutes ago


async def test_right_again_after_redis_lost_everything(
    book: SqlLedger, queue: RqQueue, redis_url: str
) -> None:
    yesterday = time.time() - 26 * 3600
    completed(book, yesterday, jobs=4)
    mirror = StatsMirror(book, queue, zone_of(""))
    await mirror()
    keys = await queue._link.redis.keys("rag:stats:*")
    await queue._link.redis.delete(*keys)
    await mirror()
    then = datetime.fromtimestamp(yesterday)
    assert await sh(f"redis-cli GET rag:stats:daily:{then:%Y%m%d}", redis_url) == "4"
    assert await sh(f"redis-cli GET rag:stats:jobs_completed:{then:%Y%m%d%H%M}", redis_url) == "4"
    ttl = int(await sh(f"redis-cli TTL rag:stats:jobs_completed:{then:%Y%m%d%H%M}", redis_url))
    assert 47 * 3600 < ttl <= 48 * 3600


async def test_only_what_changed_is_written(book: SqlLedger) -> None:
    queue, now = MemoryQueue(), at("2026-11-23T12:00:10")
    wrote: list[dict[str, int]] = []
    write = queue.write_figures

    async def note(figures: Any, kept_s: Any) -> None:
        wrote.append(dict(figures))
        await write(figures, kept_s)

    queue.write_figures = note  # type: ignore[method-assign]
    mirror = StatsMirror(book, queue, SEOUL, clock=lambda: now)
    await mirror()
    assert len(wrote[0]) == 48 * 60 + 1 + 2  # the next minute, today, tomorrow
    await mirror()
    assert len(wrote) <= 2 and all(v == 0 for v in queue.figures.values())
    completed(book, now, jobs=2)
    wrote.clear()
    await mirror()
    assert wrote == [
        {
            **{f"rag:stats:jobs_completed:2026112311{m}": 2 for m in range(51, 60)},
            "rag:stats:jobs_completed:202611231200": 2,
            "rag:stats:daily:20261123": 2,
        }
    ]


async def test_midnight_stands_at_zero_before_it_comes(book: SqlLedger) -> None:
    queue, now = MemoryQueue(), at("2026-11-23T23:59:59")
    completed(book, now, jobs=7)
    await StatsMirror(book, queue, SEOUL, clock=lambda: now)()
    assert queue.figures["rag:stats:daily:20261123"] == 7
    assert queue.figures["rag:stats:daily:20261124"] == 0


async def test_a_line_of_the_csv_at_eleven_and_the_whole_day_after_midnight(
    book: SqlLedger, tmp_path: Path
) -> None:
    file, now = tmp_path / "logs" / "rag-capacity.csv", at("2026-11-23T22:59:59")
    chore = CapacityFile(book, file, SEOUL, clock=lambda: now)
    await chore()
    assert not file.exists()
    completed(book, at("2026-11-23T09:00:00"), jobs=2, spent_s=3.0)
    now = at("2026-11-23T23:00:00")
    await chore()
    assert file.read_text() == "20261123,2,1500\n"
    completed(book, at("2026-11-23T23:30:00"), jobs=1, spent_s=0.0)
    now = at("2026-11-24T00:00:01")
    await chore()
    assert file.read_text() == "20261123,3,1000\n"
    # Nobody led for two days; what an operator added to the file stays.
    file.write_text("20261101,9,9\n" + file.read_text())
    completed(book, at("2026-11-25T12:00:00"), jobs=5, spent_s=1.0)
    now = at("2026-11-26T23:10:00")
    await CapacityFile(book, file, SEOUL, clock=lambda: now)()
    assert file.read_text().splitlines() == [
        "20261101,9,9",
        "20261123,3,1000",
        "20261124,0,0",
        "20261125,5,200",
        "20261126,0,0",
    ]
    done = await asyncio.to_thread(
        subprocess.run,
        ["awk", "-F,", "{sum+=$2} END {print sum}", str(file)],
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"17\n"


async def test_late_documents_are_counted_when_their_deadline_passes(book: SqlLedger) -> None:
    for n in range(1, 8):
        await accepted(book, n)
    with book._dialect.writer().begin() as conn:
        conn.execute(sa.update(schema.documents).values(slo_since=time.time() - 301))
    await accepted(book, 8)
    await Upkeep(book, slice_=3)()
    counters = await book.counters()
    assert counters["slo_late", "rag_processing"] == counters["slo_total", "rag_processing"] == 7
    await Upkeep(book, slice_=3)()
    assert (await book.counters())["slo_late", "rag_processing"] == 7


async def test_upkeep_trims_until_nothing_is_old(book: SqlLedger) -> None:
    for n in range(1, 6):
        await searchable(book, n)
    with book._dialect.writer().begin() as conn:
        conn.execute(sa.update(schema.events).values(at=1.0))
    await Upkeep(book, slice_=4)()
    assert await book.events(None) == []
