"""Coalescer: batches grow with load, answers go to their callers, errors to their batch only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from unjam.core.coalesce import Coalescer


async def test_callers_of_one_instant_share_one_flush_and_get_their_own_answers() -> None:
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        return [i * 10 for i in items]

    line = Coalescer(flush, max_weight=100)
    answers = await asyncio.gather(*(line.put(i) for i in range(5)))
    assert answers == [0, 10, 20, 30, 40]
    assert batches == [[0, 1, 2, 3, 4]]


async def test_those_who_come_while_a_flush_runs_make_up_the_next_one() -> None:
    gate, begun = asyncio.Event(), asyncio.Event()
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        begun.set()
        await gate.wait()
        return list(items)

    line = Coalescer(flush, max_weight=100)
    first = asyncio.create_task(line.put(1))
    await begun.wait()
    others = [asyncio.create_task(line.put(i)) for i in (2, 3)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(first, *others) == [1, 2, 3]
    assert batches == [[1], [2, 3]]


async def test_weight_bounds_a_batch_and_an_oversized_item_goes_alone() -> None:
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        return list(items)

    line = Coalescer(flush, max_weight=10, weight=lambda i: i)
    await asyncio.gather(*(line.put(i) for i in (6, 5, 99, 3, 3)))
    assert batches == [[6], [5], [99], [3, 3]]


async def test_an_error_fails_its_batch_and_not_the_next() -> None:
    async def flush(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise ValueError("thirteen")
        return list(items)

    line = Coalescer(flush, max_weight=1)
    good, bad, after = await asyncio.gather(
        line.put(1), line.put(13), line.put(2), return_exceptions=True
    )
    assert (good, after) == (1, 2)
    assert isinstance(bad, ValueError)


async def test_a_cancelled_caller_does_not_disturb_the_others() -> None:
    seen: list[int] = []

    async def flush(items: Sequence[int]) -> list[int]:
        seen.extend(items)
        return list(items)

    line = Coalescer(flush, max_weight=10)
    leaver = asyncio.create_task(line.put(1))
    stayer = asyncio.create_task(line.put(2))
    await asyncio.sleep(0)
    leaver.cancel()
    assert await stayer == 2
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_patience_holds_a_batch_back_until_it_weighs_enough() -> None:
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        return list(items)

    line = Coalescer(flush, max_weight=10, patience=lambda weight: 0.0 if weight >= 3 else 60.0)
    first = asyncio.create_task(line.put(1))
    for _ in range(5):
        await asyncio.sleep(0)
    assert batches == []
    await asyncio.gather(first, line.put(2), line.put(3))
    assert batches == [[1, 2, 3]]


async def test_patience_ends() -> None:
    async def flush(items: Sequence[int]) -> list[int]:
        return list(items)

    line = Coalescer(flush, max_weight=10, patience=lambda _: 0.01)
    async with asyncio.timeout(5):
        assert await line.put(1) == 1


async def test_nothing_is_flushed_for_callers_who_left_while_it_was_held_back() -> None:
    batches: list[list[int]] = []

    async def flush(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        return list(items)

    line = Coalescer(flush, max_weight=10, patience=lambda _: 0.05)
    caller = asyncio.create_task(line.put(1))
    await asyncio.sleep(0)
    caller.cancel()
    await line.close()
    assert batches == []
    assert await line.put(2) == 2
