"""Cancellation that is not lost on the way.

``asyncio.wait_for`` of Python 3.11 returns its result, and forgets that its caller was cancelled,
when both happen in the same turn of the loop (python/cpython#86296); redis-py sends every command
under one. A loop that is cancelled in that moment would go on for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def heeding(work: Awaitable[T]) -> T:
    """*work*'s result, unless this task was cancelled meanwhile: then CancelledError.

    A task that was cancelled before and cleans up now may call it, too.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    result = await work
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return result
