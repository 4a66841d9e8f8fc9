"""From one host to a thousand: which part is full first, and what moves it.

    python -m bench.simulate [--hosts 1,10,100,1000] [--documents 1000000000]
    python -m bench.simulate --check [--workers 1,2,4] [--files 1000]

A discrete-event model (``bench.queueing``) fed with measured costs: those of ``Costs``, or what
``--check`` measured last (``bench/out/simulate_check.json``). *check* runs the real system with so
many workers beside the model of the same machine. The model knows neither a network that is full
nor hosts that fail, and hosts share work evenly; a billion documents are not simulated one by one:
the steady rate of some ten thousand is, and multiplied.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.chroma_wall import cpu_s
from bench.corpus import make_corpus
from bench.house import House, house
from bench.queueing import Result, Station, Visit, simulate
from bench.report import OUT, median, table, write_json
from unjam.embedding.batcher import LINGER_S
from unjam.pipeline.store import GATHER_ROWS, GATHER_S, ROWS_PER_UPSERT
from unjam.worker.worker import GATHER_S as TAKE_GATHER_S
from unjam.worker.worker import GATHER_SHARE, TAKE_AT_ONCE, room_of

CHECKED = OUT / "simulate_check.json"
DAY_S = 86_400.0


@dataclass(frozen=True)
class Costs:
    """Milliseconds of one small document (2 KB, two chunks), unless said otherwise."""

    client: float = 1.2
    api: float = 1.9
    worker: float = 2.9
    parsing: float = 1.9
    redis: float = 0.3
    watchdog: float = 0.6
    vector_store: float = 2.3
    endpoint: float = 0.0  # CPU on the same machine, which a remote one does not take
    gate: float = 1.7  # SQLite: a group of transitions holds the gate so long, most of it the disk
    gate_each: float = 0.09  # … and for each in it (`bench.ledger`: 553/s singly, 7,800/s by 50)
    commit: float = 2.5  # PostgreSQL: a group holds the lock that orders events for so long,
    # of it 1.1 ms CPU of the client, about 0.5 of the server, the rest for the disk
    transition: float = 0.08  # … and for each transition in it
    take: float = 3.0  # waiting for Redis, when jobs are taken (2–5 in a trace of two workers)
    confirm: float = 4.0  # … and for Chroma, when the ids of an upsert are asked for (3–5)
    chunk: float = 0.54  # one writer of Chroma at its best: 1,850 chunks/s
    request: float = 100.0  # the endpoint's answer

    measured: str = "2026-11 on two cores; `bench.profile`; commits by CPU time on 2026-11-23"


TRANSITIONS = ("accepted", "queued", "claimed", "embedding", "storing", "searchable")
CHUNKS = 2
TEXTS_A_REQUEST = 32
REQUESTS_IN_FLIGHT = 3  # a process
GROUP = 64
UPSERT = 500
CALL_MS, ROW_MS = 12.0, 0.6  # CPU of Chroma for an upsert (``unjam.pipeline.store``)
MOST_IN_FLIGHT = 10_000  # RAG_MAX_CONCURRENT_JOBS at its most
IN_FLIGHT_A_WORKER = 16


# -- one machine -----------------------------------------------------------------------------
def one_machine(costs: Costs, workers: int, cores: float, documents: int) -> Result:
    """``unjam up`` with so many workers: all on the same cores, one SQLite, one Chroma. What waits
    for company (claims, requests, upserts) waits as in the code.

    How many rows an upsert gets is an outcome, so what a call and a row cost is found in rounds: in
    proportion as they were measured, and so much that a document costs what it did.
    """
    scale = 1.0
    for _ in range(4):
        found = _one_machine(costs, workers, cores, documents, scale)
        foretold = CHUNKS * (CALL_MS / found.batch["vector store"] + ROW_MS)
        scale = costs.vector_store / foretold
    return _one_machine(costs, workers, cores, documents, scale)


def _one_machine(costs: Costs, workers: int, cores: float, documents: int, scale: float) -> Result:
    in_flight = min(50, room_of(50) * workers)

    def busy(name: str, ms: float, servers: int = 1, batch: int = 1) -> Station:
        return Station(name, servers, ms / 1e3, batch=batch, sources=servers, cpu="host")

    stations = [
        busy("client", costs.client),
        busy("API", costs.api + costs.watchdog),
        busy("Redis", costs.redis),
        busy("workers", costs.worker / 3, workers),  # before embedding, storing and settling
        busy("parsing", costs.parsing, workers, GROUP),
        busy("endpoint's CPU", costs.endpoint),
        Station(
            "claims",
            workers,
            fixed_s=costs.take / 1e3,
            batch=TAKE_AT_ONCE,
            sources=workers,
            linger_s=TAKE_GATHER_S,
            enough=max(1, in_flight // workers // GATHER_SHARE),
        ),
        Station(
            "endpoint",
            REQUESTS_IN_FLIGHT * workers,
            fixed_s=costs.request / 1e3,
            batch=TEXTS_A_REQUEST,
            sources=workers,
            linger_s=LINGER_S,  # those that were parsed together ask together
        ),
        Station(
            "vector store",
            1,
            scale * ROW_MS / 1e3,
            scale * CALL_MS / 1e3,
            batch=ROWS_PER_UPSERT,
            sources=workers,
            cpu="host",
            linger_s=GATHER_S,
            enough=GATHER_ROWS,
        ),
        Station(
            "confirmation", workers, 0.0, costs.confirm / 1e3, ROWS_PER_UPSERT, sources=workers
        ),
        Station("ledger", 1, costs.gate_each / 1e3, costs.gate / 1e3, GROUP, sources=workers + 1),
    ]
    route = [
        Visit("client"),
        Visit("API"),
        Visit("ledger", 2),
        Visit("Redis"),
        Visit("claims"),
        Visit("ledger"),
        Visit("parsing"),
        Visit("workers"),
        Visit("endpoint", CHUNKS),
        Visit("endpoint's CPU"),
        Visit("workers"),
        Visit("vector store", CHUNKS),
        Visit("confirmation", CHUNKS),
        Visit("workers"),
        Visit("ledger", 3),
    ]
    return simulate(stations, {"host": cores}, route, documents=documents, in_flight=in_flight)


# -- many hosts --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Hosts:
    """*hosts* with two workers each, an API host for every three, and the engines."""

    hosts: int
    ledgers: int = 1
    side_by_side: int = 1  # commits at a time in a ledger; 1: the lock that orders events
    lanes: int = 1  # Redis servers
    writers: int = 1  # shards of the vector store, one writer each
    chunks_per_s: float = 1_850.0  # of one writer
    requests_per_min: float = 1_000.0  # of all key groups together

    @property
    def apis(self) -> int:
        return max(1, self.hosts // 3)

    @property
    def workers(self) -> int:
        return 2 * self.hosts

    @property
    def machines(self) -> int:
        return self.hosts + self.apis + self.ledgers + self.lanes + self.writers


def many_hosts(costs: Costs, house: Hosts, seed: int = 1) -> Result:
    processes = house.workers + house.apis
    stations = [
        Station("API", house.apis, costs.api / 1e3),
        Station(
            "ledger",
            house.ledgers * house.side_by_side,
            costs.transition / 1e3,
            costs.commit / 1e3,
            batch=GROUP,
            sources=processes * house.ledgers,
        ),
        Station("Redis", house.lanes, costs.redis / 1e3),
        Station("workers", house.workers, (costs.worker + costs.parsing) / 1e3, spread=0.5),
        Station(
            "endpoint's rate",
            1,
            fixed_s=60.0 / house.requests_per_min,
            batch=TEXTS_A_REQUEST,
            sources=house.workers,
        ),
        Station(
            "endpoint",
            REQUESTS_IN_FLIGHT * house.workers,
            fixed_s=costs.request / 1e3,
            batch=TEXTS_A_REQUEST,
            sources=house.workers,
            spread=0.3,
        ),
        Station("vector store", house.writers, 1.0 / house.chunks_per_s, batch=UPSERT),
    ]
    route = [
        Visit("API"),
        Visit("ledger"),
        Visit("Redis"),
        Visit("ledger"),
        Visit("ledger"),
        Visit("workers"),
        Visit("ledger"),
        Visit("endpoint's rate", CHUNKS),
        Visit("endpoint", CHUNKS),
        Visit("ledger"),
        Visit("vector store", CHUNKS),
        Visit("ledger"),
    ]
    in_flight = min(IN_FLIGHT_A_WORKER * house.workers, MOST_IN_FLIGHT)
    documents = max(3_000, 3 * in_flight)
    return simulate(stations, {}, route, documents=documents, in_flight=in_flight, seed=seed)


STEPS: tuple[tuple[str, dict[str, float]], ...] = (
    ("as it is shipped", {}),
    ("endpoint without a limit in reach", {"requests_per_min": 1e6}),
    ("… and LanceDB's writer", {"chunks_per_s": 68_000.0}),
    ("… and 4 ledgers", {"ledgers": 4}),
    ("… and 16 ledgers, 4 Redis", {"ledgers": 16, "lanes": 4}),
    ("… with 16 commits side by side", {"side_by_side": 16}),
)
"""Each on top of the ones before it. The last one is a change that was not built: event numbers
without one lock for all, and counters in shards."""
_WHOLE = ("ledgers", "lanes", "side_by_side")


def sweep(costs: Costs, hosts: Sequence[int], documents: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for count in hosts:
        changed: dict[str, Any] = {}
        for name, more in STEPS:
            changed |= {k: int(v) if k in _WHOLE else v for k, v in more.items()}
            house = replace(Hosts(count), **changed)
            found = many_hosts(costs, house)
            days = documents / found.per_s / DAY_S
            rows.append(
                {
                    "hosts": count,
                    "step": name,
                    "per_s": found.per_s,
                    "limit": found.limit,
                    "busy": found.busy[found.limit],
                    "days": days,
                    "machines": house.machines,
                    "machine_days": days * house.machines,
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


# -- against the real thing ----------------------------------------------------------------------
def costs_of(cpu: Mapping[str, float]) -> Costs:
    """What the real run took, by role (milliseconds a document)."""
    return replace(
        Costs(),
        client=cpu.get("client", 0.0),
        api=cpu.get("API", 0.0),
        worker=cpu.get("workers", 0.0),
        parsing=cpu.get("parsing", 0.0),
        redis=cpu.get("Valkey", 0.0),
        watchdog=cpu.get("watchdog", 0.0) + cpu.get("supervisor", 0.0),
        vector_store=cpu.get("Chroma", 0.0),
        endpoint=cpu.get("endpoint", 0.0),
        measured="by --check",
    )


def real(workers: int, files: int, latency_ms: float) -> dict[str, Any]:
    """Wall seconds of few and of many files, and CPU milliseconds a file by role."""
    few = 20
    with house(workers=workers, latency_ms=latency_ms) as ours, tempfile.TemporaryDirectory() as at:
        folders = [Path(at) / name for name in ("first", "few", "many")]
        for folder, count, start in zip(folders, (50, few, files), (0, 100, 1000), strict=True):
            make_corpus(folder, count, first=start)
        ours.command("add", str(folders[0]), "--wait")  # what is loaded on first use
        little = ours.command("add", str(folders[1]), "--wait")
        before = _used_s(ours)
        much = ours.command("add", str(folders[2]), "--wait")
        used = {r: (s - before.get(r, 0.0)) / files * 1e3 for r, s in _used_s(ours).items()}
    more = files - few
    return {
        "workers": workers,
        "per_s": more / max(1e-9, much.wall_s - little.wall_s),
        "cpu": used | {"client": max(0.0, much.cpu_s - little.cpu_s) / more * 1e3},
    }


def _used_s(ours: House) -> dict[str, float]:
    """CPU seconds so far by role, the endpoint's among them."""
    return {**ours.cpu_s(), "endpoint": cpu_s(ours.endpoint_pid())}


