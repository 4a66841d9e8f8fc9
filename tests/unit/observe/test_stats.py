"""Completions by minute window and by day, as the runbook's two GETs read them."""

from __future__ import annotations

import subprocess
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from unjam.core.errors import SetupError
from unjam.core.ports import Completed
from unjam.observe.stats import (
    KEPT_MINUTES,
    Completions,
    capacity_line,
    kept_s,
    merged,
    midnight,
    minutes_of,
    zone_of,
)

SEOUL = ZoneInfo("Asia/Seoul")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=SEOUL).timestamp()


def test_the_window_of_ten_minutes_ago_holds_the_last_ten_minutes() -> None:
    done = Completions(SEOUL)
    for moment in ("2026-11-23T12:04:59", "2026-11-23T12:05:00", "2026-11-23T12:14:59"):
        done.add(at(moment))
    done.add(at("2026-11-23T12:15:00"))
    now = at("2026-11-23T12:15:30")
    figures = {**done.windows(now), **done.days(now)}
    assert figures["rag:stats:jobs_completed:202611231205"] == 2
    assert figures["rag:stats:jobs_completed:202611231206"] == 2
    assert figures["rag:stats:jobs_completed:202611231215"] == 1
    assert figures["rag:stats:daily:20261123"] == 4


def test_silence_is_zero_and_midnight_starts_a_new_day() -> None:
    done = Completions(SEOUL)
    done.add(at("2026-11-23T23:59:59"))
    now = at("2026-11-24T00:00:01")
    figures = {**done.windows(now), **done.days(now)}
    assert figures["rag:stats:daily:20261123"] == 1
    assert figures["rag:stats:daily:20261124"] == 0
    assert figures["rag:stats:jobs_completed:202611240000"] == 0
    assert figures["rag:stats:jobs_completed:202611232350"] == 1
    # Both stand before their time, so that nobody reads nil in the first second.
    assert figures["rag:stats:jobs_completed:202611240001"] == 0
    assert figures["rag:stats:daily:20261125"] == 0


def test_after_redis_lost_everything_48_hours_come_back() -> None:
    done = Completions(UTC)
    done.add(1_800_000_000.0)
    later = 1_800_000_000.0 + 47 * 3600
    figures = done.windows(later, minutes=KEPT_MINUTES)
    assert sum(v for k, v in figures.items() if "jobs_completed" in k) == 10  # ten windows
    much_later = later + 48 * 3600
    assert not any(done.windows(much_later, minutes=KEPT_MINUTES).values())


def test_minute_names_are_those_of_date() -> None:
    now = 1_795_000_000.0
    name = subprocess.run(
        ["date", "-d", f"@{int(now) - 600}", "+%Y%m%d%H%M"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert f"rag:stats:jobs_completed:{name}" in Completions(zone_of("")).windows(now)


def test_how_long_keys_are_kept() -> None:
    assert kept_s("rag:stats:daily:20261123") == 400 * 86_400
    assert kept_s("rag:stats:jobs_completed:202611230000") == 48 * 3600


def test_days_begin_at_local_midnight_and_may_have_23_or_25_hours() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert midnight(date(2026, 11, 23), SEOUL) == at("2026-11-23T00:00:00")
    for day, hours in ((date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 5, 1), 24)):
        first, end = minutes_of(day, berlin)
        assert end - first == hours * 60
    first, end = minutes_of(date(2026, 5, 1), None)
    assert end - first == 1440


def test_lines_of_the_csv() -> None:
    day = date(2026, 11, 23)
    rows = [Completed(1, "a", 2, 3.0), Completed(2, "b", 1, 0.6)]
    assert capacity_line(day, rows) == "20261123,3,1200"
    assert capacity_line(day, []) == "20261123,0,0"
    lines = ["20261121,5,10", "", "20261123,1,1"]
    fresh = {"20261123": "20261123,3,1200", "20261122": "20261122,0,0"}
    assert merged(lines, fresh) == ["20261121,5,10", "20261122,0,0", "20261123,3,1200"]


@pytest.mark.parametrize("name", ["Asia/Nowhere", "../etc/passwd"])
def test_an_unknown_zone_is_a_setup_error(name: str) -> None:
    with pytest.raises(SetupError, match="RAG_TIMEZONE"):
        zone_of(name)
