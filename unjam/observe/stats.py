"""Completions per ten minutes and per day, mirrored into Redis where operators look for them.

``rag:stats:jobs_completed:<YYYYMMDDHHMM>`` holds the jobs completed in the ten minutes from that
minute on, ``rag:stats:daily:<YYYYMMDD>`` those of the day, both in the zone of RAG_TIMEZONE.
A quiet minute holds 0, never nothing. The truth is the ledger's events: after Redis lost its data
the same figures are written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Mapping
from datetime import datetime, tzinfo
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from unjam.core.errors import SetupError

MINUTE_S = 60
WINDOW_MINUTES = 10
KEPT_MINUTES = 48 * 60
DAY_KEPT_S = 400 * 86_400
PREFIX = "rag:stats:"


def zone_of(name: str) -> tzinfo | None:
    """The zone called *name*; None, the host's, for "".

    Raises:
        SetupError: no such zone.
    """
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise SetupError(f"RAG_TIMEZONE={name}: {error}", hint=_ZONE_HINT) from error
    except KeyError as error:
        raise SetupError(f"RAG_TIMEZONE={name}: no such time zone", hint=_ZONE_HINT) from error


_ZONE_HINT = "Use an IANA name, such as Asia/Seoul."


class Completions:
    """Counts completions by minute (48 h) and by day; feed it each completion once."""

    def __init__(self, zone: tzinfo | None) -> None:
        self._zone = zone
        self._minutes: Counter[int] = Counter()
        self._days: Counter[str] = Counter()

    def add(self, at: float) -> None:
        """One completion, *at* Unix seconds."""
        self._minutes[int(at // MINUTE_S)] += 1
        self._days[self._local(at).strftime("%Y%m%d")] += 1

    def figures(self, now: float, *, minutes: int = WINDOW_MINUTES + 1) -> dict[str, int]:
        """Key → value for the *minutes* up to now (those whose window is open, by default; all
        with KEPT_MINUTES, after Redis lost its data), for today and for every day counted."""
        this = int(now // MINUTE_S)
        for old in [m for m in self._minutes if m < this - KEPT_MINUTES - WINDOW_MINUTES]:
            del self._minutes[old]
        out: dict[str, int] = {}
        for start in range(this - minutes + 1, this + 1):
            name = self._local(start * MINUTE_S).strftime("%Y%m%d%H%M")
            window = range(start, start + WINDOW_MINUTES)
            out[f"{PREFIX}jobs_completed:{name}"] = sum(self._minutes[m] for m in window)
        self._days.setdefault(self._local(now).strftime("%Y%m%d"), 0)
        out.update({f"{PREFIX}daily:{day}": count for day, count in self._days.items()})
        return out

    def _local(self, at: float) -> datetime:
        # Without a zone astimezone() asks the system, which knows its daylight saving time.
        moment = datetime.fromtimestamp(at, self._zone)
        return moment if self._zone else moment.astimezone()


class Setter(Protocol):
    """What of a Redis client is needed, asyncio style."""

    def set(self, name: str, value: int, *, ex: int) -> Awaitable[Any]: ...


async def write_figures(figures: Mapping[str, int], redis: Setter) -> None:
    """Write each figure with its time to live: 48 h for minutes, 400 days for days."""
    for key, value in figures.items():
        daily = key.startswith(f"{PREFIX}daily:")
        await redis.set(key, value, ex=DAY_KEPT_S if daily else KEPT_MINUTES * MINUTE_S)
