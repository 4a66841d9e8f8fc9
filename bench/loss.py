"""kill -9 at random points of a long run: what is lost, doubled, dead, or paid for twice.

    python -m bench.loss --kills 1000

A whole system as ``unjam up`` keeps it, with a backlog that never runs dry; a worker that holds
documents is killed, again and again. At the end everything is judged from outside: by the ids that
were accepted, a search for each, and the exact set of chunk ids in the vector store.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench.report import table, write_json
from unjam.core.document import RUNNING, State
from unjam.testing.embedded_stack import EmbeddedStack
from unjam.testing.storm import make_text
from unjam.testing.verdict import Verdict, judge
from unjam.testing.wait import until

BACKLOG = 60
BATCH = 32


async def feed(stack: EmbeddedStack, expected: dict[str, str], seed: int) -> None:
    """Keep a backlog until cancelled."""
    dice = random.Random(seed)
    while True:
        counts = await stack.services.ledger.state_counts()
        waiting = counts.get(State.RECEIVED, 0) + counts.get(State.QUEUED, 0)
        for _ in range(BACKLOG - waiting):
            text = make_text(dice, f"{seed}n{len(expected)}")
            expected[await stack.stack.add(text, f"note-{len(expected)}.txt")] = text
        await asyncio.sleep(0.1)


async def kill(stack: EmbeddedStack, kills: int, dice: random.Random) -> list[str]:
    """Kill *kills* workers while they hold documents; in which steps they were."""
    steps: list[str] = []
    while len(steps) < kills:
        await asyncio.sleep(dice.uniform(0.0, 1.0))
        page = [
            document
            for state in RUNNING
            for document in (await stack.services.ledger.list(state=state, limit=20)).items
        ]
        pids = {pid: name for name, pid in stack.supervisor.pids().items()}
        held = [
            (d, pids[p]) for d in page if d.worker and (p := int(d.worker.split(".")[-2])) in pids
        ]
        if not held:
            continue
        document, name = dice.choice(held)
        if stack.hit(name, signal.SIGKILL):
            steps.append(document.state)
            if len(steps) % 10 == 0:
                print(f"{len(steps)} kills", file=sys.stderr, flush=True)
    return steps


async def run(folder: Path, kills: int, seed: int) -> tuple[Verdict, dict[str, int], float]:
    expected: dict[str, str] = {}
    began = time.monotonic()
    async with EmbeddedStack(folder) as stack:
        await until("the system is up", stack.processes_ready, deadline_s=60.0)
        feeding = asyncio.create_task(feed(stack, expected, seed))
        steps = await kill(stack, kills, random.Random(seed))
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        took_s = time.monotonic() - began
        verdict = await judge(stack, expected, 300.0)
    return verdict, {step: steps.count(step) for step in sorted(set(steps))}, took_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="unjam-loss-"))
    try:
        verdict, steps, took_s = asyncio.run(run(folder, options.kills, options.seed))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    dead = [line for line in verdict.not_searchable if ": dead " in line]
    facts = {
        "kills": options.kills,
        "killed_while": steps,
        "seconds": round(took_s, 1),
        "documents": verdict.accepted,
        "lost": len(verdict.not_searchable) - len(dead) + len(verdict.not_found),
        "dead": len(dead),
        "doubled_or_foreign_chunks": len(verdict.foreign_chunks),
        "documents_with_missing_chunks": len(verdict.missing_chunks),
        "texts_embedded": verdict.embedded,
        "embedded_twice_per_kill": round(verdict.embedded_twice / options.kills, 2),
        "settled_after_s": round(verdict.settled_s, 1),
        "problems": verdict.problems(),
    }
    print(table(["", "value"], [[name, value] for name, value in facts.items()]))
    write_json("loss", facts)
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
