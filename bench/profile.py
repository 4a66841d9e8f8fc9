"""Where each millisecond of a document goes: CPU by process, and wall time by stage.

    python -m bench.profile [--files 1000] [--corpus small] [--latency-ms 100] [--repeat 1]

``unjam add FOLDER --wait`` on the system as it is shipped, its own Chroma and Valkey included. The
CPU table is what each role of process took, its children included, and adds up to the whole. The
wall table follows single documents by the ledger's events: its rows add up to the time from 202 to
searchable, averaged over all. A stage that works on several windows at once counts each of them,
so what is over is taken off in proportion.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.chroma_wall import cpu_s
from bench.corpus import KINDS, make_corpus
from bench.house import House, house
from bench.report import median, table, write_json

ACCEPTED = "upload's 202 → in a lane"
QUEUED = "in line → claimed by a worker"
REST = "between the stages, and settling"


def cpu_ms(
    ours: House, folder: str, files: int, limit_s: float
) -> tuple[dict[str, float], float, float]:
    """CPU milliseconds per document by role, wall seconds, and the endpoint's share of CPU."""
    before = ours.cpu_s()
    fake_before = cpu_s(ours.endpoint_pid())
    run = ours.command("add", folder, "--wait", limit_s=limit_s)
    used = {role: s - before.get(role, 0.0) for role, s in ours.cpu_s().items()}
    used["CLI (unjam add)"] = run.cpu_s
    fake = (cpu_s(ours.endpoint_pid()) - fake_before) / files * 1e3
    return {role: s / files * 1e3 for role, s in used.items()}, run.wall_s, fake


def wall_ms(ours: House) -> tuple[dict[str, float], list[float]]:
    """Milliseconds per document by stage, and every document's total."""
    engine = sa.create_engine(ours.ledger_url)
    query = sa.text("SELECT document_id, at, kind, data FROM events ORDER BY seq")
    marks: dict[str, dict[str, float]] = defaultdict(dict)
    stages: dict[str, dict[str, float]] = {}
    with engine.connect() as conn:
        for document_id, at, kind, data in conn.execute(query):
            marks[document_id].setdefault(kind, at)  # the first of each kind
            if kind == "searchable":
                stages[document_id] = json.loads(data).get("stage_ms", {})
    engine.dispose()
    sums, totals = defaultdict[str, float](float), list[float]()
    for document_id, spent in stages.items():
        at = marks[document_id]
        queued = min(at.get("queued", at["claimed"]), at["claimed"])
        run_ms = max(0.0, (at["searchable"] - at["claimed"]) * 1e3)
        over = min(1.0, run_ms / (sum(spent.values()) or 1.0))
        parts = {stage: ms * over for stage, ms in spent.items()}
        parts[ACCEPTED] = (queued - at["accepted"]) * 1e3
        parts[QUEUED] = (at["claimed"] - queued) * 1e3
        parts[REST] = run_ms - sum(spent.values()) * over
        for stage, ms in parts.items():
            sums[stage] += ms
        totals.append((at["searchable"] - at["accepted"]) * 1e3)
    return {stage: ms / len(totals) for stage, ms in sums.items()}, totals


def once(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    with house(workers=options.workers, latency_ms=options.latency_ms) as ours:
        warm = Path(folder).parent / "warm.txt"
        warm.write_text("So that every process has loaded what it needs.\n")
        ours.command("add", str(warm), "--wait")
        cpu, wall_s, fake = cpu_ms(ours, folder, options.files, 1800)
        stages, totals = wall_ms(ours)
    return {"cpu": cpu, "wall_s": wall_s, "fake": fake, "stages": stages, "totals": totals}


def by_median(runs: list[dict[str, Any]], what: str) -> dict[str, float]:
    names = {name for run in runs for name in run[what]}
    return {name: median([run[what].get(name, 0.0) for run in runs]) for name in names}


def shares(values: dict[str, float], total: float) -> list[list[object]]:
    return [
        [name, f"{ms / total:6.1%}", ms]
        for name, ms in sorted(values.items(), key=lambda item: -item[1])
    ]


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--files", type=int, default=1000)
    ask.add_argument("--corpus", choices=sorted(KINDS), default="small")
    ask.add_argument("--latency-ms", type=float, default=100.0)
    ask.add_argument("--workers", type=int, default=2)
    ask.add_argument("--repeat", type=int, default=1)
    options = ask.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "corpus"
        make_corpus(folder, options.files, options.corpus)
        runs = [once(options, str(folder)) for _ in range(options.repeat)]
    wall_s = median([run["wall_s"] for run in runs])
    cpu, stages = by_median(runs, "cpu"), by_median(runs, "stages")
    cores = os.cpu_count() or 1
    each_ms = wall_s / options.files * 1e3
    print(f"{options.files} {options.corpus} files, endpoint {options.latency_ms:.0f} ms: ")
    print(f"{wall_s:.2f} s, {options.files / wall_s:.1f} files/s, {each_ms:.2f} ms a file\n")
    rows = shares(cpu, sum(cpu.values()))
    rows.append(["sum", "", sum(cpu.values())])
    rows.append([f"idle, or others' (of {cores} cores)", "", each_ms * cores - sum(cpu.values())])
    rows.append(["the fake endpoint beside it", "", median([run["fake"] for run in runs])])
    print(table(["CPU per document", "share", "ms"], rows))
    whole = sum(stages.values())
    rows = [*shares(stages, whole), ["sum: 202 → searchable", "", whole]]
    print("\n" + table(["wall time of one document", "share", "ms"], rows))
    print("many are under way at a time: this is how long one takes, not what it costs")
    facts = {"options": vars(options), "runs": runs}
    print(write_json("profile", facts), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
