"""``rq suspend``: our workers honour it as stock ones do, it is said, and ``rq resume`` ends it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from unjam.core.document import State
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended

RQ = str(Path(sys.executable).with_name("rq"))


async def rq(stack: Stack, verb: str) -> None:
    command = [RQ, verb, "--url", stack.redis_url]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=60)


async def test_suspended_workers_take_nothing_and_go_on_when_resumed(stack: Stack) -> None:
    ledger, queue = stack.services.ledger, stack.services.queue
    worker = stack.worker()
    dog = stack.watchdog()
    first = await stack.add("The first note is about tides.")
    await until_ended(ledger, [first])
    await rq(stack, "suspend")
    assert await queue.suspended()
    held = [await stack.add(f"Note {n} is about harbours.") for n in range(3)]

    async def noticed() -> bool:
        return "suspended by `rq suspend`" in dog.output()

    await until("the watchdog says so", noticed, deadline_s=10)

    async def states() -> set[State]:
        return {d.state for d in await ledger.get_many(held)}

    await until("they stand in line", states, lambda s: s == {State.QUEUED})
    assert (await queue.lane_facts())["rag_processing"].paused
    await rq(stack, "resume")
    ended = await until_ended(ledger, held, deadline_s=20)
    assert {d.state for d in ended.values()} == {State.SEARCHABLE}
    assert worker.popen.poll() is None
    assert dog.popen.poll() is None
