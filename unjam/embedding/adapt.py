"""How many requests at a time, and of how many texts: additive increase, multiplicative decrease.

Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
Computer Networks" (1989): of the linear rules, only this one leads several senders that see one
bit ("overloaded?") to a fair and efficient share. The bit is a 429, a time-out, or latency far
above what the endpoint can do. The knobs are upper bounds and the start. Pure: no I/O, no clock.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field

THROTTLED = 0.5
TIMED_OUT = 0.5
SLOW = 0.8
"""What remains after each kind of overload."""

SLOW_TIMES = 2.5
SLOW_S = 0.25
"""Overloaded: the median latency is this many times the best of its size, and this much more."""

SAMPLES = 5
FORGET = 1.002
"""The best latency of a size is forgotten by so much with each slower answer: an endpoint that
became slower for good is taken as it is after some hundred answers."""

REMEMBER_S = 600.0
"""A number of texts that the endpoint called too many is not tried again for this long."""


@dataclass(slots=True)
class Window:
    """One quantity under AIMD. Above its bound it does not limit at all."""

    value: float = math.inf
    cut_at: float = -math.inf

    def within(self, bound: int) -> int:
        return max(1, int(min(self.value, bound)))

    def up(self, bound: int, step: float) -> None:
        self.value += step
        if self.value >= bound:
            self.value = math.inf  # a bound that is raised holds at once

    def down(self, bound: int, factor: float, sent_at: float, now: float) -> bool:
        """One decrease per round trip: what was under way at the last one says nothing new."""
        if sent_at <= self.cut_at:
            return False
        self.value = max(1.0, min(self.value, bound) * factor)
        self.cut_at = now
        return True


@dataclass(slots=True)
class Adaptive:
    """Concurrency and batch size towards one endpoint. *now*, *sent_at*: seconds of one clock."""

    concurrency_window: Window = field(default_factory=Window)
    batch_window: Window = field(default_factory=Window)
    latency_s: float = 0.0  # of recent answers; 0 = none yet
    _best: dict[int, float] = field(default_factory=dict[int, float])
    _ratios: deque[tuple[float, float]] = field(
        default_factory=lambda: deque[tuple[float, float]](maxlen=SAMPLES)
    )
    _too_many: float = math.inf
    _too_many_at: float = -math.inf

    def concurrency(self, bound: int) -> int:
        """Requests at a time, 1 … *bound*."""
        return self.concurrency_window.within(bound)

    def batch_size(self, bound: int, now: float) -> int:
        """Texts per request, 1 … *bound*."""
        return self.batch_window.within(self._batch_bound(bound, now))

    def answered(
        self, texts: int, tokens: int, sent_at: float, now: float, *, concurrency: int, batch: int
    ) -> None:
        """A request went well. *concurrency*, *batch*: the bounds."""
        took_s = now - sent_at
        self.latency_s = took_s if not self.latency_s else 0.8 * self.latency_s + 0.2 * took_s
        if self._slow(tokens, took_s):
            if self.concurrency_window.down(concurrency, SLOW, sent_at, now):
                self._ratios.clear()
        else:
            # One more after each round of as many answers as are in flight.
            self.concurrency_window.up(concurrency, 1 / self.concurrency(concurrency))
        if texts >= self.batch_size(batch, now):
            self.batch_window.up(self._batch_bound(batch, now), max(1, batch // 64))

    def throttled(self, sent_at: float, now: float, *, concurrency: int) -> None:
        """A request met a 429."""
        self.concurrency_window.down(concurrency, THROTTLED, sent_at, now)

    def timed_out(self, sent_at: float, now: float, *, concurrency: int, batch: int) -> None:
        """A request was not answered in time: fewer, and smaller."""
        self.concurrency_window.down(concurrency, TIMED_OUT, sent_at, now)
        self.batch_window.down(batch, TIMED_OUT, sent_at, now)

    def too_large(self, texts: int, now: float) -> None:
        """The endpoint refused *texts* at once, but none of them."""
        if texts < 2:
            return
        if now - self._too_many_at >= REMEMBER_S:
            self._too_many = math.inf
        self._too_many = min(self._too_many, texts)
        self._too_many_at = now
        self.batch_window.value = max(1.0, min(self.batch_window.value, texts // 2))

    def _batch_bound(self, bound: int, now: float) -> int:
        if now - self._too_many_at >= REMEMBER_S:
            return bound
        return max(1, int(min(bound, self._too_many - 1)))

    def _slow(self, tokens: int, took_s: float) -> bool:
        """Compared with the best of requests of about the same size (powers of two)."""
        size = max(1, tokens).bit_length()
        best = min(took_s, self._best.get(size, math.inf) * FORGET)
        self._best[size] = best
        self._ratios.append((took_s / max(best, 1e-6), took_s - best))
        if len(self._ratios) < SAMPLES:
            return False
        times = statistics.median(ratio for ratio, _ in self._ratios)
        more_s = statistics.median(more for _, more in self._ratios)
        return times >= SLOW_TIMES and more_s >= SLOW_S
