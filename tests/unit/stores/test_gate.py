"""The gate: fair between processes, and open again after a death."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tests.fixtures.ledger import PIN, WORKER
from unjam.core.document import Submission
from unjam.stores.gate import Gate
from unjam.stores.gate_guard import Freed, Guard
from unjam.stores.ledger import SqlLedger

_spawn = multiprocessing.get_context("spawn")


def _saturate(url: str, number: int, ready: Event, stop: Event) -> None:
    """Write as fast as the ledger takes it, eight operations at any time."""
    import asyncio

    async def one(ledger: SqlLedger, lane: int) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            name = f"{number}-{lane}-{n}"
            await ledger.accept(
                [Submission(name, "u", name, "text/plain", 1, name, PIN, "rag_processing")]
            )
            ready.set()

    async def run() -> None:
        ledger = await SqlLedger.open(url)
        await asyncio.gather(*(one(ledger, lane) for lane in range(8)))
        await ledger.close()

    asyncio.run(run())


@pytest.mark.alone
async def test_heartbeat_beside_four_saturating_writers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = await SqlLedger.open(url)
    stop = _spawn.Event()
    readies = [_spawn.Event() for _ in range(4)]
    writers = [
        _spawn.Process(target=_saturate, args=(url, n, ready, stop), daemon=True)
        for n, ready in enumerate(readies)
    ]
    for writer in writers:
        writer.start()
    try:
        assert all(ready.wait(60) for ready in readies)
        waits: list[float] = []
        for _ in range(60):
            began = time.perf_counter()
            ledger.renew(WORKER, {}, [])
            waits.append(time.perf_counter() - began)
    finally:
        stop.set()
        for writer in writers:
            writer.join(30)
            if writer.is_alive():
                writer.kill()
        await ledger.close()
    waits.sort()
    print(f"heartbeat: median {waits[30] * 1e3:.1f} ms, worst {waits[-1] * 1e3:.1f} ms")
    assert waits[-1] < 0.2


def _sit(folder: Path, inside: Event) -> None:
    with Gate(folder).hold():
        inside.set()
        signal.pause()


def _queue_up(folder: Path, waits: Event) -> None:
    gate = Gate(folder)
    fcntl.flock(gate.locks[1], fcntl.LOCK_EX)  # the turn: it stands before the door
    waits.set()
    fcntl.flock(gate.locks[0], fcntl.LOCK_EX)
    signal.pause()


def test_one_that_freezes_before_the_door_is_freed_too(tmp_path: Path) -> None:
    """It holds the turn only, and would keep all others from standing in line."""
    freed: list[Freed] = []
    guard = Guard(freed.append)
    inside, waits = _spawn.Event(), _spawn.Event()
    sitter = _spawn.Process(target=_sit, args=(tmp_path, inside), daemon=True)
    queued = _spawn.Process(target=_queue_up, args=(tmp_path, waits), daemon=True)
    sitter.start()
    assert inside.wait(30)
    queued.start()
    assert waits.wait(30) and queued.pid is not None
    os.kill(queued.pid, signal.SIGSTOP)
    gate = Gate(tmp_path, guard=guard)
    with pytest.raises(TimeoutError, match="is stopped inside the gate"), gate.hold(1.4):
        raise AssertionError("it got in")
    assert gate.waiting_since is None and freed == []
    with pytest.raises(TimeoutError), gate.hold(4.0):
        raise AssertionError("it got in")
    # It was woken, and rightly stands in line; nobody touches the one who is inside and runs.
    assert [(f.pid, f.how) for f in freed] == [(queued.pid, "woken")]
    for process in (sitter, queued):
        process.kill()
        process.join(10)
    with gate.hold(5.0):
        pass
    gate.close()
    guard.close()


def test_a_dead_holder_opens_the_gate(tmp_path: Path) -> None:
    inside = _spawn.Event()
    holder = _spawn.Process(target=_sit, args=(tmp_path, inside), daemon=True)
    holder.start()
    assert inside.wait(30)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    gate = Gate(tmp_path)
    with gate.hold():
        pass
    gate.close()
    holder.join(10)
