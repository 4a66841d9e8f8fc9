"""A worker that takes a killed one's place takes its documents up at once, without a watchdog."""

from __future__ import annotations

import signal

from unjam.core.document import RUNNING, State
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended


async def test_no_watchdog_is_needed_to_go_on(stack: Stack, fake_openai: FakeOpenAI) -> None:
    ledger = stack.services.ledger
    fake_openai.control(fault="hang")
    ids = [await stack.add(f"The bridge of bay {n} is painted grey.") for n in range(5)]
    killed = stack.worker()

    async def states() -> set[State]:
        return {d.state for i in ids if (d := await ledger.get(i)) is not None}

    await until("all in flight", states, lambda s: s <= RUNNING)
    killed.signal(signal.SIGKILL)
    await killed.ended()
    fake_openai.control(fault="")
    stack.worker()  # and no watchdog
    documents = await until_ended(ledger, ids, deadline_s=20.0)
    assert {d.state for d in documents.values()} == {State.SEARCHABLE}
