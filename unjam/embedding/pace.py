"""How fast one key group may be asked: the arithmetic. Pure; ``pace.lua`` is its twin in Redis.

Two things hold a group back. The knobs (and what the endpoint says of its own limits) give the
rate at which leaves are spread over the minute, with some credit for a burst: the generic cell
rate algorithm (ITU-T I.371), which needs one number per limit. A 429 pauses the group and cuts
that rate to a little below what just went through; from there it grows slowly at first, then ever
faster, so that a limit is met rarely and a lifted one is used soon (multiplicative decrease as in
Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
Computer Networks", 1989; growth that quickens with the time since the last loss as in TCP CUBIC,
RFC 9438).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

MINUTE_S = 60.0

BURST = 1 / 4
"""Minutes of leaves that may go at once after a calm."""

LEARNT_BURST = 1 / 60
"""The same while the rate is one that a 429 taught: the endpoint's own credit is used up."""

BACK_OFF = 0.85
"""Of the rate that went through just before a 429."""

GROWTH = 0.4
"""After *m* minutes without a 429 the rate is (BACK_OFF + GROWTH · (2^m − 1)) times that rate:
there again after half a minute, over it by 15 % after 50 s, tenfold after five minutes."""

MEASURE = 1 / 6
"""Minutes: time constant of the measured rate."""

CUTS_IN_A_ROW = 6
"""Refusals without one success in between teach nothing more about the rate: pauses grow."""

FIRST_PAUSE_S = 1.0
"""When a 429 does not say how long."""

AGAIN_S = 0.25
"""The second 429 in a row pauses at least this long, every further one twice as long."""

LONGEST_PAUSE_S = 60.0
"""To which pauses grow by themselves; the endpoint may ask for more."""

Why = Literal["", "pace", "pause"]


@dataclass(frozen=True, slots=True)
class Rates:
    """Per minute and key group; 0 = no limit."""

    requests: int
    tokens: int

    def within(self, told: Rates) -> Rates:
        """The tighter of both."""
        return Rates(_tighter(self.requests, told.requests), _tighter(self.tokens, told.tokens))


@dataclass(frozen=True, slots=True)
class Leave:
    """The answer to one request for leave. *wait_s* 0: granted, and counted.

    *at*: when, by the clock of whoever answered. *why* it has to wait: for its turn, or because
    the endpoint asked for a pause. *refusals*: 429s in a row. *rate*: leaves per second; 0 = any.
    """

    wait_s: float
    at: float
    why: Why = ""
    refusals: int = 0
    rate: float = 0.0


