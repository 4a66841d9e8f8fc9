"""How many documents one worker process holds."""

import pytest

from unjam.worker.worker import room_of


@pytest.mark.parametrize(
    ("cap", "room"), [(1, 32), (50, 32), (64, 32), (100, 50), (256, 128), (10_000, 128)]
)
def test_two_workers_reach_a_cap_that_was_raised_within_bounds(cap: int, room: int):
    assert room_of(cap) == room
