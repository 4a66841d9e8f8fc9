"""LocalCopies: originals of a far store, kept in a folder of this host for a while.

The parsing child wants a file. A copy comes into the folder whole (a rename), is checked against
its hash before that, and goes when nobody asked for it for ``IDLE_S``, or earlier when the folder
outgrows its bound. All processes of the host share the folder.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

IDLE_S = 3_600.0
"""A document is parsed minutes after it was uploaded, and again only when it is retried. Deleted
originals must not live on here: an hour is also what the store itself takes."""
IN_USE_S = 300.0
"""A copy that was handed out less long ago is not taken away, whatever the bound: its reader may
be about to open it. An open file outlives its name."""
TIDY_EVERY_S = 60.0


class LocalCopies:
    """Blocking; safe for many threads and processes. Raises OSError throughout."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self._max_bytes = max_bytes
        self._tidy_due = 0.0

    def find(self, content_hash: str) -> Path | None:
        """The copy, marked as used now."""
        file = self.root / content_hash
        try:
            os.utime(file)
        except FileNotFoundError:
            return None
        return file

    def half(self) -> Path:
        """A name for what is not whole yet; give it to :meth:`add`, or unlink it."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self.root / f"half-{os.getpid()}-{secrets.token_hex(8)}"

    def add(self, half: Path, content_hash: str) -> Path:
        """*half*, whole and checked, gets its name."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = self.root / content_hash
        os.utime(half)
        half.replace(file)
        return file

    def drop(self, content_hash: str) -> None:
        (self.root / content_hash).unlink(missing_ok=True)

    def tidy(self, *, now: bool = False) -> None:
        """Take away what is idle or too much; at most once a minute unless *now*."""
        if not now and time.monotonic() < self._tidy_due:
            return
        self._tidy_due = time.monotonic() + TIDY_EVERY_S
        found: list[tuple[float, int, Path]] = []
        with contextlib.suppress(FileNotFoundError):
            for file in self.root.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    facts = file.stat()
                    found.append((facts.st_mtime, facts.st_size, file))
        total = sum(size for _, size, _ in found)
        clock = time.time()
        for used_at, size, file in sorted(found):
            idle_s = clock - used_at
            if idle_s < IN_USE_S or (idle_s < IDLE_S and total <= self._max_bytes):
                break
            file.unlink(missing_ok=True)
            total -= size
