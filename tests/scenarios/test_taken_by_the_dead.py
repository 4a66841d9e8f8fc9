"""kill -9 between take and claim: the ticket is in nobody's lane, and rung again in seconds."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

from tests.fixtures.frozen import freeze_outside_the_gate
from unjam.core.document import State
from unjam.core.events import EventKind
from unjam.queue.audit import STRANDED_S
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended

TAKER = """
import asyncio, os, signal
from unjam.app.services import open_services
from unjam.settings import Settings
from unjam.worker.identity import process_identity

async def main():
    services = await open_services(Settings(), role="worker")
    me = process_identity("worker")
    await asyncio.to_thread(services.ledger.renew, me, {}, ())
    await services.queue.register_worker(me.id, ["rag_processing"], me.pid)
    taken = await services.queue.take(["rag_processing"], 32, me.id)
    print(me.id, len(taken), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def take_and_die(stack: Stack) -> tuple[str, int]:
    """A worker that is killed between take and claim: its id, and how many it took."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "OPENAI_"))}
    done = subprocess.run(
        [sys.executable, "-c", TAKER],
        env={**env, **stack.environment()},
        stdout=subprocess.PIPE,
        timeout=60,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL
    name, count = done.stdout.split()
    return name, int(count)


async def test_what_a_killed_worker_had_taken_goes_on_within_seconds(stack: Stack) -> None:
    ledger = stack.services.ledger
    worker = stack.worker()
    stack.watchdog()

    async def kinds() -> set[str]:
        return {ref.kind for ref, _ in await ledger.processes()}

    await until("both live", kinds, lambda k: k == {"worker", "watchdog"})
    await freeze_outside_the_gate(worker, stack.data_dir)  # only the doomed one takes
    ids = [await stack.add(f"Note {n}: the pump is serviced in week {n}.") for n in range(3)]
    name, count = await asyncio.to_thread(take_and_die, stack)
    assert count == 3
    worker.signal(signal.SIGCONT)
    killed = time.time()
    documents = await until_ended(ledger, ids)
    assert {d.state for d in documents.values()} == {State.SEARCHABLE}
    for document_id in ids:
        (claimed,) = [e.at for e in await ledger.events(document_id) if e.kind is EventKind.CLAIMED]
        # What follows is a new worker's first document: imports, not recovery.
        assert claimed - killed < 5.0, f"unmourned it waits {STRANDED_S:.0f} s for the audit"
    # It cost the documents nothing: nobody had begun on them.
    assert {(d.deaths, d.suspect, d.errors) for d in documents.values()} == {(0, False, 0)}
    assert name not in [ref.id for ref, _ in await ledger.processes()]
