"""At the start a process waits for the ledger, as it does later: with its reason, and at no cost.

Whoever ended instead would be started again ever more seldom (a container after up to five
minutes), and would be missing long after the database is back.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from unjam.app.services import Services, open_services
from unjam.core.errors import DependencyDown
from unjam.observe import words
from unjam.settings import Settings

AGAIN_S = 2.0

T = TypeVar("T")


class StoppedEarly(Exception):
    """SIGTERM or SIGINT came before the ledger did."""


async def open_patiently(
    settings: Settings, *, role: Literal["api", "worker", "watchdog"], again_s: float = AGAIN_S
) -> Services:
    """``open_services``, tried until the ledger is there.

    Raises:
        SetupError: as ``open_services``; waiting would not help.
        StoppedEarly: a signal asked to end.
    """
    return await _until_there(lambda: open_services(settings, role=role), again_s)


async def _until_there(open_: Callable[[], Coroutine[Any, Any, T]], again_s: float) -> T:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    handled = (signal.SIGTERM, signal.SIGINT)
    for signum in handled:
        loop.add_signal_handler(signum, stopping.set)
    stop = asyncio.create_task(stopping.wait())
    opening: asyncio.Task[T] | None = None
    try:
        while True:
            opening = asyncio.create_task(open_())
            await asyncio.wait({opening, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():
                try:
                    return opening.result()
                except DependencyDown as error:
                    words.dependency_lost(error.code, error.detail)
                await asyncio.wait({stop}, timeout=again_s)
            if stop.done():
                raise StoppedEarly
    finally:
        for task in (stop, opening):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait({task})
        for signum in handled:
            loop.remove_signal_handler(signum)
