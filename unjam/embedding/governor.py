"""How fast requests may go out: in flight, apart in time, per minute; and what answers teach.

Everything is read anew for each request, so a live knob holds from the next one on. Searches have
places of their own and never wait behind ingestion; only the limits per minute bind both, and a
search may run a little ahead of its turn there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from unjam.embedding.adapt import Adaptive
from unjam.embedding.pace import MINUTE_S, Leave, Pace, Rates

log = logging.getLogger("unjam.embedding")

Lane = Literal["ingest", "query"]
Outcome = Literal["ok", "throttled", "failed"]
Knobs = Callable[[], Mapping[str, int]]

QUERY_PLACES = 4
"""Searches in flight beside whatever ingestion does."""

QUERY_GRACE = 1 / 30
"""Minutes by which a search may run ahead of its turn; ingestion then waits that much longer."""

NOTICE_S = 1.0
"""Longest sleep in one piece: a changed knob is noticed within it."""

SAY_AGAIN_S = 30.0
"""A trouble that repeats is logged again after this long."""


class Limiter(Protocol):
    """Counts requests and tokens per key group, and remembers what the endpoint said of it."""

    async def take(
        self, group: str, tokens: int, rates: Rates, *, ahead: bool = False
    ) -> Leave: ...

    async def refused(
        self, group: str, leave: Leave, told_s: float | None, rates: Rates
    ) -> float: ...

    async def calm(self, group: str, told: Rates, refusals: int) -> None:
        """A request went through; *told*: the endpoint's limits per minute, 0 where unsaid;
        *refusals*: 429s in a row that its leave told of."""
        ...

    async def rest(self, group: str, pause_s: float) -> None: ...

    async def bar(self, key_id: str, code: str, seconds: float) -> None:
        """Tell the other processes that a key is refused."""
        ...

    async def barred(self) -> Mapping[str, tuple[str, float]]:
        """Refused keys that any process told of: id → (waiting reason, seconds left)."""
        ...

    def count(self, outcome: Outcome, took_s: float = 0.0) -> None:
        """A request ended so; *took_s*: until an answer that is of use came."""
        ...

    async def close(self) -> None: ...


class LocalLimiter:
    """The limits of this process alone."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, minute_s: float = MINUTE_S
    ) -> None:
        self._clock = clock
        self._minute_s = minute_s
        self._groups: dict[str, Pace] = {}
        self._barred: dict[str, tuple[str, float]] = {}

    def pace(self, group: str) -> Pace:
        return self._groups.setdefault(group, Pace(self._minute_s))

    async def take(self, group: str, tokens: int, rates: Rates, *, ahead: bool = False) -> Leave:
        grace_s = QUERY_GRACE * self._minute_s if ahead else 0.0
        return self.pace(group).take(self._clock(), tokens, rates, grace_s)

    async def refused(self, group: str, leave: Leave, told_s: float | None, rates: Rates) -> float:
        return self.pace(group).refused(self._clock(), leave.at, told_s, rates)

    async def calm(self, group: str, told: Rates, refusals: int) -> None:
        self.pace(group).calm(told)

    async def rest(self, group: str, pause_s: float) -> None:
        self.pace(group).rest(self._clock(), pause_s)

    async def bar(self, key_id: str, code: str, seconds: float) -> None:
        self._barred[key_id] = (code, self._clock() + seconds)

    async def barred(self) -> Mapping[str, tuple[str, float]]:
        now = self._clock()
        return {k: (code, until - now) for k, (code, until) in self._barred.items() if until > now}

    def count(self, outcome: Outcome, took_s: float = 0.0) -> None:
        """Counted for all processes, or not at all."""

    async def close(self) -> None:
        self._groups.clear()


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


@dataclass(frozen=True, slots=True)
class Admission:
    """A request may go out now, for *group*. *sent_at*: by this process's monotonic clock."""

    lane: Lane
    group: str
    leave: Leave
    texts: int
    tokens: int
    sent_at: float


@dataclass(frozen=True, slots=True)
class Paused:
    """The endpoint asked to leave *group* alone for *wait_s*."""

    group: str
    wait_s: float


