"""The audit of a long lane: one picture serves for minutes, and what it lacks is looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import redis

from unjam.core.document import Ticket
from unjam.queue import audit, keys
from unjam.queue.rq_queue import RqQueue

LANE = "rag_processing"


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[RqQueue]:
    made = RqQueue(redis_url)
    yield made
    await made.close()


@pytest.fixture
async def long_lane(queue: RqQueue, redis_url: str) -> tuple[list[Ticket], Any]:
    """Ten tickets in line since a minute, on a picture that was dear."""
    tickets = [Ticket(f"d{n}", 1, LANE) for n in range(10)]
    await queue.push(tickets)
    assert await queue.present(tickets) == [True] * 10
    taken = queue._audit._pictures[LANE]
    later = taken.took + timedelta(minutes=1)
    queue._audit._pictures[LANE] = replace(taken, good_s=300.0, took=later)
    return tickets, redis.Redis.from_url(redis_url)


async def reads(queue: RqQueue, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []

    async def note(lane: str) -> frozenset[str]:
        seen.append(lane)
        return frozenset()

    monkeypatch.setattr(queue._audit, "_read", note)
    return seen


async def test_what_came_after_the_picture_needs_no_new_one(
    queue: RqQueue, long_lane: tuple[list[Ticket], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tickets, _ = long_lane
    seen = await reads(queue, monkeypatch)
    taken = queue._audit._pictures[LANE]
    early = taken.took - timedelta(minutes=5)
    queue._audit._pictures[LANE] = replace(taken, took=early)
    fresh = Ticket("fresh", 1, LANE)
    await queue.push([fresh])
    assert await queue.present([*tickets, fresh]) == [True] * 11
    assert seen == []


async def test_a_job_that_left_its_lane_unseen_is_found_without_a_new_picture(
    queue: RqQueue, long_lane: tuple[list[Ticket], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, raw = long_lane
    seen = await reads(queue, monkeypatch)
    lost, back = Ticket("lost", 1, LANE), Ticket("back", 1, LANE)
    await queue.push([lost, back])
    raw.lrem(keys.lane(LANE), 1, lost.job_id)  # popped by somebody who died; its hash stays
    assert await queue.present([lost, back]) == [False, True]
    assert seen == []


async def test_a_job_whose_hash_is_gone_is_absent_whatever_the_picture_shows(
    queue: RqQueue, long_lane: tuple[list[Ticket], Any]
) -> None:
    tickets, raw = long_lane
    raw.delete(keys.job(tickets[3].job_id))
    assert (await queue.present(tickets)).count(False) == 1


async def test_one_question_looks_for_a_bounded_number(
    queue: RqQueue, long_lane: tuple[list[Ticket], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, raw = long_lane
    monkeypatch.setattr(audit, "LOOKS", 3)
    lost = [Ticket(f"lost{n}", 1, LANE) for n in range(8)]
    await queue.push(lost)
    for ticket in lost:
        raw.lrem(keys.lane(LANE), 1, ticket.job_id)
    assert (await queue.present(lost)).count(False) == 3


async def test_something_known_to_have_changed_asks_for_a_new_picture(
    queue: RqQueue, long_lane: tuple[list[Ticket], Any]
) -> None:
    tickets, raw = long_lane
    raw.delete(keys.lane(LANE))
    assert await queue.present(tickets) == [True] * 10
    queue._audit.forget()
    assert await queue.present(tickets) == [False] * 10
