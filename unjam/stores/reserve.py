"""Reserve: room on the ledger's disk that is kept for the moment in which nothing else is left.

A full disk must not keep the ledger from writing how the documents in hand ended. So a file of
some MiB stands beside it; it goes when the disk is full, and comes back when there is room again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from unjam.core.errors import DependencyDown


class Reserve:
    """``<folder>/reserve``. Blocking; every process of the host may use it at the same time.

    *size_bytes* 0: there is none, and nothing is ever full for its sake.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.file = folder / "reserve"
        self.size_bytes = size_bytes

    @property
    def stands(self) -> bool:
        return not self.size_bytes or self.file.exists()

    def release(self) -> bool:
        """Give the room up if the disk is as good as full; whether this call did it."""
        try:
            if not self.size_bytes or self._free() >= self.size_bytes:
                return False
            self.file.unlink()
            return True
        except OSError:  # somebody else was first, or the folder is gone
            return False

    def restore(self) -> None:
        """Take the room again, leaving as much for others.

        Raises:
            DependencyDown: ledger_unwritable; there is not enough yet.
        """
        if self.stands:
            return
        half = self.file.with_name(f"{self.file.name}.{os.getpid()}")
        try:
            if self._free() < 2 * self.size_bytes:
                raise OSError(f"{self._free()} bytes are free, {2 * self.size_bytes} are needed")
            fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, self.size_bytes)
            finally:
                os.close(fd)
            half.replace(self.file)
        except OSError as error:
            with contextlib.suppress(OSError):
                half.unlink()
            raise DependencyDown(
                f"the disk of {self.file.parent} is full: {error}",
                code="ledger_unwritable",
                hint="Free disk space; work goes on by itself afterwards.",
            ) from error

    def _free(self) -> int:
        return shutil.disk_usage(self.file.parent).free