class Governor:
    """One per process; every request of every provider passes it, and every answer."""

    def __init__(
        self,
        knobs: Knobs,
        limiter: Limiter | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = asyncio.sleep,
    ) -> None:
        self._knobs = knobs
        self._limiter = limiter or LocalLimiter()
        self._clock = clock
        self._sleep = sleep
        self._last_start = float("-inf")
        self._turn = asyncio.Lock()
        self._said_at: dict[str, float] = {}
        self.adaptive = Adaptive()
        self._places: dict[Lane, Places] = {
            "ingest": Places(self.concurrency),
            "query": Places(lambda: QUERY_PLACES),
        }

    @property
    def limiter(self) -> Limiter:
        return self._limiter

    def concurrency(self) -> int:
        """Requests of ingestion in flight that this process allows itself now."""
        return self.adaptive.concurrency(self._concurrency_knob())

    def batch_size(self) -> int:
        """Texts per request that the endpoint is known to take now."""
        return self.adaptive.batch_size(self._batch_knob(), self._clock())

    def too_large(self, texts: int) -> None:
        """The endpoint refused this many at once, but none of them."""
        self.adaptive.too_large(texts, self._clock())

    def place(self, lane: Lane):
        """Hold it (``async with``) while a request is in flight."""
        return self._places[lane].place()

    async def admit(
        self, lane: Lane, groups: Sequence[str], texts: int, tokens: int
    ) -> Admission | Paused:
        """Return when one request may be sent for one of *groups* (first come first), or at once
        when the endpoint asked that one of them be left alone."""
        if lane == "query":
            return await self._within_rates(lane, groups, texts, tokens)
        async with self._turn:  # in order, so nobody starves
            await self._apart()
            answer = await self._within_rates(lane, groups, texts, tokens)
            if isinstance(answer, Admission):
                self._last_start = answer.sent_at
            return answer

    # -- what answers teach -----------------------------------------------------------------
    async def answered(self, admission: Admission, told: Rates, pause_s: float) -> None:
        """It went well. *told*: the endpoint's limits per minute; *pause_s*: until it has room
        for the next request, as far as it said so."""
        self._limiter.count("ok", self._clock() - admission.sent_at)
        if admission.lane == "ingest":
            self.adaptive.answered(
                admission.texts,
                admission.tokens,
                admission.sent_at,
                self._clock(),
                concurrency=self._concurrency_knob(),
                batch=self._batch_knob(),
            )
        await self._limiter.calm(admission.group, told, admission.leave.refusals)
        if pause_s > 0:
            await self._limiter.rest(admission.group, pause_s)

    async def refused(self, admission: Admission, told_s: float | None) -> float:
        """A 429, asking to wait *told_s*. How long the group is paused, in all processes."""
        self._limiter.count("throttled")
        if admission.lane == "ingest":
            self.adaptive.throttled(
                admission.sent_at, self._clock(), concurrency=self._concurrency_knob()
            )
        pause_s = await self._limiter.refused(
            admission.group, admission.leave, told_s, self._rates()
        )
        self._say("Embedding API rate limit exceeded", group=admission.group, pause_s=pause_s)
        return pause_s

    def failed(self, admission: Admission, *, timed_out: bool = False) -> None:
        """No answer, or one that is of no use."""
        self._limiter.count("failed")
        if timed_out and admission.lane == "ingest":
            self.adaptive.timed_out(
                admission.sent_at,
                self._clock(),
                concurrency=self._concurrency_knob(),
                batch=self._batch_knob(),
            )

    async def bar(self, key_id: str, name: str, code: str, seconds: float) -> None:
        """A key itself was refused: said here, and told to the other processes."""
        self._say("Embedding API key refused", key=name, reason=code, again_in_s=seconds)
        await self._limiter.bar(key_id, code, seconds)

    async def close(self) -> None:
        await self._limiter.close()

    # -- waiting ----------------------------------------------------------------------------
    async def _apart(self) -> None:
        while True:
            delay_s = self._knobs().get("RAG_EMBEDDING_DELAY_MS", 0) / 1000
            wait_s = self._last_start + delay_s - self._clock()
            if wait_s <= 0:
                return
            await self._pause(min(wait_s, NOTICE_S))

    async def _within_rates(
        self, lane: Lane, groups: Sequence[str], texts: int, tokens: int
    ) -> Admission | Paused:
        while True:
            wait_s = NOTICE_S
            for group in groups:
                leave = await self._limiter.take(
                    group, tokens, self._rates(), ahead=lane == "query"
                )
                if leave.wait_s <= 0:
                    return Admission(lane, group, leave, texts, tokens, self._clock())
                if leave.why == "pause":
                    return Paused(group, leave.wait_s)
                wait_s = min(wait_s, leave.wait_s)
            await self._pause(wait_s)

    async def _pause(self, seconds: float) -> None:
        pause = self._sleep(seconds)
        if asyncio.iscoroutine(pause):
            await pause

    def _rates(self) -> Rates:
        knobs = self._knobs()
        return Rates(
            requests=knobs.get("RAG_EMBEDDING_RATE_LIMIT", 0),
            tokens=knobs.get("RAG_EMBEDDING_TOKENS_PER_MINUTE", 0),
        )

    def _concurrency_knob(self) -> int:
        return self._knobs().get("RAG_EMBEDDING_CONCURRENCY", 1)

    def _batch_knob(self) -> int:
        return self._knobs().get("RAG_EMBEDDING_BATCH_SIZE", 32)

    def _say(self, sentence: str, **fields: object) -> None:
        # Operators' greps look for the first of these sentences literally. Fifty requests meet
        # one limit: it is said once.
        about = f"{sentence} {fields.get('group', '')}{fields.get('key', '')}"
        now = self._clock()
        if now - self._said_at.get(about, float("-inf")) >= SAY_AGAIN_S:
            self._said_at[about] = now
            log.error(sentence, extra={"fields": fields})