def check(
    workers: Sequence[int], files: int, latency_ms: float, cores: float, repeat: int
) -> list[dict[str, Any]]:
    """Medians of real runs, in turns, beside the model of as many workers. It is given what a
    document cost in each of them: a worker's own costs grow with how many share the cores."""
    turns = [[real(n, files, latency_ms) for n in workers] for _ in range(repeat)]
    runs: list[dict[str, Any]] = []
    for count, some in zip(workers, zip(*turns, strict=True), strict=True):
        roles = {role for run in some for role in run["cpu"]}
        cpu = {role: median([run["cpu"].get(role, 0.0) for run in some]) for role in roles}
        costs = replace(costs_of(cpu), request=latency_ms)
        foretold = one_machine(costs, count, cores, 3_000)
        per_s = [run["per_s"] for run in some]
        runs.append(
            {
                "workers": count,
                "per_s": median(per_s),
                "all_per_s": per_s,
                "costs": asdict(costs),
                "model_per_s": foretold.per_s,
                "error": foretold.per_s / median(per_s) - 1.0,
                "limit": foretold.limit,
            }
        )
    known = runs[len(runs) // 2]["costs"]
    write_json("simulate_check", {"costs": known, "cores": cores, "runs": runs})
    return runs


def known_costs() -> Costs:
    """What ``--check`` found here, with the ledger's costs of PostgreSQL as they stand in ``Costs``."""
    if not CHECKED.exists():
        return Costs()
    return Costs(**json.loads(CHECKED.read_text())["costs"])


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--hosts", default="1,10,100,1000")
    ask.add_argument("--documents", type=int, default=1_000_000_000)
    ask.add_argument("--defaults", action="store_true", help="the costs that stand in the source")
    ask.add_argument("--check", action="store_true", help="run the real system beside the model")
    ask.add_argument("--workers", default="1,2,4", help="of --check")
    ask.add_argument("--files", type=int, default=1000, help="of --check")
    ask.add_argument("--repeat", type=int, default=3, help="of --check")
    ask.add_argument("--latency-ms", type=float, default=100.0, help="of --check")
    ask.add_argument("--cores", type=float, default=os.cpu_count() or 1, help="of --check")
    args = ask.parse_args()
    if args.check:
        workers = [int(x) for x in args.workers.split(",")]
        runs = check(workers, args.files, args.latency_ms, args.cores, args.repeat)
        cells = [
            [str(r["workers"]), r["per_s"], r["model_per_s"], f"{r['error']:+.0%}", r["limit"]]
            for r in runs
        ]
        print(table(["workers", "files/s", "the model's", "error", "its limit"], cells))
        return int(any(abs(r["error"]) > 0.15 for r in runs))
    costs = Costs() if args.defaults else known_costs()
    rows = sweep(costs, [int(x) for x in args.hosts.split(",")], args.documents)
    cells = [
        [
            f"{r['hosts']} · {r['step']}",
            f"{r['per_s']:,.0f}",
            f"{r['limit']} ({r['busy']:.0%})",
            f"{r['days']:,.1f}",
            r["machines"],
            f"{r['machine_days']:,.0f}",
        ]
        for r in rows
    ]
    head = ["hosts", "documents/s", "full first", "days", "machines", "machine-days"]
    print(table(head, cells))
    print(write_json("simulate", {"costs": asdict(costs), "rows": rows}), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
