"""What it costs to do nothing: a watchdog round and an idle worker beside a long backlog.

    python -m bench.idle [--documents 1000000] [--rounds 30]

Fills a ledger (SQLite) and Valkey with queued documents in bulk, then runs the reconciler's rounds
in this process, and a real worker that may not take anything (``rq suspend``). CPU time counts,
ours and Valkey's, not the clock; the same with a hundred documents stands beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import redis
import sqlalchemy as sa

from bench.report import median, table, write_json
from unjam.core.document import Fingerprint, Pin, Ticket
from unjam.queue import keys
from unjam.queue.jobs import DESCRIPTION, encode, stamp
from unjam.queue.lanes import PROCESSING
from unjam.queue.rq_queue import RqQueue
from unjam.stores import schema
from unjam.stores.blobs import LocalBlobs
from unjam.stores.ledger import SqlLedger
from unjam.stores.ledger.dialect import dialect_of
from unjam.stores.memory_vectors import MemoryVectors
from unjam.testing.stack import Stack
from unjam.testing.wait import until
from unjam.watchdog import reconcile
from unjam.watchdog.reconcile import Reconciler
from unjam.worker.children import spawn
from unjam.worker.embedded import Server, plan_valkey, until_ready

PIN = Pin(Fingerprint("local", "bench", dimension=8), 256, 32, "local")
BLOCK = 5_000
WORKER_S = 20.0


def row(n: int) -> dict[str, Any]:
    """A document in line."""
    return {
        "id": f"0190{n:032x}",
        "user_id": f"user-{n % 50}",
        "filename": f"file-{n}.pdf",
        "media_type": "application/pdf",
        "size_bytes": 100_000,
        "content_hash": f"{n:064x}",
        "pin_id": PIN.id,
        "home_lane": PROCESSING,
        "lane": PROCESSING,
        "created_at": time.time(),
        "updated_at": time.time(),
        "state": "queued",
        "generation": 1,
        "enqueue_seq": 1,
        "slo_since": None,
    }


def fill(url: str, admin_url: str, documents: int) -> None:
    engine = dialect_of(url, durable=False).writer()
    with engine.begin() as conn:
        values = {"id": PIN.id, "fingerprint_id": PIN.fingerprint.id, "json": PIN.to_json()}
        conn.execute(sa.insert(schema.pins), values)
    server = redis.Redis.from_url(admin_url)
    server.config_set("appendonly", "no")
    server.sadd(keys.QUEUES, keys.lane(PROCESSING))
    first = row(0)
    data = encode(Ticket(first["id"], 1, PROCESSING, first["size_bytes"]))
    for start in range(0, documents, BLOCK):
        rows = [row(n) for n in range(start, min(documents, start + BLOCK))]
        with engine.begin() as conn:
            conn.execute(sa.insert(schema.documents), rows)
            accepted = [{"document_id": r["id"], "at": 0} for r in rows]
            conn.execute(sa.insert(schema.acceptances), accepted)
        pipe = server.pipeline(transaction=False)
        now = stamp(datetime.now(UTC))
        for r in rows:
            ticket = Ticket(r["id"], 1, PROCESSING, r["size_bytes"])
            job = {
                "data": data.replace(first["id"], r["id"]),
                "status": "queued",
                "origin": PROCESSING,
                "created_at": now,
                "enqueued_at": now,
                "timeout": "-1",
                "description": DESCRIPTION,
            }
            pipe.hset(keys.job(ticket.job_id), mapping=job)
            pipe.rpush(keys.lane(PROCESSING), ticket.job_id)
        pipe.execute()
    engine.dispose()
    server.close()


def redis_cpu_s(admin_url: str) -> float:
    with redis.Redis.from_url(admin_url) as server:
        cpu = cast(dict[str, Any], server.info("cpu"))
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


def own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def rounds(ledger: SqlLedger, url: str, admin_url: str, count: int) -> dict[str, float]:
    """The median round's CPU milliseconds, and the longest."""
    queue = RqQueue(url)
    nothing = cast(Any, None)
    keeper = Reconciler(
        ledger, queue, MemoryVectors(), _NoBlobs(), nothing, lambda: PIN, lambda _: None
    )
    try:
        began = own_cpu_s() + redis_cpu_s(admin_url)
        await keeper.tick()  # a Redis that is new to the ledger: everything is looked at
        whole_s = own_cpu_s() + redis_cpu_s(admin_url) - began
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(count):
            mine, its = own_cpu_s(), redis_cpu_s(admin_url)
            await keeper.tick()
            theirs.append((redis_cpu_s(admin_url) - its) * 1e3)
            ours.append((own_cpu_s() - mine) * 1e3)
    finally:
        await queue.close()
    share = (median(ours) + median(theirs)) / 1e3 / 2.0 * 100
    return {
        "watchdog round, our CPU ms": median(ours),
        "watchdog round, our CPU ms, worst": max(ours),
        "watchdog round, Valkey CPU ms": median(theirs),
        "watchdog, % of a core": share,
        "whole audit of the lanes, CPU s": whole_s,
        "documents compared a round": float(reconcile.SLICE),
    }


class _NoBlobs:
    """The folder of originals is empty here."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def answer(*_: Any) -> dict[str, int]:
            return {}

        return answer


async def idle_worker(folder: Path, url: str, admin_url: str) -> dict[str, float]:
    """A real worker beside the backlog; ``rq suspend`` keeps it from taking anything."""
    with redis.Redis.from_url(admin_url) as server:
        server.set(keys.SUSPENDED, 1)
    async with Stack(folder, url, "http://127.0.0.1:9", "http://127.0.0.1:9/v1") as stack:
        worker = stack.worker()

        async def listens() -> bool:
            return "Worker listens" in worker.output()

        await until("it listens", listens, deadline_s=60)
        await asyncio.sleep(5.0)  # its parsers load
        mine, its = cpu_of(worker.pid), redis_cpu_s(admin_url)
        await asyncio.sleep(WORKER_S)
        used, served = cpu_of(worker.pid) - mine, redis_cpu_s(admin_url) - its
        await worker.stop()
    return {
        "idle worker, % of a core": used / WORKER_S * 100,
        "Valkey beside it, % of a core": served / WORKER_S * 100,
    }


async def measure(documents: int, count: int) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="unjam-idle-"))
    plan = await plan_valkey(folder, 0)
    child = spawn(plan.name, plan.command, folder / "valkey.log")
    plan.record(child)
    await until_ready(plan, child)
    server = Server(plan, child)
    try:
        url = f"sqlite:///{folder / 'ledger.db'}"
        ledger = await SqlLedger.open(url, gate_dir=folder)
        await asyncio.to_thread(LocalBlobs(folder / "blobs").claim_root, ledger.id)
        await asyncio.to_thread(fill, url, plan.admin_url, documents)
        try:
            facts = await rounds(ledger, plan.url, plan.admin_url, count)
        finally:
            await ledger.close()
        return facts | await idle_worker(folder, plan.url, plan.admin_url)
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    small = asyncio.run(measure(100, options.rounds))
    large = asyncio.run(measure(options.documents, options.rounds))
    head = ["", "100 queued", f"{options.documents:,} queued"]
    print(table(head, [[name, small[name], large[name]] for name in large]))
    facts = {"documents": options.documents, "small": small, "large": large}
    write_json("idle", facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
