"""Documents a second that have nothing to be done: what ledger, queue and worker cost by themselves.

    python -m bench.noop [--documents 10000] [--repeat 3] [--others saq,dramatiq,taskiq]

Real processes, two workers and one that puts in; one Valkey that writes every change to disk
(appendfsync always, or once a second with --fsync everysec) for all. unjam: accepted and rung in by groups of 50 as uploads are, taken,
claimed, settled and closed by the real worker, everything in a durable ledger; only the document's
own run is nothing. RQ: its SimpleWorker, and its worker that forks, with a job that does nothing;
on request the others, in an environment of their own. Timed from the first that is put in to the
last that is done.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa

from bench.house import clean_env
from bench.queue_roles import ledger_url
from bench.report import median, table, write_json
from bench.rivals import HERE, environment
from unjam.stores.ledger import SqlLedger
from unjam.worker.children import spawn
from unjam.worker.embedded import Server, plan_valkey, until_ready

PROMISED_PER_S = 1000.0
WORKERS = 2
LIMIT_S = 300.0
NAMES = {
    "unjam": "unjam, durable ledger",
    "rq-simple": "RQ SimpleWorker",
    "rq-fork": "RQ worker (forks)",
    "saq": "SAQ",
    "dramatiq": "Dramatiq",
    "taskiq": "Taskiq",
}


@dataclass(frozen=True)
class Run:
    kind: str
    jobs: int
    wall_s: float

    @property
    def per_s(self) -> float:
        return self.jobs / self.wall_s


@contextlib.contextmanager
def valkey(folder: Path) -> Iterator[tuple[str, str]]:
    """A server of its own: the URL that workers have, and the administrator's."""

    async def start() -> Server:
        plan = await plan_valkey(folder, 0)
        child = spawn(plan.name, plan.command, folder / "valkey.log")
        plan.record(child)
        await until_ready(plan, child)
        return Server(plan, child)

    server = asyncio.run(start())
    try:
        yield server.url, server.admin_url
    finally:
        asyncio.run(server.stop())


@contextlib.contextmanager
def processes(command: Callable[[str, int], Sequence[Any]], workers: int) -> Iterator[Any]:
    """So many workers and one who puts in, all ready; gives the latter."""
    env = clean_env({"PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])})
    started: list[subprocess.Popen[str]] = []

    def begin(role: str, slot: int, own: dict[str, str]) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [str(x) for x in command(role, slot)],
            env=own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        assert child.stdout is not None
        if child.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{role} did not start (exit {child.wait()})")
        return child

    own = env if command("work", 0)[0] == sys.executable else clean_env()
    try:
        for slot in range(workers):
            begin("work", slot, own)
        yield begin("enqueue", 0, own)
    finally:
        for child in started:
            child.terminate()
        for child in started:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def searchable(folder: Path) -> Callable[[], int]:
    """How many the ledger says are done; reads only."""
    engine = sa.create_engine(ledger_url(folder))
    count = sa.text("SELECT coalesce(sum(n), 0) FROM tallies WHERE name = 'searchable'")

    def done() -> int:
        with engine.connect() as conn:
            return int(conn.execute(count).scalar_one())

    return done


def until(done: Callable[[], int], jobs: int) -> None:
    limit = time.monotonic() + LIMIT_S
    while (found := done()) < jobs:
        if time.monotonic() > limit:
            raise TimeoutError(f"{found} of {jobs} done in {LIMIT_S:.0f} s")
        time.sleep(0.01)


def measure(kind: str, jobs: int, workers: int = WORKERS, fsync: str = "always") -> Run:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        counter = folder / "counter"
        counter.write_bytes(bytes(8 * workers))

        def counted() -> int:
            return sum(struct.unpack(f"{workers}q", counter.read_bytes()))

        with valkey(folder) as (url, admin_url):
            with redis.Redis.from_url(admin_url) as admin:
                admin.config_set("appendfsync", fsync)
            if kind == "unjam":
                asyncio.run(_make_ledger(folder))
            ours = kind == "unjam" or kind.startswith("rq-")
            program = (
                [sys.executable, "-m", "bench.queue_roles"]
                if ours
                else [environment("queues"), HERE / "rivals_env" / "queues_leg.py"]
            )

            def command(role: str, slot: int) -> list[Any]:
                return [
                    *program, kind, role,
                    f"--url={url if ours else admin_url}",
                    f"--jobs={jobs}",
                    f"--counter={counter}",
                    f"--slot={slot}",
                    *([f"--folder={folder}"] if ours else []),
                ]  # fmt: skip

            with processes(command, workers) as enqueuer:
                done = searchable(folder) if kind == "unjam" else counted
                started = time.perf_counter()
                enqueuer.stdin.write("go\n")
                enqueuer.stdin.flush()
                until(done, jobs)
                return Run(kind, jobs, time.perf_counter() - started)


async def _make_ledger(folder: Path) -> None:
    await (await SqlLedger.open(ledger_url(folder), gate_dir=folder)).close()


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--documents", type=int, default=10_000)
    ask.add_argument("--repeat", type=int, default=3)
    ask.add_argument("--others", default="", help="saq,dramatiq,taskiq")
    ask.add_argument("--fsync", choices=["always", "everysec"], default="always", help="Valkey's")
    options = ask.parse_args()
    kinds = ["unjam", "rq-simple", "rq-fork", *filter(None, options.others.split(","))]
    runs: list[Run] = []
    for turn in range(options.repeat):
        for kind in kinds:
            few = {"rq-fork": options.documents // 20, "rq-simple": options.documents // 4}
            jobs = max(100, few.get(kind, options.documents))
            runs.append(measure(kind, jobs, fsync=options.fsync))
            print(f"{turn + 1}/{options.repeat} {runs[-1]}", file=sys.stderr, flush=True)
    per_s = {kind: median([r.per_s for r in runs if r.kind == kind]) for kind in kinds}
    rows = [
        [
            NAMES[kind],
            f"{per_s[kind] / per_s['rq-simple']:.2f}×",
            f"{per_s[kind] / PROMISED_PER_S:.2f}×" if kind == "unjam" else "",
            per_s[kind],
            1000 / per_s[kind],
            next(r.jobs for r in runs if r.kind == kind),
        ]
        for kind in sorted(kinds, key=lambda kind: -per_s[kind])
    ]
    head = ["", "to RQ SimpleWorker", "to promise", "documents/s", "ms each", "documents"]
    print(table(head, rows))
    facts = {"options": vars(options), "runs": [r.__dict__ for r in runs]}
    print(write_json("noop", facts), file=sys.stderr)
    return int(per_s["unjam"] < PROMISED_PER_S)


if __name__ == "__main__":
    sys.exit(main())
