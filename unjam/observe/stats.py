"""Completions per ten minutes and per day, as operators read them in Redis, and the daily CSV.

``rag:stats:jobs_completed:<YYYYMMDDHHMM>`` holds the jobs completed in the ten minutes from that
minute on, ``rag:stats:daily:<YYYYMMDD>`` those of the day, both in the zone of RAG_TIMEZONE.
A quiet minute holds 0, never nothing. The truth is the ledger's figures by minute: after Redis
lost its data the same values are written again. Everything here is pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from unjam.core.errors import SetupError
from unjam.core.ports import Completed

MINUTE_S = 60
WINDOW_MINUTES = 10
KEPT_MINUTES = 48 * 60
DAY_KEPT_S = 400 * 86_400
PREFIX = "rag:stats:"
WINDOW_KEY = f"{PREFIX}jobs_completed:"
DAY_KEY = f"{PREFIX}daily:"
REPORT_HOUR = 23
"""The day's line enters the CSV at this hour; after midnight it is replaced by the whole day's."""


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


def local(at: float, zone: tzinfo | None) -> datetime:
    """*at* (Unix seconds) on the clock of *zone*, or of the host."""
    # Without a zone astimezone() asks the system, which knows its daylight saving time.
    moment = datetime.fromtimestamp(at, zone)
    return moment if zone else moment.astimezone()


def midnight(day: date, zone: tzinfo | None) -> float:
    """When *day* begins, Unix seconds."""
    start = datetime.combine(day, time(), zone)
    return (start if zone else start.astimezone()).timestamp()


def minutes_of(day: date, zone: tzinfo | None) -> tuple[int, int]:
    """First minute of *day* (Unix seconds // 60), and first of the next: 23 to 25 hours."""
    following = day + timedelta(days=1)
    return int(midnight(day, zone) // MINUTE_S), int(midnight(following, zone) // MINUTE_S)


class Completions:
    """Jobs completed by minute and by local day."""

    def __init__(self, zone: tzinfo | None, rows: Iterable[Completed] = ()) -> None:
        self._zone = zone
        self._minutes: Counter[int] = Counter()
        self._days: Counter[str] = Counter()
        for row in rows:
            self.add(row.minute * MINUTE_S, row.jobs)

    def add(self, at: float, jobs: int = 1) -> None:
        """*jobs* completions, *at* Unix seconds."""
        self._minutes[int(at // MINUTE_S)] += jobs
        self._days[f"{local(at, self._zone):%Y%m%d}"] += jobs

    def windows(self, now: float, *, minutes: int = WINDOW_MINUTES + 1) -> dict[str, int]:
        """Key → jobs of the *minutes* up to now (by default those whose window is open), and of
        the next one, which stands at 0 before its clock strikes."""
        this = int(now // MINUTE_S)
        out: dict[str, int] = {}
        for start in range(this - minutes + 1, this + 2):
            window = range(start, start + WINDOW_MINUTES)
            name = f"{local(start * MINUTE_S, self._zone):%Y%m%d%H%M}"
            # Where clocks are set back an hour's names come twice: the later one counts.
            out[f"{WINDOW_KEY}{name}"] = sum(self._minutes[m] for m in window)
        return out

    def days(self, now: float) -> dict[str, int]:
        """Key → jobs of every day seen, of today, and of tomorrow, which stands at 0 before
        midnight."""
        today = local(now, self._zone).date()
        names = (f"{day:%Y%m%d}" for day in (today, today + timedelta(days=1)))
        counts = {**dict.fromkeys(names, 0), **self._days}
        return {f"{DAY_KEY}{name}": jobs for name, jobs in sorted(counts.items())}


def kept_s(key: str) -> int:
    """How long a statistics key is kept in Redis, seconds: 48 h for minutes, 400 days for days."""
    return DAY_KEPT_S if key.startswith(DAY_KEY) else KEPT_MINUTES * MINUTE_S


def capacity_line(day: date, rows: Iterable[Completed]) -> str:
    """``DATE,JOBS,AVG`` of one day: AVG is the mean time from claim to searchable, ms."""
    jobs, spent_s = 0, 0.0
    for row in rows:
        jobs, spent_s = jobs + row.jobs, spent_s + row.duration_s
    return f"{day:%Y%m%d},{jobs},{round(1000 * spent_s / jobs) if jobs else 0}"


def merged(lines: Iterable[str], fresh: Mapping[str, str]) -> list[str]:
    """The CSV's *lines* with the *fresh* ones (by date) put in their places, oldest first."""
    by_date = {line.partition(",")[0]: line for line in lines if line.strip()}
    return [line for _, line in sorted({**by_date, **fresh}.items())]
