"""The embedding cache's store of bytes: one SQLite file, many processes, bounded.

Losing it costs money, never correctness. So no error ever leaves it: what cannot be read is a
miss, what cannot be written is dropped, a damaged file is moved aside and begun anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from unjam.core.coalesce import Coalescer

T = TypeVar("T")

log = logging.getLogger(__name__)

_PAGE_BYTES = 8192
_BUSY_S = 5.0
_KEYS_PER_QUERY = 500
_EVICTED_AT_ONCE = 256
"""Rows: a slice is deleted in a few ms, so no process holds the write lock for long."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    id INTEGER PRIMARY KEY,   -- grows: the oldest insertions have the lowest
    key BLOB NOT NULL UNIQUE,
    value BLOB NOT NULL
)
"""


class SqliteVectorCache:
    """VectorCache in a file of its own. Opened at the first call, in a thread of its own."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = Path(path)
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="unjam-cache")
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._troubled = False
        self._finds = Coalescer(self._find, max_weight=_KEYS_PER_QUERY, weight=len)

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Calls of the same moment are one query: documents begin together."""
        return await self._finds.put(keys) if keys else {}

    async def _find(self, several: Sequence[Sequence[bytes]]) -> Sequence[dict[bytes, bytes]]:
        wanted = list(dict.fromkeys(key for keys in several for key in keys))
        empty: dict[bytes, bytes] = {}
        found = await self._call(lambda db: _select(db, wanted), empty)
        return [{key: found[key] for key in keys if key in found} for keys in several]

    async def put_many(self, rows: Mapping[bytes, bytes]) -> None:
        if rows:
            await self._call(lambda db: self._insert(db, rows), None)

    async def remove_many(self, keys: Sequence[bytes]) -> None:
        if keys:
            await self._call(lambda db: _delete(db, keys), None)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    # -- in the thread ----------------------------------------------------------------------
    async def _call(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._guarded, work, otherwise)

    def _guarded(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """*work*'s answer; *otherwise* whatever goes wrong with file or disk."""
        for attempt in (1, 2):
            try:
                answer = work(self._connected())
            except (sqlite3.Error, OSError) as error:
                self._disconnect()
                if attempt == 1 and _is_damage(error) and self._begin_anew():
                    continue
                self._complain(error)
                return otherwise
            else:
                self._troubled = False
                return answer
        return otherwise

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._inode = self._path.stat().st_ino if self._path.exists() else 0
            # One transaction per call, written out by hand: the driver begins none itself.
            db = sqlite3.connect(
                self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                db.execute(f"PRAGMA page_size={_PAGE_BYTES}")
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
                db.execute("PRAGMA journal_size_limit=16777216")
                db.execute(_SCHEMA)
            except BaseException:
                db.close()
                raise
            self._connection, self._inode = db, self._path.stat().st_ino
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _begin_anew(self) -> bool:
        """Move the damaged file aside, once for all processes. False: not even that worked."""
        opened = self._inode
        try:
            with Path(f"{self._path}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                inode = self._path.stat().st_ino if self._path.exists() else 0
                if inode != opened:
                    return True  # another process did it already
                log.warning("The embedding cache %s is damaged; a new one is begun", self._path)
                for suffix in ("-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
                if inode:
                    self._path.replace(f"{self._path}.damaged")
        except OSError:
            return False
        return True

    def _complain(self, error: Exception) -> None:
        if not self._troubled:  # once, until it works again
            log.warning("The embedding cache %s is out of use: %s", self._path, error)
            self._troubled = True

    def _insert(self, db: sqlite3.Connection, rows: Mapping[bytes, bytes]) -> None:
        with _transaction(db):
            db.executemany(
                "INSERT INTO vectors (key, value) VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                rows.items(),
            )
            self._evict(db, 2 * len(rows))

    def _evict(self, db: sqlite3.Connection, at_least: int) -> None:
        """Delete the oldest insertions while the file is fuller than allowed, a slice at a time."""
        over = _used_bytes(db) - self._max_bytes
        if over > 0:
            db.execute(
                "DELETE FROM vectors WHERE id IN (SELECT id FROM vectors ORDER BY id LIMIT ?)",
                (max(at_least, _EVICTED_AT_ONCE),),
            )


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection):
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _select(db: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        part = keys[start : start + _KEYS_PER_QUERY]
        marks = ",".join("?" * len(part))
        found.update(
            db.execute(f"SELECT key, value FROM vectors WHERE key IN ({marks})", part).fetchall()
        )
    return found


def _delete(db: sqlite3.Connection, keys: Sequence[bytes]) -> None:
    with _transaction(db):
        db.executemany("DELETE FROM vectors WHERE key = ?", [(key,) for key in keys])


def _used_bytes(db: sqlite3.Connection) -> int:
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    free = db.execute("PRAGMA freelist_count").fetchone()[0]
    return (pages - free) * db.execute("PRAGMA page_size").fetchone()[0]


def _is_damage(error: Exception) -> bool:
    """Whether the file itself is beyond use: no database, corrupt, or cut short."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code == sqlite3.SQLITE_IOERR_SHORT_READ or code & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )
