"""The gate: fair turns for writers of one SQLite file, across processes and threads.

SQLite's busy handler polls, so a saturated writer can starve others for seconds, longer than a
lease lasts. Two ``flock``s make a turnstile instead: whoever wants to write takes *turn*, waits
there for *door*, and lets *turn* go once inside. A writer that leaves and comes again stands
behind everybody who is already in the turnstile. The kernel drops the locks of a dead process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class Gate:
    """One user of the turnstile. Not to be shared by threads: give each its own."""

    def __init__(self, folder: Path, name: str = "ledger") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._turn = os.open(folder / f"{name}.turn", flags, 0o600)
        self._door = os.open(folder / f"{name}.door", flags, 0o600)

    @contextmanager
    def hold(self) -> Generator[None]:
        """Blocks until it is this writer's turn."""
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._door, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._door, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._turn)
        os.close(self._door)
