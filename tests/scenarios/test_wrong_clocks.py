"""Hosts whose clocks are five minutes wrong, ahead and behind, delay and spoil nothing: what they
share goes by the clocks of the ledger's database and of Redis."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.fixtures.clocks import WRONG_S, clock_off_by
from tests.fixtures.stack import FAST, model_of
from unjam.core.document import RUNNING, State
from unjam.core.incident import Incident
from unjam.embedding.pace import Rates
from unjam.embedding.shared_limiter import SharedLimiter
from unjam.stores.ledger import SqlLedger
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended

pytestmark = pytest.mark.thorough

_BARS = """
import asyncio, json, sys, time
from unjam.embedding.pace import Rates
from unjam.embedding.shared_limiter import SharedLimiter

async def main(url, key):
    limiter = SharedLimiter(url)
    await limiter.take("group", 1, Rates(600, 0))
    await limiter.bar(key, "embedding_unauthorised", 20.0)
    print(json.dumps({"at": time.time(), "barred": await limiter.barred()}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_limits_are_shared_by_hosts_whose_clocks_differ(redis_url: str) -> None:
    told = {}
    processes = []
    for key, off in (("ahead", WRONG_S), ("behind", -WRONG_S)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _BARS, redis_url, key),
            env={**os.environ, **clock_off_by(off)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        processes.append(process)
        assert process.stdout is not None
        told[key] = json.loads(await process.stdout.readline())
        assert abs(told[key]["at"] - time.time() - off) < 30, "its clock is not wrong"
    right = SharedLimiter(redis_url)
    try:
        assert (await right.take("group", 1, Rates(600, 0))).wait_s == 0
        assert right.processes == 3
        seen = await right.barred()
    finally:
        for process in processes:
            process.kill()
            await process.wait()
        await right.close()
    for left in (*seen.values(), *told["behind"]["barred"].values()):
        assert 5 < left[1] <= 20
    assert set(seen) == set(told["behind"]["barred"]) == {"ahead", "behind"}


@pytest.mark.parametrize("leader_off", [WRONG_S, -WRONG_S])
async def test_work_remedies_and_figures_go_by_the_shared_clock(
    tmp_path: Path,
    pg_url: str,
    redis_url: str,
    chroma_url: str,
    fake_openai: FakeOpenAI,
    leader_off: int,
) -> None:
    wrong, other = clock_off_by(leader_off), clock_off_by(-leader_off)
    extra = {"RAG_EMBEDDING_MODEL": model_of(tmp_path), "RAG_MAX_CHUNK_SIZE": "64", **FAST}
    data = tmp_path / "data"
    async with Stack(data, redis_url, chroma_url, fake_openai.url, pg_url, extra) as stack:
        ledger = stack.services.ledger
        assert isinstance(ledger, SqlLedger)
        fake_openai.control(fault="hang")
        killed = stack.worker(env=other)
        stack.start("watchdog", env=wrong)
        ids = [await stack.add(f"The crane of dock {n} is yellow.") for n in range(20)]

        async def states() -> set[State]:
            return {d.state for d in await ledger.get_many(ids)}

        await until("all in flight", states, lambda s: s <= RUNNING)
        fake_openai.control(fault="")
        began = time.monotonic()
        killed.signal(signal.SIGKILL)
        await killed.ended()

        async def acted() -> Incident | None:
            found = (await ledger.incidents(limit=50)).items
            return next((i for i in found if i.cause == "workers_none" and i.actions), None)

        seen = await until("a remedy is tried", acted, deadline_s=40)
        assert seen is not None
        waited_s = seen.actions[0].at - seen.noticed_at
        assert 3.5 < waited_s < 20, "it goes by its own clock"
        assert 0 <= seen.noticed_at - seen.started_at < 30
        assert abs(seen.noticed_at - time.time()) < 60
        stack.worker(env=other)
        documents = await until_ended(ledger, ids, deadline_s=60)
        assert {d.state for d in documents.values()} == {State.SEARCHABLE}
        print(
            f"clocks off by {leader_off} and back: all done {time.monotonic() - began:.1f} s later"
        )
