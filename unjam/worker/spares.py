"""One spare process, loaded and waiting, for the moment in which a child is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path

import unjam
from unjam.worker.children import Child, Command, spawn

AFTER_S = 2.0
"""A new spare begins to load this long after the last was taken: recovery has the CPU first."""

LONGEST_S = 60.0
"""Between two tries while spares die before they are needed."""


class Spares:
    """Keeps one alive from ``start`` on; ``take`` gives it a new name and purpose."""

    def __init__(self, command: Command, log: Path) -> None:
        self._command = command
        self._log = log
        self._spare: Child | None = None
        self._program = _installed()
        self._keeper: asyncio.Task[None] | None = None
        self._taken = asyncio.Event()

    @property
    def child(self) -> Child | None:
        """The one that waits now."""
        return self._spare

    def start(self, changed: Callable[[], None]) -> None:
        """Begin to keep one; *changed* is called with each new one. Once; more do nothing."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(changed), name="keep a spare")

    def take(self, name: str, command: Command, log: Path) -> Child | None:
        """The spare, on its way to be what *command* describes; None when there is none, or when
        what it has loaded was updated since."""
        child, self._spare = self._spare, None
        self._taken.set()
        if child is not None and self._program != _installed():
            child.signal(signal.SIGKILL)
            return None
        if child is None or command.env != self._command.env:
            return None
        if not child.tell(json.dumps({"title": command.title, "log": str(log)})):
            return None
        child.name = name
        return child

    async def _keep(self, changed: Callable[[], None]) -> None:
        pause_s = AFTER_S
        while True:
            await asyncio.sleep(pause_s)
            self._taken.clear()
            self._program = _installed()
            try:
                self._spare = spawn("spare", self._command, self._log, listens=True)
            except OSError:  # no memory, no descriptors: that passes
                pause_s = min(LONGEST_S, pause_s * 2)
                continue
            changed()
            pause_s = min(LONGEST_S, pause_s * 2) if await self._dies(self._spare) else AFTER_S

    async def _dies(self, child: Child) -> bool:
        """True: it ended before it was taken."""
        ended = asyncio.ensure_future(child.exited())
        taken = asyncio.ensure_future(self._taken.wait())
        try:
            await asyncio.wait({ended, taken}, return_when=asyncio.FIRST_COMPLETED)
            return not taken.done()
        finally:
            for task in (ended, taken):
                task.cancel()
            await asyncio.gather(ended, taken, return_exceptions=True)
            if self._spare is child and not child.alive():
                self._spare = None

    async def stop(self) -> None:
        """End the one that waits: it holds nothing."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        child, self._spare = self._spare, None
        if child is not None and child.signal(signal.SIGKILL):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.exited(), 5.0)


def _installed() -> tuple[int, int]:
    """Another after an update of this program on disk."""
    try:
        found = Path(unjam.__file__).stat()
    except OSError:  # in the middle of one
        return (0, 0)
    return found.st_ino, found.st_mtime_ns
