"""A newer release migrates the ledger under hosts that still run the old one: these let go of what
they hold and take nothing more, and say why. With one version of the ledger both go on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.release import HEAD, VERSION, next_release
from unjam.app.services import open_services
from unjam.core.document import RUNNING, State
from unjam.core.errors import DependencyDown, LedgerVersionError
from unjam.queue.lanes import PROCESSING
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Process, Stack
from unjam.testing.wait import until, until_ended
from unjam.worker.identity import process_identity

pytestmark = pytest.mark.thorough


def simple_worker(stack: Stack) -> Process:
    """RQ's own, of the old release."""
    log = stack.data_dir / "rq.log"
    line = ("worker", "--url", stack.redis_url, PROCESSING, "--worker-class", "rq.SimpleWorker")
    with log.open("wb") as out:
        rq = Path(sys.executable).parent / "rq"
        env = {**os.environ, **stack.environment()}
        process = Process(subprocess.Popen([rq, *line], env=env, stdout=out, stderr=out), log)
    stack.processes.append(process)
    return process


async def test_old_workers_drain_and_new_ones_go_on(
    ledger_stack: Stack, fake_openai: FakeOpenAI, tmp_path: Path
) -> None:
    stack, ledger = ledger_stack, ledger_stack.services.ledger
    newer = next_release(tmp_path)
    fake_openai.control(latency_ms=1500)
    old, watchdog = stack.worker(), stack.watchdog()
    ids = [await stack.add(f"The ferry of pier {n} leaves at dawn.") for n in range(40)]

    async def states() -> list[State]:
        return [d.state for d in await ledger.get_many(ids)]

    await until("some in flight", states, lambda s: any(x in RUNNING for x in s))
    new = stack.start("worker", env=newer)  # and with it the migration
    assert await old.ended(40) == 0
    assert f"version {HEAD}" in old.output()
    fake_openai.control(latency_ms=0)
    stack.start("watchdog", env=newer)
    documents = await until_ended(ledger, ids, deadline_s=60)
    assert {d.state for d in documents.values()} == {State.SEARCHABLE}
    assert sum(d.errors + d.deaths for d in documents.values()) == 0

    # This process is an API of the old release: whoever uploads is sent to another host …
    with pytest.raises(DependencyDown) as refused:
        await stack.add("One more")
    assert refused.value.code == "ledger_newer"
    # … what looks only goes on, and nobody old may begin.
    assert (await ledger.equation()).missing == 0
    with pytest.raises(LedgerVersionError):
        await open_services(stack.settings, role="worker")
    late = stack.worker()
    assert await late.ended() == 2
    assert "newer unjam" in late.output()

    async def kinds() -> set[tuple[str, str]]:
        return {(p.kind, p.version) for p, age in await ledger.processes() if age < 5.0}

    await until("the new ones report", kinds, lambda k: ("watchdog", VERSION) in k, deadline_s=30)
    assert new.popen.poll() is None
    assert watchdog.popen.poll() is None  # it stands by
    assert "Fault" not in watchdog.output()


async def test_a_stock_worker_of_the_old_release_leaves_its_jobs_to_new_ones(
    stack: Stack, fake_openai: FakeOpenAI, tmp_path: Path
) -> None:
    """It is idle and quick, so it would have a lone document again and again."""
    ledger = stack.services.ledger
    fake_openai.control(fault="hang")
    old = simple_worker(stack)
    ids = [await stack.add(f"The lock of canal {n} is manned.") for n in range(2)]

    async def states() -> list[State]:
        return [d.state for d in await ledger.get_many(ids)]

    await until("one in flight", states, lambda s: any(x in RUNNING for x in s))
    stack.start("worker", "--queues", "rag_low", env=next_release(tmp_path))  # it migrates only

    async def migrated() -> bool:
        await asyncio.to_thread(ledger.renew, process_identity("api"), {}, ())
        return bool(ledger.newer)

    await until("the ledger is newer", migrated, every_s=0.2)
    fake_openai.control(fault="")

    async def said() -> str:
        return old.output()

    await until("one is left", said, lambda s: "is left queued" in s, deadline_s=60)
    for name in ("worker", "watchdog"):
        stack.start(name, env=next_release(tmp_path / name))
    documents = await until_ended(ledger, ids, deadline_s=40)
    assert {d.state for d in documents.values()} == {State.SEARCHABLE}
    assert sum(d.errors + d.deaths for d in documents.values()) == 0