@dataclass(slots=True)
class Pace:
    """State of one group; times in seconds of any one clock."""

    minute_s: float = MINUTE_S
    requests_used: float = 0.0  # the time up to which leaves are used up
    tokens_used: float = 0.0
    cut_rate: float = 0.0  # per second, as measured before the last 429; 0 = never one
    cut_at: float = 0.0
    grows_from: float = 0.0
    refusals: int = 0
    paused_until: float = 0.0
    count: float = 0.0  # leaves, decaying
    counted_at: float = 0.0
    counts_from: float = 0.0
    told: Rates = Rates(0, 0)

    def take(self, now: float, tokens: int, rates: Rates, grace_s: float = 0.0) -> Leave:
        """Leave for one request of *tokens*; *grace_s*: how far it may run ahead of its turn."""
        if self.paused_until > now:
            return Leave(self.paused_until - now, now, "pause", self.refusals)
        rates = rates.within(self.told)
        ceiling = rates.requests / self.minute_s
        rate = self._rate(now, ceiling)
        burst = LEARNT_BURST if self.cut_rate > 0 and rate != ceiling else BURST
        requests_used, wait_s = _charge(
            self.requests_used, now, 1.0, rate, burst * self.minute_s, grace_s
        )
        tokens_used, tokens_wait_s = _charge(
            self.tokens_used,
            now,
            float(tokens),
            rates.tokens / self.minute_s,
            BURST * self.minute_s,
            grace_s,
        )
        wait_s = max(wait_s, tokens_wait_s)
        if wait_s > 0:
            return Leave(wait_s, now, "pace", self.refusals, rate)
        self.requests_used, self.tokens_used = requests_used, tokens_used
        self._count(now)
        return Leave(0.0, now, "", self.refusals, rate)

    def give_back(self, now: float, tokens: int, rates: Rates) -> None:
        """A leave was not used."""
        rates = rates.within(self.told)
        rate = self._rate(now, rates.requests / self.minute_s)
        if rate > 0:
            self.requests_used -= 1 / rate
        if rates.tokens > 0:
            self.tokens_used -= tokens * self.minute_s / rates.tokens
        self.count = max(0.0, self.count - 1)

    def refused(self, now: float, sent_at: float, told_s: float | None, rates: Rates) -> float:
        """A request whose leave was given at *sent_at* met a 429. Seconds of pause from now.

        Requests that were under way when the rate was cut teach nothing new (one decrease per
        round trip); their pause is obeyed all the same.
        """
        pause_s = FIRST_PAUSE_S if told_s is None else told_s
        if sent_at > self.cut_at:
            self.refusals += 1
            if self.refusals > 1:
                grown = AGAIN_S * 2.0 ** min(self.refusals - 2, 30)
                pause_s = max(pause_s, min(grown, LONGEST_PAUSE_S))
            if self.refusals <= CUTS_IN_A_ROW:
                self._cut(now, rates.within(self.told).requests / self.minute_s)
            self.cut_at = now
        self.rest(now, pause_s)
        return self.paused_until - now

    def calm(self, told: Rates) -> None:
        """A request went through; the endpoint's own limits, where it told them."""
        self.refusals = 0
        self.told = Rates(told.requests or self.told.requests, told.tokens or self.told.tokens)

    def rest(self, now: float, pause_s: float) -> None:
        """No leave for *pause_s*, and no credit from that time."""
        self.paused_until = max(self.paused_until, now + pause_s)
        self.requests_used = max(self.requests_used, self.paused_until)
        self.tokens_used = max(self.tokens_used, self.paused_until)
        self.grows_from = max(self.grows_from, self.paused_until)

    def _rate(self, now: float, ceiling: float) -> float:
        if self.cut_rate <= 0:
            return ceiling
        minutes = min(max(0.0, now - self.grows_from) / self.minute_s, 30.0)
        rate = self.cut_rate * (BACK_OFF + GROWTH * (2.0**minutes - 1))
        return min(rate, ceiling) if ceiling > 0 else rate

    def _cut(self, now: float, ceiling: float) -> None:
        measure_s = MEASURE * self.minute_s
        measured = 0.0
        if self.count > 0:
            share = 1 - math.exp(-max(now - self.counts_from, 0.001) / measure_s)
            decayed = self.count * math.exp(-max(now - self.counted_at, 0.0) / measure_s)
            measured = decayed / (measure_s * share)
        rate = self._rate(now, ceiling)
        # After a calm little was measured, and a 429 is then somebody else's doing: half at most.
        base = min(max(measured, rate / 2), rate) if rate > 0 else measured
        self.cut_rate = max(base, 1 / self.minute_s)

    def _count(self, now: float) -> None:
        if self.count <= 0:
            self.counts_from = now
        passed = max(now - self.counted_at, 0.0)
        self.count = self.count * math.exp(-passed / (MEASURE * self.minute_s)) + 1
        self.counted_at = now


def _charge(
    used: float, now: float, cost: float, rate: float, credit_s: float, grace_s: float
) -> tuple[float, float]:
    """(time up to which leaves are then used up, seconds to wait before that is allowed)."""
    if rate <= 0:
        return used, 0.0
    # Credit for less than one leave would never let any go.
    credit_s = max(credit_s, 1 / rate)
    used = max(used, now - credit_s)
    # What exceeds the whole credit goes when it is full, and leaves a debt.
    wait_s = used + min(cost / rate, credit_s) - now - grace_s
    return used + cost / rate, wait_s if wait_s > 1e-6 else 0.0


def _tighter(one: int, other: int) -> int:
    return min(one, other) if one > 0 and other > 0 else max(one, other)
