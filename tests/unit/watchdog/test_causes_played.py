"""Every cause is brought about by some test on real servers, or it is said here why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from unjam.core.causes import CAUSES

SCENARIOS = Path(__file__).parents[2] / "scenarios"
PLAYED = "\n".join(
    path.read_text()
    for pattern in ("test_incidents_*.py", "test_doctor.py")
    for path in sorted(SCENARIOS.glob(pattern))
)

NOT_PLAYED = {
    "too_much_work": "nothing is wrong then, so no incident is opened; see test_diagnose.py",
}


@pytest.mark.parametrize("cause", CAUSES)
def test_some_test_brings_it_about(cause: str) -> None:
    assert (f'"{cause}"' in PLAYED) != (cause in NOT_PLAYED)
