"""Whether a document costs the same in a full house: by store, by backlog, by number of workers.

    python -m bench.scale [--store 0,1000,10000] [--backlog 5000,50000] [--workers 1,2,4]

*store*: new files beside so many searchable documents of four chunks. *backlog*: no-op documents
out of a line of so many, as ``bench.noop`` works them off. *workers*: new files, and no-op
documents, with so many worker processes; each has its shipped share of requests.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from bench.corpus import make_corpus
from bench.fill import fill_store
from bench.house import House, house
from bench.idle import fill
from bench.noop import measure, processes, searchable, until, valkey
from bench.queue_roles import ledger_url
from bench.report import median, table, write_json
from unjam.queue import keys
from unjam.stores.ledger import SqlLedger

CHUNKS_EACH = 4
Row = dict[str, float]


def add_some(ours: House, files: int, first: int) -> tuple[float, dict[str, float]]:
    """Wall milliseconds per file, and CPU milliseconds by role."""
    with tempfile.TemporaryDirectory() as folder:
        make_corpus(Path(folder), files, first=first)
        before = ours.cpu_s()
        wall_s = ours.command("add", folder, "--wait").wall_s
        used = {r: (s - before.get(r, 0.0)) / files * 1e3 for r, s in ours.cpu_s().items()}
    return wall_s / files * 1e3, used


def by_store(sizes: Sequence[int], files: int, latency_ms: float) -> list[Row]:
    rows: list[Row] = []
    with house(latency_ms=latency_ms) as ours:
        add_some(ours, 50, 900_000)  # what is loaded on first use
        there = 0
        for number, size in enumerate(sizes):
            if size > there:
                fill_store(ours, size - there, CHUNKS_EACH, first=there)
                there = size
            ms, used = add_some(ours, files, number * files)
            rest = sum(used.values()) - used.get("Chroma", 0.0)
            rows.append({"size": size, "ms": ms, "Chroma": used.get("Chroma", 0.0), "rest": rest})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def by_backlog(size: int, drained: int) -> Row:
    """*drained* of *size* documents in line are worked off by two workers."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with valkey(folder) as (url, admin_url):
            asyncio.run(_filled(folder, admin_url, size))

            def command(role: str, slot: int) -> list[Any]:
                return [
                    sys.executable, "-m", "bench.queue_roles", "unjam", role, f"--url={url}",
                    "--jobs=0", f"--counter={folder / 'counter'}", f"--slot={slot}",
                    f"--folder={folder}",
                ]  # fmt: skip

            done = searchable(folder)
            with redis.Redis.from_url(admin_url) as admin, processes(command, 2):
                admin.delete(keys.SUSPENDED)  # both are ready: off they go
                until(done, 1)
                before, began = done(), time.perf_counter()
                until(done, min(size, before + drained))
                took_s, found = time.perf_counter() - began, done() - before
    row = {"size": size, "per_s": found / took_s, "ms": took_s / found * 1e3}
    print(row, file=sys.stderr, flush=True)
    return row


async def _filled(folder: Path, admin_url: str, size: int) -> None:
    url = ledger_url(folder)
    await (await SqlLedger.open(url, gate_dir=folder)).close()
    await asyncio.to_thread(fill, url, admin_url, size)
    with redis.Redis.from_url(admin_url) as admin:
        admin.set(keys.SUSPENDED, 1)  # until the workers are there
        admin.config_set("appendonly", "yes")  # filling turned it off
        info: Any = admin.info("persistence")
        while info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"]:
            await asyncio.sleep(0.1)
            info = admin.info("persistence")


def by_workers(workers: int, files: int, latency_ms: float, documents: int) -> Row:
    with house(workers=workers, latency_ms=latency_ms) as ours:
        add_some(ours, 50, 900_000)
        ms, used = add_some(ours, files, 0)
    noop = measure("unjam", documents, workers).per_s
    row = {"workers": workers, "ms": ms, "cpu": sum(used.values()), "noop_per_s": noop}
    print(row, file=sys.stderr, flush=True)
    return row


def show(title: str, rows: Sequence[Row], head: dict[str, str], first: str, what: str) -> None:
    """Ratios of *what* to the first row, then the figures."""
    cells = [
        [f"{row[first]:,.0f}", f"{row[what] / rows[0][what]:.2f}×", *[row[key] for key in head]]
        for row in rows
    ]
    print("\n" + table([title, "to the first", *head.values()], cells))


def numbers(text: str) -> list[int]:
    return [int(x) for x in text.split(",") if x]


def repeated(rows: Callable[[], list[Row]], times: int) -> list[Row]:
    """Medians of every figure."""
    found = [rows() for _ in range(times)]
    return [
        {key: median([f[i][key] for f in found]) for key in found[0][i]}
        for i in range(len(found[0]))
    ]


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--store", default="0,1000,10000", help="documents; 100000 takes minutes")
    ask.add_argument("--backlog", default="5000,50000", help="documents")
    ask.add_argument("--workers", default="1,2,4")
    ask.add_argument("--files", type=int, default=300, help="added at each point")
    ask.add_argument("--documents", type=int, default=3000, help="no-op ones at each point")
    ask.add_argument("--latency-ms", type=float, default=100.0)
    ask.add_argument("--repeat", type=int, default=1)
    args = ask.parse_args()
    facts: dict[str, Any] = {"options": vars(args)}
    if sizes := numbers(args.store):
        rows = repeated(lambda: by_store(sizes, args.files, args.latency_ms), args.repeat)
        head = {"ms": "wall ms/file", "Chroma": "Chroma CPU ms", "rest": "other CPU ms"}
        show("documents in the store", rows, head, "size", "ms")
        facts["store"] = rows
    if sizes := numbers(args.backlog):
        drained = min(args.documents, min(sizes) * 3 // 4)
        rows = repeated(lambda: [by_backlog(size, drained) for size in sizes], args.repeat)
        head = {"per_s": "no-op documents/s", "ms": "ms each"}
        show("documents in line", rows, head, "size", "ms")
        facts["backlog"] = rows
    if counts := numbers(args.workers):
        rows = repeated(
            lambda: [by_workers(n, args.files, args.latency_ms, args.documents) for n in counts],
            args.repeat,
        )
        head = {"ms": "wall ms/file", "cpu": "CPU ms/file", "noop_per_s": "no-op documents/s"}
        show("workers", rows, head, "workers", "ms")
        facts["workers"] = rows
    print(write_json("scale", facts), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
