"""Symptom, and how long a thing has been so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise

from unjam.core.incident import Saying
from unjam.watchdog.facts import Facts, History


@dataclass(frozen=True, slots=True)
class Symptom:
    """Something that is not as it should be. *code* is the cause that it speaks for.

    *since*: Unix seconds of its first sign. *harmless*: it brings nothing about, though its cause
    otherwise may.
    """

    code: str
    evidence: Saying
    subject: str = ""
    since: float = 0.0
    harmless: bool = False


Bad = Callable[[Facts], bool]


def apart(earlier: Facts, later: Facts) -> float:
    """Seconds between two looks, by a clock that nobody sets."""
    return later.host.boottime - earlier.host.boottime


def began(facts: Facts, history: History, bad: Bad) -> float | None:
    """Since when every look was *bad*; None when this one is not."""
    if not bad(facts):
        return None
    first = _first(facts, history, bad)
    return None if first is None else first.at


def lasted(facts: Facts, history: History, bad: Bad, seconds: float) -> float | None:
    """As ``began``, once it has lasted so long; a single look (the doctor's) need not wait."""
    first = _first(facts, history, bad)
    if first is not None and (facts.one_off or apart(first, facts) >= seconds):
        return first.at
    return None


def _first(facts: Facts, history: History, bad: Bad) -> Facts | None:
    if not bad(facts):
        return None
    first = facts
    for look in reversed(history):
        if not bad(look):
            break
        first = look
    return first


def usual(
    facts: Facts, history: History, figure: Callable[[Facts], float | None], seconds: float
) -> float | None:
    """The median of *figure* over the last *seconds*; None with fewer than five looks (one for a
    single look), or where it was unknown in this one.

    Each look counts for the time since the one before it: looks at what is slow are rare, and the
    many quick ones of before would hide them for as long as they are remembered.
    """
    looks = [f for f in history if apart(f, facts) <= seconds]
    known = [(x, f) for f in (*looks, facts) if (x := figure(f)) is not None]
    if figure(facts) is None or (len(known) < 5 and not facts.one_off):
        return None
    gaps = [apart(before, f) for (_, before), (_, f) in pairwise(known)]
    weighed = sorted(zip((x for x, _ in known), [min(gaps, default=1.0), *gaps], strict=True))
    half = sum(weight for _, weight in weighed) / 2
    for (x, weight), so_far in zip(weighed, accumulate(w for _, w in weighed), strict=True):
        if so_far >= half and weight:
            return x
    return weighed[-1][0]


def within(history: History, facts: Facts, seconds: float) -> Facts | None:
    """The oldest look of the last *seconds*; None when there is none before this one."""
    return next((f for f in history if apart(f, facts) <= seconds), None)


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def span(seconds: float) -> tuple[str, str]:
    """A duration as people say it, English and Korean."""
    if seconds < 90:
        return f"{seconds:.0f} s", f"{seconds:.0f}초"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min", f"{seconds / 60:.0f}분"
    return f"{seconds / 3600:.1f} h", f"{seconds / 3600:.1f}시간"
