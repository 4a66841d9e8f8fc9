"""The file system as the store of originals needs it: durable, and honest about what fails."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from unjam.core.errors import DependencyDown

SYNCFS_FROM = 4
_libc = ctypes.CDLL(None, use_errno=True)


def down(detail: str) -> DependencyDown:
    return DependencyDown(
        detail,
        code="blob_store_down",
        hint="Check the storage path and its disk; work goes on by itself afterwards.",
    )


@contextmanager
def guarded(what: str) -> Generator[None]:
    """OSError (disk full, gone, read-only) becomes DependencyDown (blob_store_down)."""
    try:
        yield
    except OSError as error:
        raise down(f"{what}: {error}") from error


def is_there(path: Path) -> bool:
    """Unlike ``Path.exists``, lets I/O errors out: a broken disk is not a missing file."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def sync_file(path: Path) -> None:
    """fsync of a file or folder."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_files(folder: Path, files: Sequence[Path]) -> None:
    """All the files' bytes to disk: one syncfs(2) instead of several fsyncs.

    syncfs also writes what others left dirty on that file system, so few files go one by one.
    Measured on ext4: 4 uploads 1.3 against 2.9 ms, 50 uploads 7 against 27 ms.
    """
    if len(files) >= SYNCFS_FROM and _syncfs(folder):
        return
    for file in files:
        sync_file(file)


def _syncfs(folder: Path) -> bool:
    """False where the call does not exist. Raises OSError when the disk reports an error."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return syncfs(fd)
    finally:
        os.close(fd)


def syncfs(fd: int) -> bool:
    """The whole file system of *fd* to disk; False where the call does not exist.

    Raises OSError: something could not be written since *fd* was opened, or last synced.
    """
    call = getattr(_libc, "syncfs", None)
    if call is None:
        return False
    if call(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


def sync_everything(fd: int) -> None:
    """``syncfs``, or what there is instead. Raises OSError."""
    if not syncfs(fd):
        os.sync()


def file_system(folder: Path) -> str:
    """Its type as Linux names it ("ext4", "nfs4"), "" where that cannot be told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    best, kind = Path(), ""
    where = folder.resolve()
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = Path(left.split()[4].encode().decode("unicode_escape"))  # a space is \\040
        if where.is_relative_to(mount) and len(mount.parts) >= len(best.parts):
            best, kind = mount, right.split()[0]
    return kind
