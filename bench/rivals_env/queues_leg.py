"""SAQ, Dramatiq and Taskiq doing nothing: one process that puts jobs in, or one that works.

Each process says ``ready`` when it is; whoever puts in begins at a line on its stdin. What was done
is counted in a file that all share, eight bytes a worker, so that counting costs nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import struct
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

AT_ONCE = 50


class Counter:
    def __init__(self, path: str, slot: int) -> None:
        with Path(path).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._place = slot * 8
        self._done = 0

    def add(self) -> None:
        self._done += 1
        struct.pack_into("q", self._map, self._place, self._done)


def ready() -> None:
    print("ready", flush=True)


async def put_in(put: Callable[[], Awaitable[Any]], jobs: int) -> None:
    """So many at a time: one round trip after the other would be all that is measured."""
    ready()
    await asyncio.to_thread(sys.stdin.readline)
    for _ in range(0, jobs, AT_ONCE):
        await asyncio.gather(*(put() for _ in range(AT_ONCE)))


def saq(args: argparse.Namespace, counter: Counter) -> Coroutine[Any, Any, None]:
    from saq import Queue, Worker

    queue = Queue.from_url(args.url, name="bench")

    async def noop(_: Any) -> None:
        counter.add()

    async def run() -> None:
        await queue.connect()
        if args.role == "enqueue":
            await put_in(lambda: queue.enqueue("noop"), args.jobs)
            return
        worker = Worker(queue, functions=[("noop", noop)], concurrency=args.width)
        ready()
        await worker.start()

    return run()


def taskiq(args: argparse.Namespace, counter: Counter) -> Coroutine[Any, Any, None]:
    from taskiq.api import run_receiver_task
    from taskiq_redis import ListQueueBroker

    broker = ListQueueBroker(url=args.url, queue_name="bench-taskiq")

    @broker.task(task_name="noop")
    async def noop() -> None:
        counter.add()

    async def run() -> None:
        if args.role == "enqueue":
            await broker.startup()
            await put_in(noop.kiq, args.jobs)
            return
        broker.is_worker_process = True
        ready()
        await run_receiver_task(broker, run_startup=True, max_async_tasks=args.width)

    return run()


def dramatiq(args: argparse.Namespace, counter: Counter) -> Coroutine[Any, Any, None]:
    import dramatiq as lib
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=args.url)
    lib.set_broker(broker)

    @lib.actor(queue_name="bench")
    def noop() -> None:
        counter.add()

    async def run() -> None:
        if args.role == "enqueue":
            ready()
            await asyncio.to_thread(sys.stdin.readline)
            for _ in range(args.jobs):
                noop.send()
            return
        lib.Worker(broker, worker_threads=8).start()
        ready()
        await asyncio.Event().wait()

    return run()


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("kind", choices=["saq", "taskiq", "dramatiq"])
    ask.add_argument("role", choices=["enqueue", "work"])
    ask.add_argument("--url", required=True)
    ask.add_argument("--jobs", type=int, required=True)
    ask.add_argument("--counter", required=True)
    ask.add_argument("--slot", type=int, default=0)
    ask.add_argument("--width", type=int, default=32)
    args = ask.parse_args()
    asyncio.run(globals()[args.kind](args, Counter(args.counter, args.slot)))


if __name__ == "__main__":
    main()
