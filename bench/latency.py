"""How soon the API answers while the system works at full speed.

    python -m bench.latency [--seconds 20] [--vectors 100000] [--rate 50]

Documents of 10 chunks are written straight into ledger and Chroma first. Before each phase a long
line of documents is added, so that every worker is busy to its end; meanwhile uploads come at a
fixed rate (an answer is timed from when its upload was due, so a late start counts), or one caller
searches: once with words that are new each time (the endpoint embeds them) and once with words
that were asked before. The same on an idle system stands beside it.
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
from typing import Any

import httpx

from bench.corpus import make_corpus, text_of
from bench.fill import fill_store
from bench.house import House, house
from bench.report import percentile, table, write_json

PROMISED_MS = {"uploads": 100.0, "search, new words": 150.0, "search, known words": 150.0}
CHUNKS_EACH = 10
KNOWN = 20
DOCUMENTS_PER_S = 250
"""So many are put in line for each second of a phase."""


class Feed:
    """A line of documents that is long enough for a phase."""

    def __init__(self, ours: House, seconds: float) -> None:
        self._ours = ours
        self._wanted = int(seconds * DOCUMENTS_PER_S)
        self._next = 1000
        self.done_per_s: dict[str, float] = {}
        self.dry: list[str] = []

    @contextlib.contextmanager
    def under_load(self, phase: str) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            make_corpus(Path(folder), self._wanted, first=self._next)
            self._next += self._wanted
            self._ours.command("add", folder)
        before, began = self._ours.counts(), time.monotonic()
        yield
        after = self._ours.counts()
        done = after["searchable"] - before["searchable"]
        self.done_per_s[phase] = done / (time.monotonic() - began)
        if after["accepted"] - after["searchable"] < 50:
            self.dry.append(phase)


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


def phases(
    ours: House, options: argparse.Namespace, mark: str, load: Callable[[str], Any]
) -> dict[str, list[float]]:
    """Every kind of request for its seconds; *mark* keeps texts of two calls apart."""
    seconds = options.seconds

    def known(number: int) -> str:
        return f"durable index {number % KNOWN}"

    kinds: dict[str, Callable[[], list[float]]] = {
        "uploads": lambda: asyncio.run(uploads_ms(ours.url, options.rate, seconds, mark)),
        "search, new words": lambda: searches_ms(ours.url, seconds, lambda n: f"{mark} bridge {n}"),
        "search, known words": lambda: searches_ms(ours.url, seconds, known),
    }
    with httpx.Client(base_url=ours.url, timeout=30) as client:
        for number in range(KNOWN):
            client.post("/api/rag/search", json={"query": known(number), "k": 5})
    found: dict[str, list[float]] = {}
    for kind, measure in kinds.items():
        with load(kind):
            found[kind] = measure()
    return found


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    ask.add_argument("--vectors", type=int, default=100_000)
    ask.add_argument("--rate", type=float, default=50.0, help="uploads a second")
    ask.add_argument("--latency-ms", type=float, default=0.0, help="the endpoint's")
    ask.add_argument(
        "--directions",
        choices=("latent", "hash"),
        default="latent",
        help="of the vectors: as near each other as a model's, or all unrelated",
    )
    options = ask.parse_args()
    with house(latency_ms=options.latency_ms, endpoint_mode=options.directions) as ours:
        took_s = fill_store(ours, options.vectors // CHUNKS_EACH, CHUNKS_EACH)
        print(f"{options.vectors:,} vectors stored in {took_s:.0f} s", file=sys.stderr, flush=True)
        idle = phases(ours, options, "idle", lambda _: contextlib.nullcontext())
        ours.wait_searchable(ours.counts()["accepted"])
        feed = Feed(ours, options.seconds)
        busy = phases(ours, options, "busy", feed.under_load)
    rows = [
        [
            what,
            f"{percentile(busy[what], 0.99) / PROMISED_MS[what]:.2f}×",
            *[percentile(busy[what], share) for share in (0.5, 0.99, 1.0)],
            PROMISED_MS[what],
            *[percentile(idle[what], share) for share in (0.5, 0.99)],
            len(busy[what]),
            feed.done_per_s[what],
        ]
        for what in PROMISED_MS
    ]
    head = ["milliseconds", "p99 to promise", "p50", "p99", "worst", "promise"]
    print(table([*head, "idle p50", "idle p99", "requests", "documents/s meanwhile"], rows))
    if feed.dry:
        print(f"ran dry before the end, so not all under load: {feed.dry}", file=sys.stderr)
    facts = {
        "options": vars(options),
        "busy": busy,
        "idle": idle,
        "documents_per_s": feed.done_per_s,
    }
    print(write_json("latency", facts), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
