"""The journal of small originals: durable at the price of one ``fdatasync``, for many at once.

A new file lasts once the file system has committed its bytes and its name, and such a commit
waits for whatever others have written meanwhile: beside a Chroma at work 140 to 250 ms at p99.
So a small original is written into place without a sync, and its bytes are appended to a segment
whose blocks are on disk already: that waits for nobody (54 to 58 ms at p99, the ledger's write
included). Every ``SYNC_EVERY_S`` all files are synced behind, and the segment is emptied.

A process may die at any time: the kernel has its files. When the machine dies, files may be empty
or gone, and the next start makes them whole again (``replay``) before anybody reads them. That
holds only where a dead machine takes all readers with it: on a network's file system, and where
other hosts share the folder, there is no journal.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import struct
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from unjam.stores.disk import file_system, sync_everything, sync_file

_log = logging.getLogger("unjam.blobs")

FOLDER = "journal"
SEGMENT_BYTES = 4 * 1_048_576
"""Two of them per process: at 400 uploads a second of 2 KB each lasts for five seconds."""
RECORD_BYTES = 65_536
"""A larger original is synced itself: its bytes are not written twice."""
SYNC_EVERY_S = 5.0
"""So long bytes are in the journal, as long as in ext4's own: deleted ones, too."""
WORTH_AFTER = 8
"""Commits before a process makes a journal: who stores a few originals needs none."""
LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "overlay", "tmpfs"})

_HEAD = struct.Struct("<4sI32s")  # mark, bytes, their sha-256
_MARK = b"unj1"
Record = tuple[bytes, bytes]
"""sha-256 and bytes of an original."""


class BlobJournal:
    """One process's, for the store in *root*. Thread-safe; made on first use, in the background."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._asked = 0
        self._segments: list[_Segment] | None = None  # the first one is written to
        self._usable = True
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def has_room(self, originals: Sequence[Record]) -> bool:
        """Whether ``keep`` would take them now."""
        with self._lock:
            if self._segments is None:
                self._asked += 1
                if self._usable and self._thread is None and self._asked > WORTH_AFTER:
                    self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
                    self._thread.start()
            return self._takes(sum(_HEAD.size + len(data) for _, data in originals))

    def keep(self, originals: Sequence[Record]) -> bool:
        """Blocking. True: they are durable, given that their files are in place already. False:
        there is no room now, or no journal here, so the files must be synced themselves.

        Raises OSError: the disk reports an error; then nothing is promised.
        """
        block = encoded(originals)
        with self._lock:
            if not self._takes(len(block)):
                return False
            assert self._segments is not None
            try:
                self._segments[0].append(block)
            except OSError:
                self._usable = False
                raise
            if self._segments[0].used > SEGMENT_BYTES // 2:
                self._wake.set()
            return True

    def _takes(self, size: int) -> bool:
        if self._segments is None or not self._usable or self._closing:
            return False
        return self._segments[0].used + size <= SEGMENT_BYTES

    # -- behind ------------------------------------------------------------------------------
    def _run(self) -> None:
        if file_system(self._root) not in LOCAL:
            self._usable = False
            return
        try:
            self._synced = os.open(self._root, os.O_RDONLY | os.O_CLOEXEC)
            made = [_Segment.create(self._root / FOLDER) for _ in range(2)]
        except OSError as error:
            _log.warning("no journal of originals: %s", error)
            self._usable = False
            return
        with self._lock:
            self._segments = made
        while not self._closing:
            self._wake.wait(SYNC_EVERY_S)
            self._wake.clear()
            self._empty()
        self._empty()  # what came while the other one was emptied
        for segment in made:
            segment.close(remove=self._usable)
        os.close(self._synced)

    def _empty(self) -> None:
        """Sync the files of everything in the journal; then forget it."""
        assert self._segments is not None
        with self._lock:
            full, empty = self._segments
            if not self._usable or not full.used:
                return
            self._segments = [empty, full]
        try:
            sync_everything(self._synced)
            full.wipe()
        except OSError as error:
            # The kernel may have dropped what it could not write: the records stay, for replay.
            _log.warning("originals could not be synced, so their journal stays: %s", error)
            self._usable = False

    def close(self) -> None:
        """Blocking. Sync what is left, and remove the journal. Idempotent."""
        self._closing = True
        if self._thread is not None:
            self._wake.set()
            self._thread.join()


class _Segment:
    """A file full of zeros; records from its beginning."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        self.used = 0

    @classmethod
    def create(cls, folder: Path) -> _Segment:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{os.getpid()}-{secrets.token_hex(8)}"
        with _alone(folder):  # who replays must not find it before it is locked
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            # Zeros, not a hole: the first write into a block that was never written is a change
            # of the file system's own records, which is what this is to spare.
            _write(fd, bytes(SEGMENT_BYTES), 0)
            os.fsync(fd)
            sync_file(folder)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        return cls(path, fd)

    def append(self, block: bytes) -> None:
        _write(self._fd, block, self.used)
        os.fdatasync(self._fd)
        self.used += len(block)

    def wipe(self) -> None:
        _write(self._fd, bytes(self.used), 0)
        os.fdatasync(self._fd)
        self.used = 0

    def close(self, *, remove: bool) -> None:
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)


def _write(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, at)
        view, at = view[done:], at + done


# -- after a death --------------------------------------------------------------------------
def replay(root: Path, restore: Callable[[str, bytes], bool]) -> int:
    """Blocking. Make whole what dead processes had promised; how many originals *restore* wrote.

    *restore* (sha-256 in hex, bytes): puts a file into place, durably, unless it is there and
    whole. Who comes second waits for the first.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        return 0
    restored = 0
    with _alone(folder):
        for path in sorted(folder.glob("*-*")):
            with _left_behind(path) as fd:
                if fd is not None:
                    restored += sum(restore(sha.hex(), data) for sha, data in records(fd))
                    sync_everything(fd)
                    path.unlink()
    if restored:
        _log.warning("%d originals were made whole from the journal", restored)
    return restored


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    fd = os.open(folder / ".replay", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def _left_behind(path: Path) -> Generator[int | None]:
    """The open file, None if its process lives."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield fd
            return
        yield None
    finally:
        os.close(fd)


def encoded(originals: Sequence[Record]) -> bytes:
    return b"".join(_HEAD.pack(_MARK, len(data), sha) + data for sha, data in originals)


def records(fd: int) -> Generator[Record]:
    """Those that are whole, up to the first that is not: it was never promised."""
    at = 0
    while len(head := os.pread(fd, _HEAD.size, at)) == _HEAD.size:
        mark, size, sha = _HEAD.unpack(head)
        data = os.pread(fd, size, at + _HEAD.size) if mark == _MARK else b""
        if mark != _MARK or hashlib.sha256(data).digest() != sha:
            return
        yield sha, data
        at += _HEAD.size + size
