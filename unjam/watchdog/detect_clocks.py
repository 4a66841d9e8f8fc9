"""Symptoms of clocks: one that jumped, and a host's that differs from the ledger's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from unjam.core.incident import Saying
from unjam.watchdog.facts import Facts, History
from unjam.watchdog.symptom import Symptom, apart

JUMP_S = 5.0
"""Half a lease. NTP slews at most 0.5 ms a second (RFC 5905), 1 ms between two looks."""
JUMPED_FOR_S = 60.0


def detect_clocks(facts: Facts, history: History) -> Iterator[Symptom]:
    looks = [f for f in history if apart(f, facts) <= JUMPED_FOR_S] + [facts]
    for before, after in pairwise(looks):
        jump = (_host_s(after) - _host_s(before)) - apart(before, after)
        if abs(jump) > JUMP_S:
            yield Symptom(
                "clock_jump",
                Saying(
                    f"This host's clock jumped by {jump:+.0f} s",
                    f"이 호스트의 시계가 {jump:+.0f}초 바뀌었습니다",
                ),
                since=after.at,
            )
            return
    skew = _ahead_s(facts)
    if abs(skew) > JUMP_S + facts.took_s:
        others = [_ahead_s(look) for look in looks if look.vitals is not None]
        yield Symptom(
            "clock_jump",
            Saying(
                f"The ledger's database is {skew:+.0f} s apart from this host",
                f"원장 데이터베이스와 이 호스트의 시계가 {skew:+.0f}초 다릅니다",
            ),
            since=facts.at,
            # Heartbeats and leases go by the database's clock alone, unless that one jumped.
            harmless=all(abs(other - skew) <= JUMP_S for other in others),
        )


def _ahead_s(facts: Facts) -> float:
    """What the ledger's clock is ahead of the host's; 0: nobody knows."""
    return facts.vitals.now - _host_s(facts) if facts.vitals else 0.0


def _host_s(facts: Facts) -> float:
    return facts.at if facts.clock is None else facts.clock
