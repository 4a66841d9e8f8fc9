"""A folder whose disk can be filled on purpose.

A tmpfs of a few MiB where mounting is allowed. Where it is not (an unprivileged container), the
processes concerned are forbidden to write to any file instead (RLIMIT_FSIZE, raised again later):
the same errors, but no disk on which giving up a reserve could help; ``real`` tells.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SIZE_MB = 48


@dataclass
class SmallDisk:
    folder: Path
    real: bool
    _pids: list[int] = field(default_factory=list[int])

    def fill(self, pids: Sequence[int]) -> None:
        """Nothing can be written any more; *pids*: the processes that are to meet it."""
        if not self.real:
            forbid(pids)
            self._pids = list(pids)
            return
        with (self.folder / "filler").open("wb", buffering=0) as file:
            for block in (1_048_576, 4096):
                with contextlib.suppress(OSError):
                    while file.write(bytes(block)) == block:
                        pass

    def free(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)
        allow(self._pids)
        self._pids = []


def forbid(pids: Sequence[int]) -> None:
    """These processes can write to no file; Python and SQLite see EFBIG instead of a signal."""
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def allow(pids: Sequence[int]) -> None:
    """Undo ``forbid``; who is gone needs nothing."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


@contextmanager
def small_disk_at(folder: Path, size_mb: int = SIZE_MB) -> Generator[SmallDisk]:
    """*folder* (made here) as a small disk, while the block lasts."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)]
    try:
        real = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        real = False
    real = real and os.environ.get("UNJAM_TEST_NO_MOUNT") != "1"
    try:
        yield SmallDisk(folder, real)
    finally:
        if os.path.ismount(folder):
            subprocess.run(["umount", "-l", str(folder)], check=True)
