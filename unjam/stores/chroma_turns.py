"""Who asks Chroma next on this host: one writer at a time, and queries before writers.

Chroma answers no query while it takes rows, takes the rows of two writers in one go, and lets a
writer in between the parts of one query. So writers of a host stand in line here, let queries
that have begun end first, and send fewer rows at a time while anybody searches.

It is a courtesy, unlike the ledger's gate: nobody waits long, whoever is frozen or on another
host, and who has waited goes all the same. The kernel drops the locks of a dead process.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

TURN_WAIT_S = 0.5
"""At most, for another writer: 46 rows take 40 ms, 91 take 120 (in a trace, two busy cores)."""

QUERY_WAIT_S = 0.05
"""At most, for queries, so that steady searching stops no writer: one takes 15 ms (median)."""

LATELY_S = 10.0
"""So long after a query there are searches."""

_LOOK_S = 0.002
_MARK_S = 1.0


class Turns:
    """One process's part in it; *folder* is shared by the processes of a host. Without one, or
    where it cannot be written to, everybody goes at once."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}
        self._queries = 0

    @property
    def searched_lately(self) -> bool:
        """Whether any process of this host has queried within the last ``LATELY_S``."""
        queries = self._file("queries")
        return queries is not None and _age_s(queries) < LATELY_S

    @contextmanager
    def query(self) -> Generator[None]:
        """Writers that have not begun wait meanwhile."""
        queries = self._file("queries")
        if queries is None:
            yield
            return
        self._queries += 1
        if _age_s(queries) > _MARK_S:
            with suppress(OSError):
                os.utime(queries)
        if self._queries == 1:
            _try(queries, fcntl.LOCK_SH)
        try:
            yield
        finally:
            self._queries -= 1
            if not self._queries:
                _let_go(queries)

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[None]:
        """This host's turn to write, after the queries. Not to be entered twice at a time."""
        turn, queries = self._file("turn"), self._file("queries")
        if turn is None or queries is None:
            yield
            return
        await _within(TURN_WAIT_S, turn)
        try:
            if await _within(QUERY_WAIT_S, queries):
                _let_go(queries)
            yield
        finally:
            _let_go(turn)

    def close(self) -> None:
        """Give the files back."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _file(self, name: str) -> int | None:
        if self._folder is not None and name not in self._files:
            try:
                self._files[name] = _opened(self._folder / f"chroma.{name}")
            except OSError:
                self._folder = None
        return self._files.get(name)


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        made = os.open(path, flags | os.O_CREAT, 0o600)
        os.utime(made, (0, 0))  # nobody has searched yet
        return made


def _age_s(mark: int) -> float:
    """Since anybody's last query, to a second."""
    return abs(time.time() - os.fstat(mark).st_mtime)


async def _within(limit_s: float, lock: int) -> bool:
    """Whether the lock was got. Looks again and again: ``flock`` knows no time-out."""
    until = time.monotonic() + limit_s
    while not _try(lock, fcntl.LOCK_EX):
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


def _try(lock: int, kind: int) -> bool:
    """Whether nobody else has it. A folder that knows no locks delays nobody."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _let_go(lock: int) -> None:
    with suppress(OSError):  # closed meanwhile
        fcntl.flock(lock, fcntl.LOCK_UN)
