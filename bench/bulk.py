"""A back-fill beside the queue path: documents a second, and what a killed worker costs.

    python -m bench.bulk [--texts 20000] [--compare 4000] [--latency-ms 100] [--workers 2]

The queue path is ``unjam add --wait`` of as many small files; ``unjam bulk`` reads them as lines of
JSONL, with the engines local and ray; each in an ``unjam up`` of its own with two ordinary workers
(idle during the back-fills). Then the large one on Ray, in which a worker is killed -9 at a third of
the way: the equation is looked at all along, and the texts that reached the endpoint are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.house import PROGRAM, House, house
from bench.report import table, write_json


@dataclass(frozen=True)
class Run:
    """*per_s*: documents, from the start of the command to its end. *looks*: answers of the
    equation on the way, *wrong* of them with a document missing or out of balance."""

    name: str
    documents: int
    wall_s: float
    per_s: float
    embedded: int
    killed: int
    looks: int
    wrong: int
    searchable: int


def text_of(number: int) -> str:
    """A paragraph of its own, about 60 words: one chunk."""
    return f"Note {number} of the mill by the harbour. " + " ".join(
        f"w{number * 7919 % 10007}x{word}" for word in range(50)
    )


def measure(name: str, ours: House, command: list[str], documents: int, kill: bool) -> Run:
    """Run *command* to its end, looking at the equation ten times a second."""
    before = ours.fake.stats()["texts"]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen([PROGRAM, *command], env=ours.env, stdout=out)
        looks = wrong = killed = 0
        while child.poll() is None:
            counts = ours.counts()
            looks += 1
            parts = ("searchable", "running", "queued", "waiting", "dead", "cancelled", "deleted")
            wrong += bool(counts["missing"]) or counts["accepted"] != sum(counts[p] for p in parts)
            if kill and not killed and counts["searchable"] > documents // 3:
                killed = kill_a_worker(child.pid)
            threading.Event().wait(0.1)
        wall_s = time.perf_counter() - started
        out.seek(0)
        said = out.read()
    if child.returncode:
        raise RuntimeError(f"{name} ended with {child.returncode}: {said[-2000:]}")
    return Run(
        name=name,
        documents=documents,
        wall_s=round(wall_s, 1),
        per_s=round(documents / wall_s, 1),
        embedded=ours.fake.stats()["texts"] - before,
        killed=killed,
        looks=looks,
        wrong=wrong,
        searchable=ours.counts()["searchable"],
    )


def kill_a_worker(top: int) -> int:
    """kill -9 of one actor that works (Ray shows its method as the process's title)."""
    for pid in descendants(top):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"RayWorker.serve" in line:
            os.kill(pid, signal.SIGKILL)
            return 1
    return 0


def descendants(top: int) -> list[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found: list[int] = []
    for pid in parents:
        above = pid
        while above in parents and above != top:
            above = parents[above]
        if above == top and pid != top:
            found.append(pid)
    return found


def jsonl(folder: Path, count: int) -> str:
    file = folder / f"texts-{count}.jsonl"
    with file.open("w") as out:
        for number in range(count):
            out.write(json.dumps({"id": f"note-{number}", "text": text_of(number)}) + "\n")
    return str(file)


def files(folder: Path, count: int) -> str:
    place = folder / "files"
    place.mkdir()
    for number in range(count):
        (place / f"note-{number}.txt").write_text(text_of(number))
    return str(place)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=int, default=20_000, help="0: leave the large one out")
    parser.add_argument("--compare", type=int, default=4_000, help="0: leave the small ones out")
    parser.add_argument("--latency-ms", type=float, default=100.0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="unjam-bulk-") as name:
        folder, workers = Path(name), str(options.workers)
        plans: list[tuple[str, list[str], int, bool]] = []
        if n := options.compare:
            source = jsonl(folder, n)
            bulk = ["bulk", source, "--workers", workers, "--json"]
            plans.append(
                ("queue (unjam add --wait)", ["add", files(folder, n), "--wait"], n, False)
            )
            plans.append(("bulk, local", bulk, n, False))
            plans.append(("bulk, ray", [*bulk, "--engine", "ray"], n, False))
        if n := options.texts:
            bulk = ["bulk", jsonl(folder, n), "--workers", workers, "--engine", "ray", "--json"]
            plans.append(("bulk, ray, a worker killed", bulk, n, True))
        for title, command, count, kill in plans:
            with house(latency_ms=options.latency_ms) as ours:
                runs.append(measure(title, ours, command, count, kill))
            print(runs[-1], file=sys.stderr, flush=True)
    print(
        table(
            ["run", "documents", "s", "documents/s", "texts embedded", "looks", "out of balance"],
            [[r.name, r.documents, r.wall_s, r.per_s, r.embedded, r.looks, r.wrong] for r in runs],
        )
    )
    rows: list[dict[str, Any]] = [asdict(r) for r in runs]
    write_json("bulk", {"options": vars(options), "runs": rows})
    return int(any(r.wrong or r.searchable != r.documents for r in runs))


if __name__ == "__main__":
    sys.exit(main())
