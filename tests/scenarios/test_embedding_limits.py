"""Processes that share an endpoint's limit: used to the full, hardly ever exceeded; keys, pauses.

A minute is 5 s here, on both sides; ``bench/governor.py`` does it with the real one.
"""

from __future__ import annotations

from unjam.testing.governor_load import measure
from unjam.testing.openai_process import FakeOpenAI


async def test_two_processes_use_their_groups_limit_and_do_not_exceed_it(
    fake_openai: FakeOpenAI, redis_url: str
):
    used = await measure(fake_openai, redis_url, limit=150, rate=150, minutes=3, minute_s=5)
    assert used.used_share() >= 0.95, used
    assert used.refused_share() < 0.01, used
    assert len(fake_openai.stats()["per_key"]) == 2


async def test_a_governor_set_too_high_finds_the_limit(fake_openai: FakeOpenAI, redis_url: str):
    used = await measure(fake_openai, redis_url, limit=150, rate=300, minutes=4, minute_s=5)
    assert used.refused_share(skip=1) < 0.03, used
    assert used.used_share(skip=1) >= 0.9, used
