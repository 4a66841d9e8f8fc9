"""Processes that ask an endpoint for as much as their governor lets them, and what came of it.

    python -m unjam.testing.governor_load <endpoint> <redis> <minute_s> <rate> <until>

A minute may be shorter than 60 s: the fake endpoint's window is shortened likewise.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from unjam.core.errors import DependencyDown
from unjam.embedding.governor import Governor
from unjam.embedding.keys import KeyPool
from unjam.embedding.openai import OpenAIProvider
from unjam.embedding.shared_limiter import SharedLimiter
from unjam.testing.openai_process import FakeOpenAI

KEYS = ("team:key-one", "team:key-two")
CALLERS = 6
"""Per process: more than the endpoint lets through, so that there is always demand."""

STARTS_S = 30.0
"""More than the processes need to start."""


@dataclass(frozen=True, slots=True)
class Used:
    """Requests per minute that were served and refused (429), from the first request on."""

    limit: int
    rate: int
    served: tuple[int, ...]
    refused: tuple[int, ...]

    def used_share(self, skip: int = 0) -> float:
        """Of the endpoint's limit, leaving out the first *skip* minutes."""
        return sum(self.served[skip:]) / (self.limit * len(self.served[skip:]))

    def refused_share(self, skip: int = 0) -> float:
        """Of all requests."""
        refused = sum(self.refused[skip:])
        return refused / max(1, refused + sum(self.served[skip:]))


async def measure(
    fake: FakeOpenAI,
    redis_url: str,
    *,
    limit: int,
    rate: int,
    minutes: int,
    minute_s: int = 60,
    processes: int = 2,
) -> Used:
    """Let *processes* with both keys of one group ask for *minutes*, at an endpoint that enforces
    *limit* requests a minute on the group, with governors set to *rate*."""
    projects = {key.partition(":")[2]: "team" for key in KEYS}
    fake.control(
        requests_per_minute=limit, window_s=float(minute_s), projects=projects, latency_ms=20
    )
    until = time.time() + STARTS_S + minute_s * minutes
    arguments = [fake.url, redis_url, str(minute_s), str(rate), str(until)]
    children = [_start(arguments) for _ in range(processes)]
    try:
        begin = await asyncio.to_thread(_first_request, fake)
        rows: list[tuple[int, int]] = []
        before: Mapping[str, int] = {}
        for minute in range(1, minutes + 1):
            await asyncio.sleep(max(0.0, begin + minute * minute_s - time.time()))
            now = fake.stats()["statuses"]
            rows.append(
                (
                    now.get("200", 0) - before.get("200", 0),
                    now.get("429", 0) - before.get("429", 0),
                )
            )
            before = now
    finally:
        for child in children:
            child.kill()
            child.wait()
    return Used(limit, rate, tuple(r[0] for r in rows), tuple(r[1] for r in rows))


def _start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "unjam.testing.governor_load", *arguments])


def _first_request(fake: FakeOpenAI) -> float:
    deadline = time.monotonic() + STARTS_S
    while not fake.stats()["requests"]:
        if time.monotonic() > deadline:
            raise TimeoutError("no process asked for anything")
        time.sleep(0.02)
    return time.time()


async def _ask(url: str, redis_url: str, minute_s: int, rate: int, until: float) -> None:
    """One process: one text after the other, by both keys, until *until* (Unix time)."""
    knobs = {"RAG_EMBEDDING_CONCURRENCY": CALLERS, "RAG_EMBEDDING_RATE_LIMIT": rate}
    governor = Governor(lambda: knobs, SharedLimiter(redis_url, minute_s=minute_s))
    provider = OpenAIProvider(
        base_url=url, model="m", keys=KeyPool(KEYS, rotate=True), governor=governor
    )

    async def caller(number: int) -> None:
        count = 0
        while time.time() < until:
            try:
                await provider.embed([f"{number} {count}"])
            except DependencyDown as error:
                await asyncio.sleep(error.retry_after_s)
            count += 1

    await asyncio.gather(*[caller(n) for n in range(CALLERS)])
    await provider.close()
    await governor.close()


def main() -> None:
    url, redis_url, minute_s, rate, until = sys.argv[1:]
    asyncio.run(_ask(url, redis_url, int(minute_s), int(rate), float(until)))


if __name__ == "__main__":
    main()
