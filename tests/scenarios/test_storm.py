"""A short storm of every fault over a whole system of its own; the long ones are in tests/soak."""

from __future__ import annotations

from pathlib import Path

import pytest

from unjam.testing.storm import Storm, StormPlan, storm_or_raise

pytestmark = pytest.mark.thorough


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_short_storm_loses_nothing(tmp_path: Path) -> None:
    storm = Storm(StormPlan(seed=7, seconds=20.0, documents=60), tmp_path)
    verdict = await storm_or_raise(storm)
    # The storm must have been one: otherwise the verdict means little.
    assert verdict.accepted == 60
    assert sum(storm.faults.values()) >= 10, storm.faults
    assert len(storm.faults) >= 5, storm.faults
