"""Coalescer: many callers, one round trip.

Callers that arrive while a batch is under way make up the next one, so batches grow with load by
themselves and a lone caller never waits for company (group commit), unless *patience* says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Coalescer(Generic[T, R]):
    """``await put(item)`` gives ``flush``'s answer for that item.

    *flush* gets at most *max_weight* of items (one oversized item goes alone) and returns one
    answer each, in order; what it raises, every caller of that batch gets.

    *patience* tells, for the weight that waits, how many seconds a batch may be held back for more;
    it is asked again whenever somebody joins.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_weight: int,
        weight: Callable[[T], int] = lambda _: 1,
        patience: Callable[[int], float] = lambda _: 0.0,
    ) -> None:
        self._flush = flush
        self._max_weight = max_weight
        self._weight = weight
        self._patience = patience
        self._joined = asyncio.Event()
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def put(self, item: T) -> R:
        """The answer for *item*; a cancelled caller does not disturb the others."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._joined.set()
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await future

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._runner is not None:
            await asyncio.gather(self._runner, return_exceptions=True)

    async def _run(self) -> None:
        # One turn of the loop lets everybody who is ready in this instant join the batch.
        await asyncio.sleep(0)
        while self._waiting:
            await self._linger()
            batch = self._take()
            if not batch:  # everybody who waited has been cancelled
                return
            try:
                answers = await self._flush([item for item, _ in batch])
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(
                            error if isinstance(error, Exception) else asyncio.CancelledError()
                        )
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    async def _linger(self) -> None:
        began = time.monotonic()
        while True:
            waiting = sum(self._weight(item) for item, _ in self._waiting)
            left_s = began + self._patience(waiting) - time.monotonic()
            if left_s <= 0:
                return
            self._joined.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._joined.wait()
            except TimeoutError:
                return

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        self._waiting = [entry for entry in self._waiting if not entry[1].done()]
        total, count = 0, 0
        for item, _ in self._waiting:
            total += self._weight(item)
            if count and total > self._max_weight:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch
