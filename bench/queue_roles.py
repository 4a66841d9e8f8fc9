"""Processes of ``bench.noop``: who puts documents or jobs in, and who works, for unjam and for RQ.

    python -m bench.queue_roles unjam|rq-simple|rq-fork enqueue|work …

Each says ``ready`` when it is; whoever puts in begins at a line on its stdin.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import os
import signal
import struct
import sys
from pathlib import Path
from typing import Any, cast

from unjam.core.document import Fingerprint, Pin, Submission, Ticket
from unjam.core.outcome import Done
from unjam.pipeline.run import Tools
from unjam.pipeline.steps import no_checkpoint
from unjam.queue.lanes import DEFAULT_LANES, PROCESSING
from unjam.queue.rq_queue import RqQueue
from unjam.stores.ledger import SqlLedger
from unjam.worker import task
from unjam.worker.identity import process_identity
from unjam.worker.worker import Worker, WorkerOptions

PIN = Pin(Fingerprint("local", "bench", dimension=8), 256, 32, "local")
GROUP = 50
MAX_CONCURRENT = 50
"""The system-wide cap as it is shipped."""
COUNTER = "BENCH_COUNTER"

_map: mmap.mmap | None = None


def ready(*, wait: bool = False) -> None:
    print("ready", flush=True)
    if wait:
        sys.stdin.readline()


# -- unjam ----------------------------------------------------------------------------------
def ledger_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.db'}"


async def unjam_enqueue(folder: Path, url: str, documents: int) -> None:
    """As uploads do: accepted in groups, durable, then rung in."""
    ledger, queue = await SqlLedger.open(ledger_url(folder), gate_dir=folder), RqQueue(url)
    await asyncio.to_thread(ready, wait=True)
    for start in range(0, documents, GROUP):
        names = [f"0190{n:028x}" for n in range(start, min(documents, start + GROUP))]
        some = [
            Submission(name, "", "a.txt", "text/plain", 2000, f"{name:0>64}", PIN, PROCESSING)
            for name in names
        ]
        await ledger.accept(some)
        tickets = [Ticket(s.document_id, 1, PROCESSING, s.size_bytes) for s in some]
        await queue.push(tickets)
        await ledger.mark_pushed(tickets)
    await queue.close()
    await ledger.close()


async def unjam_work(folder: Path, url: str) -> None:
    """The real worker; only the documents' own run is nothing."""

    async def nothing(*_: object) -> Done:
        return Done(0)

    task.run = nothing
    ledger, queue = await SqlLedger.open(ledger_url(folder), gate_dir=folder), RqQueue(url)
    absent = cast(Any, None)
    tools = Tools(
        blobs=absent,
        parser=absent,
        embedder=absent,
        writer=absent,
        tokenizer_of=absent,
        limits=absent,
        checkpoint=no_checkpoint,
    )
    worker = Worker(
        ledger=ledger,
        queue=queue,
        tools=tools,
        me=process_identity("worker"),
        options=WorkerOptions(lanes=DEFAULT_LANES),
        max_concurrent=lambda: MAX_CONCURRENT,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    ready()
    await worker.run()
    await queue.close()
    await ledger.close()


# -- RQ -------------------------------------------------------------------------------------
def noop() -> None:
    """The job. Counts in the file that COUNTER names, at the process's slot."""
    global _map
    path, _, slot = os.environ[COUNTER].rpartition(":")
    if _map is None:
        with Path(path).open("r+b") as file:
            _map = mmap.mmap(file.fileno(), 0)
    place = int(slot) * 8
    struct.pack_into("q", _map, place, struct.unpack_from("q", _map, place)[0] + 1)


def rq_enqueue(url: str, jobs: int) -> None:
    import redis
    from rq import Queue

    client = redis.Redis.from_url(url)
    queue = Queue("bench", connection=client)
    ready(wait=True)
    for start in range(0, jobs, GROUP):
        some = [Queue.prepare_data(noop) for _ in range(min(GROUP, jobs - start))]
        queue.enqueue_many(some)


def rq_work(url: str, *, fork: bool) -> None:
    import redis
    from rq import Queue, SimpleWorker, Worker

    client = redis.Redis.from_url(url)
    kind = Worker if fork else SimpleWorker
    worker = kind([Queue("bench", connection=client)], connection=client)
    ready()
    worker.work(logging_level="ERROR")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("kind", choices=["unjam", "rq-simple", "rq-fork"])
    ask.add_argument("role", choices=["enqueue", "work"])
    ask.add_argument("--url", required=True)
    ask.add_argument("--jobs", type=int, required=True)
    ask.add_argument("--counter", required=True)
    ask.add_argument("--slot", type=int, default=0)
    ask.add_argument("--folder", type=Path, required=True)
    args = ask.parse_args()
    os.environ[COUNTER] = f"{args.counter}:{args.slot}"
    if args.kind == "unjam":
        import uvloop

        work = unjam_work(args.folder, args.url)
        if args.role == "enqueue":
            work.close()
            work = unjam_enqueue(args.folder, args.url, args.jobs)
        uvloop.run(work)
    elif args.role == "enqueue":
        rq_enqueue(args.url, args.jobs)
    else:
        rq_work(args.url, fork=args.kind == "rq-fork")


if __name__ == "__main__":
    main()
