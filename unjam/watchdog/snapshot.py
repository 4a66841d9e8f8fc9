"""Snapshot: looks at everything at once, and remembers the last two minutes of looks."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from unjam.watchdog.facts import Facts, History


class Looking(Protocol):
    """What takes one look; ``Snapshot`` is the real one, a test gives facts of its own."""

    @property
    def history(self) -> History: ...

    async def take(self) -> Facts: ...


class Remembered:
    """``take`` of a look that comes from elsewhere, with the history that ``detect`` wants."""

    def __init__(self, look: Callable[[], Awaitable[Facts]], kept_s: float = 120.0) -> None:
        self._look = look
        self._kept_s = kept_s
        self._last: Facts | None = None
        self._before: deque[Facts] = deque()

    @property
    def history(self) -> History:
        """The looks before the last one that was taken."""
        return tuple(self._before)

    async def take(self) -> Facts:
        if self._last is not None:
            self._before.append(self._last)
        self._last = await self._look()
        while self._before and self._last.at - self._before[0].at > self._kept_s:
            self._before.popleft()
        return self._last
