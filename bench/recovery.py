"""How soon work goes on after a kill -9: worst of ten, beside stock RQ.

    python -m bench.recovery [--rounds 10] [--stock]

The system runs as ``unjam up`` keeps it. *next*: from the kill to a document, uploaded at the
moment of the kill, being searchable. *resumed*: from the kill to the last document that was in
flight being in a worker's hands again. ``--stock`` adds RQ's own worker, killed together with its
work horse and started anew: with its defaults, and tuned as far as its options go.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.recovery_stock import stock_rq
from bench.report import median, table, write_json
from unjam.core.document import RUNNING, State
from unjam.core.events import EventKind
from unjam.testing.embedded_stack import EmbeddedStack
from unjam.testing.stack import Process
from unjam.testing.wait import until
from unjam.worker.supervisor import STEADY_S

IN_FLIGHT = 20
DEADLINE_S = 120.0

Round = Callable[[EmbeddedStack, int], Awaitable[float]]


async def next_after(kind: str, stack: EmbeddedStack, number: int) -> float:
    killed = time.monotonic()
    for name in stack.names(kind):
        stack.hit(name, signal.SIGKILL)
    document_id = await stack.stack.add(f"Note {number} of {kind}: the crane is oiled in May.")
    ledger = stack.services.ledger

    async def state() -> State:
        document = await ledger.get(document_id)
        assert document is not None
        return document.state

    await until("searchable", state, lambda s: s is State.SEARCHABLE, deadline_s=DEADLINE_S)
    return time.monotonic() - killed


def kill_workers(stack: EmbeddedStack) -> None:
    for name in stack.names("worker"):
        stack.hit(name, signal.SIGKILL)


async def resumed_after(
    stack: EmbeddedStack,
    number: int,
    *,
    ready: Callable[[], object] = lambda: None,
    kill: Callable[[EmbeddedStack], None] = kill_workers,
) -> float:
    """Documents hang in the endpoint, so that all of them are in flight at the kill."""
    ledger = stack.services.ledger
    stack.endpoint.control(fault="hang")
    ids = [
        await stack.stack.add(f"Flight {number}, {n}: the hull is painted blue.")
        for n in range(IN_FLIGHT)
    ]

    async def states() -> set[State]:
        found = [await ledger.get(i) for i in ids]
        return {d.state for d in found if d is not None}

    await until("all in flight", states, lambda s: s <= RUNNING, deadline_s=DEADLINE_S)
    ready()
    mark = await ledger.last_event()
    killed = time.monotonic()
    kill(stack)
    stack.endpoint.control(fault="")
    again: set[str] = set()

    async def claimed() -> int:
        nonlocal mark
        for event in await ledger.events(None, mark, 500):
            mark = event.seq
            if event.kind is EventKind.CLAIMED:
                again.add(event.document_id)
        return len(again & set(ids))

    await until("resumed", claimed, lambda n: n == len(ids), deadline_s=DEADLINE_S)
    took_s = time.monotonic() - killed
    await until("done", states, lambda s: s == {State.SEARCHABLE}, deadline_s=DEADLINE_S)
    return took_s


ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname "another-$$" && exec "$@"', "sh")
"""A process that believes to be on a host of its own: nobody here can see whether it lives."""


async def unseen(folder: Path, rounds: int) -> list[float]:
    """A host with all documents in flight vanishes; another host's worker is idle beside it."""
    took: list[float] = []
    async with EmbeddedStack(folder, workers=0) as stack:
        for number in range(rounds):
            took.append(await _host_vanishes(stack, number))
            print(f"{UNSEEN}: {took[-1]:.2f} s", file=sys.stderr, flush=True)
    return took


async def _host_vanishes(stack: EmbeddedStack, number: int) -> float:
    doomed = stack.stack.start("worker", inside=ELSEWHERE)
    others: list[Process] = []
    took_s = await resumed_after(
        stack,
        number,
        ready=lambda: others.append(stack.stack.start("worker", inside=ELSEWHERE)),
        kill=lambda _: doomed.signal(signal.SIGKILL),
    )
    for process in others:
        process.signal(signal.SIGTERM)
        await process.ended()
    return took_s


UNSEEN = "a host vanished: those in flight resumed"
UNSEEN_S = 15.0

CASES: dict[str, tuple[Round, float]] = {
    "all workers killed: next document": (lambda s, n: next_after("worker", s, n), 5.0),
    "all workers killed: those in flight resumed": (resumed_after, 5.0),
    "Valkey killed: next document": (lambda s, n: next_after("valkey", s, n), 10.0),
    "Chroma killed: next document": (lambda s, n: next_after("chroma", s, n), 10.0),
}


async def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {}
    async with EmbeddedStack(folder) as stack:
        await until("the system is up", stack.processes_ready, deadline_s=60.0)
        for name, (case, _) in CASES.items():
            took: list[float] = []
            for number in range(rounds):
                await asyncio.sleep(STEADY_S + 1)  # so that no kill looks like a crash-loop
                await until("all are up", stack.processes_ready, deadline_s=60.0)
                took.append(await case(stack, number))
                print(f"{name}: {took[-1]:.2f} s", file=sys.stderr, flush=True)
            seconds[name] = took
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--stock", action="store_true", help="also stock RQ (many minutes)")
    parser.add_argument("--stock-limit-s", type=float, default=900.0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="unjam-recovery-"))
    promised = {name: promise for name, (_, promise) in CASES.items()}
    try:
        seconds = asyncio.run(measure(folder / "seen", options.rounds))
        if os.geteuid() == 0:  # else nobody may take another host's name
            promised[UNSEEN] = UNSEEN_S
            seconds[UNSEEN] = asyncio.run(unseen(folder / "unseen", options.rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [
        [name, min(took), median(took), max(took), promised[name]] for name, took in seconds.items()
    ]
    stock = stock_rq(options.stock_limit_s) if options.stock else {}
    rows += [
        [f"stock RQ, {name}: killed job runs again", "", "", s, ""] for name, s in stock.items()
    ]
    print(table(["seconds", "best", "median", "worst", "promise"], rows))
    write_json("recovery", {"seconds": seconds, "stock_rq": stock})
    return int(any(max(took) > promised[name] for name, took in seconds.items()))


if __name__ == "__main__":
    sys.exit(main())
