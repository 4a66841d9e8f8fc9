"""A task that is cancelled while it talks to Redis stops, in whatever turn of the loop."""

from __future__ import annotations

import asyncio

from unjam.core.cancel import heeding
from unjam.queue.link import RedisLink


async def test_a_cancellation_in_the_turn_of_the_answer_is_not_lost() -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def swallows() -> int:
        return await asyncio.wait_for(answer, 30)

    task = asyncio.create_task(heeding(swallows()))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    answer.set_result(1)
    task.cancel()
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError)


async def test_who_was_cancelled_before_may_still_clean_up() -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cleaned.append(await heeding(asyncio.sleep(0, "done")))
            raise

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert cleaned == ["done"]


async def test_a_loop_over_redis_ends_in_whatever_turn_it_is_cancelled(redis_url: str) -> None:
    link = RedisLink(redis_url)
    try:
        await link.call(lambda: link.redis.ping())
        for turns in range(40):

            async def rounds() -> None:
                while True:
                    await link.call(lambda: link.redis.ping())

            task = asyncio.create_task(rounds())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=2.0)
            assert done, f"it went on when it was cancelled in turn {turns}"
    finally:
        await link.close()
