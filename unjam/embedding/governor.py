"""How fast requests may go out: in flight, apart in time, per minute.

Everything is read anew for each request, so a live knob holds from the next one on. Searches have
places of their own and never wait behind ingestion; only the limits per minute bind both.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

Lane = Literal["ingest", "query"]
Knobs = Callable[[], Mapping[str, int]]

QUERY_PLACES = 4
"""Searches in flight beside whatever ingestion does."""

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Per minute and key group; 0 = no limit."""

    requests: int
    tokens: int


class Limiter(Protocol):
    """Counts requests and tokens per key group."""

    async def take(self, group: str, tokens: int, rates: Rates) -> float:
        """0.0 when one request of *tokens* may go now and was counted, else seconds to wait."""
        ...

    async def close(self) -> None: ...


class LocalLimiter:
    """Token buckets of this process, refilled continuously; a burst of *burst_s* seconds."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, burst_s: float = MINUTE_S / 4
    ) -> None:
        self._clock = clock
        self._burst = burst_s / MINUTE_S
        self._levels: dict[tuple[str, str], tuple[float, float]] = {}

    async def take(self, group: str, tokens: int, rates: Rates) -> float:
        now = self._clock()
        costs = {"requests": (1, rates.requests), "tokens": (tokens, rates.tokens)}
        levels: dict[tuple[str, str], tuple[float, float]] = {}
        wait_s = 0.0
        for name, (cost, limit) in costs.items():
            if limit <= 0:
                continue
            room = max(self._burst, 1 / limit)
            level, at = self._levels.get((group, name), (room, now))
            level = min(room, level + (now - at) / MINUTE_S)
            # What exceeds the whole bucket goes when it is full, and leaves a debt.
            missing = min(cost / limit, room) - level
            wait_s = max(wait_s, missing * MINUTE_S)
            levels[group, name] = (level - cost / limit, now)
        if wait_s > 1e-9:
            return wait_s
        self._levels.update(levels)
        return 0.0

    async def close(self) -> None:
        self._levels.clear()


class Places:
    """A semaphore whose size may change at any time; first come, first served."""

    def __init__(self, size: Callable[[], int]) -> None:
        self._size = size
        self._taken = 0
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        return self._taken

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None, None]:
        await self._enter()
        try:
            yield
        finally:
            self._taken -= 1
            self._admit()

    async def _enter(self) -> None:
        if not self._line and self._taken < self._size():
            self._taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # admitted and cancelled in one instant
                self._taken -= 1
            self._admit()
            raise

    def _admit(self) -> None:
        while self._line and self._taken < self._size():
            turn = self._line.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)


class Governor:
    """One per process; every request of every provider passes it."""

    def __init__(
        self,
        knobs: Knobs,
        limiter: Limiter | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = asyncio.sleep,
    ) -> None:
        self._knobs = knobs
        self._limiter = limiter or LocalLimiter(clock=clock)
        self._clock = clock
        self._sleep = sleep
        self._next_start = 0.0
        self._turn = asyncio.Lock()
        self._places: dict[Lane, Places] = {
            "ingest": Places(lambda: self._knobs().get("RAG_EMBEDDING_CONCURRENCY", 1)),
            "query": Places(lambda: QUERY_PLACES),
        }

    def place(self, lane: Lane):
        """Hold it (``async with``) while a request is in flight."""
        return self._places[lane].place()

    async def admit(self, lane: Lane, group: str, tokens: int) -> None:
        """Return when a request of *tokens* may be sent for *group* now."""
        if lane == "query":
            await self._within_rates(group, tokens)
            return
        async with self._turn:  # in order, so nobody starves
            await self._apart()
            await self._within_rates(group, tokens)

    async def close(self) -> None:
        await self._limiter.close()

    async def _apart(self) -> None:
        delay_s = self._knobs().get("RAG_EMBEDDING_DELAY_MS", 0) / 1000
        wait_s = self._next_start - self._clock()
        if wait_s > 0:
            await self._pause(min(wait_s, delay_s))
        self._next_start = self._clock() + delay_s

    async def _within_rates(self, group: str, tokens: int) -> None:
        while True:
            knobs = self._knobs()
            rates = Rates(
                requests=knobs.get("RAG_EMBEDDING_RATE_LIMIT", 0),
                tokens=knobs.get("RAG_EMBEDDING_TOKENS_PER_MINUTE", 0),
            )
            wait_s = await self._limiter.take(group, tokens, rates)
            if wait_s <= 0:
                return
            await self._pause(min(wait_s, 1.0))  # a raised limit is noticed within a second

    async def _pause(self, seconds: float) -> None:
        pause = self._sleep(seconds)
        if asyncio.iscoroutine(pause):
            await pause
