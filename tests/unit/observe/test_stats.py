"""Completions by minute window and by day, as the runbook's two GETs read them."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from unjam.core.errors import SetupError
from unjam.observe.stats import KEPT_MINUTES, Completions, write_figures, zone_of

SEOUL = ZoneInfo("Asia/Seoul")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=SEOUL).timestamp()


def test_the_window_of_ten_minutes_ago_holds_the_last_ten_minutes() -> None:
    done = Completions(SEOUL)
    for moment in ("2026-11-23T12:04:59", "2026-11-23T12:05:00", "2026-11-23T12:14:59"):
        done.add(at(moment))
    done.add(at("2026-11-23T12:15:00"))
    figures = done.figures(at("2026-11-23T12:15:30"))
    assert figures["rag:stats:jobs_completed:202611231205"] == 2
    assert figures["rag:stats:jobs_completed:202611231206"] == 2
    assert figures["rag:stats:jobs_completed:202611231215"] == 1
    assert figures["rag:stats:daily:20261123"] == 4


def test_silence_is_zero_and_midnight_starts_a_new_day() -> None:
    done = Completions(SEOUL)
    done.add(at("2026-11-23T23:59:59"))
    figures = done.figures(at("2026-11-24T00:00:01"))
    assert figures["rag:stats:daily:20261123"] == 1
    assert figures["rag:stats:daily:20261124"] == 0
    assert figures["rag:stats:jobs_completed:202611240000"] == 0
    assert figures["rag:stats:jobs_completed:202611232350"] == 1


def test_after_redis_lost_everything_48_hours_come_back() -> None:
    done = Completions(UTC)
    done.add(1_800_000_000.0)
    later = 1_800_000_000.0 + 47 * 3600
    figures = done.figures(later, minutes=KEPT_MINUTES)
    assert sum(v for k, v in figures.items() if "jobs_completed" in k) == 10  # ten windows
    much_later = later + 48 * 3600
    assert not any(
        v for k, v in done.figures(much_later, minutes=KEPT_MINUTES).items() if "completed:" in k
    )


def test_minute_names_are_those_of_date() -> None:
    now = 1_795_000_000.0
    name = subprocess.run(
        ["date", "-d", f"@{int(now) - 600}", "+%Y%m%d%H%M"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert f"rag:stats:jobs_completed:{name}" in Completions(zone_of("")).figures(now)


async def test_figures_are_written_with_their_time_to_live() -> None:
    written: dict[str, tuple[int, int]] = {}

    class Redis:
        async def set(self, name: str, value: int, *, ex: int) -> Any:
            written[name] = (value, ex)

    await write_figures(Completions(SEOUL).figures(at("2026-11-23T00:00:00")), Redis())
    assert written["rag:stats:daily:20261123"] == (0, 400 * 86_400)
    assert written["rag:stats:jobs_completed:202611230000"] == (0, 48 * 3600)
    assert len(written) == 12


@pytest.mark.parametrize("name", ["Asia/Nowhere", "../etc/passwd"])
def test_an_unknown_zone_is_a_setup_error(name: str) -> None:
    with pytest.raises(SetupError, match="RAG_TIMEZONE"):
        zone_of(name)
