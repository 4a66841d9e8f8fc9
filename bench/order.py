"""Operators' levers on a long lane while workers take from it, and what fairness costs a push.

    python -m bench.order [--documents 100000] [--users 100] [--takers 2]

Fills a ledger (SQLite) and a lane (Valkey, appendfsync always), then reorders the whole lane by
each strategy, moves lanes by size and by rules, and puts single documents and batches of several
users into it. *longest take*: what a worker waited at most for its next documents meanwhile. At
the end every document must have been taken exactly once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import get_args

from bench.report import table, write_json
from unjam.core.document import Fingerprint, Pin, Submission, Ticket
from unjam.core.ports import Strategy
from unjam.queue import order
from unjam.queue.lanes import DEFAULT_LANES, LARGE, PROCESSING
from unjam.queue.rq_queue import RqQueue
from unjam.queue.rules import MIB, parse_rules
from unjam.stores.ledger import SqlLedger
from unjam.worker.children import spawn
from unjam.worker.embedded import Server, free_port, plan_valkey, until_ready

PIN = Pin(Fingerprint("local", "bench", dimension=8), 256, 32, "local")
PART = 500
RULES = [
    {"file_size_mb": {"$lt": 5}, "priority": "high"},
    {"file_size_mb": {"$lt": 20}, "priority": "normal"},
    {"file_size_mb": {"$gte": 20}, "priority": "low"},
]


def submission(n: int, users: int, dice: random.Random) -> Submission:
    """User 0 has half of everything; one document of a hundred is large."""
    user = 0 if n % 2 else dice.randrange(1, users)
    size = dice.randrange(11 * MIB, 40 * MIB) if n % 100 == 0 else dice.randrange(1000, 8 * MIB)
    name, digest = f"{n:012}", f"{n:064x}"
    return Submission(name, f"u{user}", "a.txt", "text/plain", size, digest, PIN, PROCESSING)


class Takers:
    """Workers that take, and hold what they took."""

    def __init__(self, url: str, count: int) -> None:
        self.taken = Counter[str]()
        self.longest_s = 0.0
        self._url = url
        self._count = count

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        stop, self.longest_s = asyncio.Event(), 0.0
        tasks = [asyncio.create_task(self._take(f"w{n}", stop)) for n in range(self._count)]
        yield
        stop.set()
        await asyncio.gather(*tasks)

    async def _take(self, name: str, stop: asyncio.Event) -> None:
        queue = RqQueue(self._url)
        while not stop.is_set():
            begun = time.perf_counter()
            tickets = await queue.take(DEFAULT_LANES, 4, name)
            self.longest_s = max(self.longest_s, time.perf_counter() - begun)
            await self.keep(queue, tickets, name)
            await asyncio.sleep(0.01)
        await queue.close()

    async def keep(self, queue: RqQueue, tickets: list[Ticket], name: str) -> None:
        self.taken.update(t.document_id for t in tickets)
        await queue.started(tickets, name)
        await queue.finished(tickets, name)


def cpu_s(pid: int) -> float:
    """What the process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run(options: argparse.Namespace, folder: Path, server: Server) -> list[list[object]]:
    url, pid = server.url, server.child.pid
    ledger = await SqlLedger.open(f"sqlite:///{folder / 'ledger.db'}", durable=False)
    queue = RqQueue(url)
    takers = Takers(url, options.takers)
    rows: list[list[object]] = []

    async def timed(what: str, work: Callable[[], Awaitable[object]]) -> None:
        async with takers.at_work():
            begun, used = time.perf_counter(), cpu_s(pid)
            done = await work()
            took_s, used = time.perf_counter() - begun, cpu_s(pid) - used
        touched = len(done) if isinstance(done, list) else ""
        rows.append([what, touched, f"{took_s:.2f}", f"{used:.2f}", f"{takers.longest_s:.2f}"])
        print(*rows[-1], file=sys.stderr)

    dice = random.Random(0)
    everything = [submission(n, options.users, dice) for n in range(options.documents)]
    for start in range(0, options.documents, PART):
        await ledger.accept(everything[start : start + PART])
    begun, used = time.perf_counter(), cpu_s(pid)
    while tickets := await ledger.pushable(PART):
        await queue.push(tickets)
        await ledger.mark_pushed(tickets)
    per_s = options.documents / (time.perf_counter() - begun)
    rows.append(
        [f"outbox, {per_s:,.0f} documents/s", options.documents, "", f"{cpu_s(pid) - used:.2f}", ""]
    )

    strategies: tuple[Strategy, ...] = get_args(Strategy)
    for by in strategies:
        await timed(by, lambda by=by: order.reorder(ledger, queue, PROCESSING, by, 100_000))
    few = "newest_first, limit 100"
    await timed(few, lambda: order.reorder(ledger, queue, PROCESSING, "newest_first", 100))
    await order.reorder(ledger, queue, PROCESSING, "fair", options.documents + 1)
    extra: list[Ticket] = []
    for what, users, count in (("one", 1, 1), ("a hundred of ten users", 10, 100)):
        some = [
            Ticket(f"x{what[:1]}{n:05}", 1, PROCESSING, 9, f"u{n % users + 1}")
            for n in range(count)
        ]
        extra += some
        await timed(f"push {what}", lambda some=some: queue.push(some))
    await queue.register_worker("bench", DEFAULT_LANES, 1)
    await timed("separate", lambda: order.separate(ledger, queue, 10 * MIB, LARGE))
    rules = parse_rules(RULES)
    await timed("prioritise", lambda: order.prioritise(ledger, queue, rules))
    while tickets := await queue.take(DEFAULT_LANES, 1000, "bench"):
        await takers.keep(queue, tickets, "bench")
    wanted = {s.document_id for s in everything} | {t.document_id for t in extra}
    lost = len(wanted - set(takers.taken))
    twice = sum(n > 1 for n in takers.taken.values())
    rows.append([f"lost {lost}, taken twice {twice}", len(takers.taken), "", "", ""])
    await queue.close()
    await ledger.close()
    if lost or twice:
        raise SystemExit(f"lost {lost}, taken twice {twice}")
    return rows


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = await plan_valkey(folder, free_port(0))
        child = spawn(plan.name, plan.command, folder / "valkey.log")
        plan.record(child)
        await until_ready(plan, child)
        server = Server(plan, child)
        try:
            rows = await run(options, folder, server)
        finally:
            await server.stop()
    head = ["what", "documents", "s", "Redis CPU s", "longest take, s"]
    print(table(head, rows))
    write_json("order", {"options": vars(options), "head": head, "rows": rows})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--takers", type=int, default=2)
    asyncio.run(main(parser.parse_args()))
