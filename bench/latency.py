"""How soon the API answers while the system works at full speed.

    python -m bench.latency [--seconds 20] [--vectors 100000] [--rate 50]

Documents of 10 chunks are written straight into ledger and Chroma first; then a feeder keeps every
worker busy, and beside it uploads come at a fixed rate (an answer is timed from when its upload
was due, so a late start counts), and afterwards one caller searches, once with words that are new
each time (the endpoint embeds them) and once with words that were asked before. The same on an
idle system stands beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from bench.corpus import make_corpus, text_of
from bench.fill import fill_store
from bench.house import House, house
from bench.report import percentile, table, write_json

PROMISED_MS = {"uploads": 100.0, "search, new words": 150.0, "search, known words": 150.0}
CHUNKS_EACH = 10
KNOWN = 20
FEED_FILES = 4000


@contextlib.contextmanager
def feeding(ours: House, folder: Path) -> Iterator[None]:
    """A user adds a long folder meanwhile; what is left of it is not waited for."""
    before = ours.counts()["accepted"]
    feeder = ours.begin("add", str(folder))
    try:
        until = time.monotonic() + 60
        while ours.counts()["accepted"] < before + 50:  # it is under way
            if time.monotonic() > until or feeder.poll():
                raise TimeoutError("the feeder does not feed")
            time.sleep(0.05)
        yield
    finally:
        feeder.terminate()
        feeder.wait()


async def uploads_ms(url: str, rate: float, seconds: float, mark: str) -> list[float]:
    """Milliseconds from the moment an upload was due to its 202. 429 raises."""
    took: list[float] = []
    async with httpx.AsyncClient(
        base_url=url, timeout=30, limits=httpx.Limits(max_connections=64)
    ) as client:

        async def one(number: int, due: float) -> None:
            data = f"{mark} {number}\n{text_of(number, 1500)}".encode()
            answer = await client.post(
                "/api/rag/documents", files={"file": (f"{mark}-{number}.txt", data)}
            )
            answer.raise_for_status()
            took.append((time.perf_counter() - due) * 1e3)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(int(rate * seconds)):
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.create_task(one(number, due))
    return took


def searches_ms(url: str, seconds: float, words: Callable[[int], str]) -> list[float]:
    """One caller, ten questions a second at most."""
    took: list[float] = []
    with httpx.Client(base_url=url, timeout=30) as client:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            query = words(len(took))
            started = time.perf_counter()
            answer = client.post("/api/rag/search", json={"query": query, "k": 5})
            took.append((time.perf_counter() - started) * 1e3)
            answer.raise_for_status()
            if len(answer.json()["hits"]) != 5:
                raise RuntimeError(f"not five hits: {answer.text[:200]}")
            time.sleep(max(0.0, 0.1 - took[-1] / 1e3))
    return took


def phases(ours: House, options: argparse.Namespace, mark: str) -> dict[str, list[float]]:
    """Every kind of request for its seconds; *mark* keeps texts of two calls apart."""
    seconds = options.seconds

    def known(number: int) -> str:
        return f"durable index {number % KNOWN}"

    searches_ms(ours.url, 0.1, known)  # connections and the collection's id
    found = {"uploads": asyncio.run(uploads_ms(ours.url, options.rate, seconds, mark))}
    with httpx.Client(base_url=ours.url, timeout=30) as client:
        for number in range(KNOWN):
            client.post("/api/rag/search", json={"query": known(number), "k": 5})
    found["search, new words"] = searches_ms(ours.url, seconds, lambda n: f"{mark} bridge {n}")
    found["search, known words"] = searches_ms(ours.url, seconds, known)
    return found


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    ask.add_argument("--vectors", type=int, default=100_000)
    ask.add_argument("--rate", type=float, default=50.0, help="uploads a second")
    ask.add_argument("--latency-ms", type=float, default=0.0, help="the endpoint's")
    options = ask.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        house(latency_ms=options.latency_ms) as ours,
    ):
        took_s = fill_store(ours, options.vectors // CHUNKS_EACH, CHUNKS_EACH)
        print(f"{options.vectors:,} vectors stored in {took_s:.0f} s", file=sys.stderr, flush=True)
        make_corpus(Path(folder), FEED_FILES, first=1000)
        idle = phases(ours, options, "idle")
        ours.wait_searchable(ours.counts()["accepted"])
        before, began = ours.counts()["searchable"], time.monotonic()
        with feeding(ours, Path(folder)):
            busy = phases(ours, options, "busy")
            after, waiting = ours.counts(), time.monotonic() - began
        per_s = (after["searchable"] - before) / waiting
        left = after["accepted"] - after["searchable"]
    rows = [
        [
            what,
            f"{percentile(busy[what], 0.99) / PROMISED_MS[what]:.2f}×",
            *[percentile(busy[what], share) for share in (0.5, 0.99, 1.0)],
            PROMISED_MS[what],
            *[percentile(idle[what], share) for share in (0.5, 0.99)],
            len(busy[what]),
        ]
        for what in PROMISED_MS
    ]
    head = ["milliseconds", "p99 to promise", "p50", "p99", "worst", "promise"]
    print(table([*head, "idle p50", "idle p99", "requests"], rows))
    print(f"meanwhile {per_s:.1f} documents/s became searchable; {left} were left in line")
    if not left:
        print("the feeder ran dry before the end: not all of this was under load", file=sys.stderr)
    facts = {"options": vars(options), "busy": busy, "idle": idle, "documents_per_s": per_s}
    print(write_json("latency", facts), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
