"""How long to wait before the next try."""

from __future__ import annotations

import random

ERROR_BUDGET = 5
"""Errors of its own after which a document is parked."""

DEATH_BUDGET = 3
"""Deaths of a worker while it held only this document, at one step, without progress, in a quiet
house."""

QUIET_S = 10.0
"""A house is quiet when no process of it died for this long, the judged document's apart; a
document also waits so long between two deaths that count, so that workers are seen without it."""

LONE_DEATHS = 20
"""Deaths alone at one place after which a document is parked, however unquiet the house is."""


def full_jitter(attempt: int, base_s: float = 1.0, cap_s: float = 300.0) -> float:
    """Seconds before try *attempt* + 1 (attempt ≥ 1): uniform in (0, min(cap, base·2^attempt)].

    "Full jitter" of AWS' Architecture Blog, "Exponential Backoff And Jitter" (2015): of the
    variants compared there the one with the least total work under contention.
    """
    ceiling = min(cap_s, base_s * (2 ** min(attempt, 32)))
    return ceiling * (1.0 - random.random())
