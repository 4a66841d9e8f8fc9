"""Memory pressure: a worker takes less at a time before the kernel has to kill somebody.

Pressed is who is larger than its own cap, or whose host or cgroup has little left. Every look at
which it is still so halves what the worker takes, down to one document and smaller requests; every
few seconds without pressure double it again. What is free inside the process goes back.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unjam.observe import words

LOOK_S = 2.0
RELIEF_LOOKS = 3
"""Looks without pressure before what is taken doubles again."""

LEAST_SHARE = 0.08
LEAST_BYTES = 256 << 20
"""Pressed below this share of the memory, and below this much of it; a host of 64 GiB with 3 GiB
left is not, nor is a container of 1 GiB with 200 MiB left."""

RELIEF = 1.5
"""Relieved at so many times as much left, so that it does not flap."""

OWN_RELIEF = 0.85
"""Or below this share of the worker's own cap."""

DEEPEST = 5
"""Halvings: 32 documents become one."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes; *total* and *available* are the host's or, where that is tighter, the cgroup's."""

    total: int
    available: int
    own: int


def pressed(now: Memory, cap: int, before: bool) -> bool:
    """Whether a process with *cap* bytes of its own (0: none) is short. Pure."""
    ease = RELIEF if before else 1.0
    if cap and now.own > cap * (OWN_RELIEF if before else 1.0):
        return True
    share = now.available < now.total * LEAST_SHARE * ease
    return share and now.available < max(LEAST_BYTES, now.total * LEAST_SHARE / 2) * ease


def look() -> Memory:
    """The memory around this process now; some 0.1 ms."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    total, available = (int(fields[n].split()[0]) << 10 for n in ("MemTotal", "MemAvailable"))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    limit = _cgroup()
    if limit is not None and limit[1] < available:
        total, available = limit
    return Memory(total, available, pages * os.sysconf("SC_PAGE_SIZE"))


def _cgroup(root: Path = Path("/sys/fs/cgroup")) -> tuple[int, int] | None:
    """(limit, available) of this process's cgroup, version 2; None without a limit. The page cache
    that can be dropped at once counts as available."""
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
        folder = root / own
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    return int(limit), int(limit) - used + int(stat.get("inactive_file", 0))


class Pressure:
    """``allow`` says how much of a number is wise now. *cap_bytes*: the worker's own, 0 = none."""

    def __init__(self, cap_bytes: int = 0, look: Callable[[], Memory] = look) -> None:
        self._cap = cap_bytes
        self._look = look
        self._calm = 0
        self._pressed = False
        self.depth = 0
        """How often everything is halved; 0 = no pressure."""

    def allow(self, number: int) -> int:
        """*number*, or less of it; at least 1."""
        return max(1, number >> self.depth)

    def check(self) -> None:
        """One look. Gives memory back while it is short."""
        now = self._look()
        self._pressed = pressed(now, self._cap, self._pressed)
        before = self.depth
        if self._pressed:
            self._calm = 0
            self.depth = min(DEEPEST, self.depth + 1)
            release()
        elif self.depth:
            self._calm += 1
            if self._calm >= RELIEF_LOOKS:
                self._calm, self.depth = 0, self.depth - 1
        if (before == 0) != (self.depth == 0):
            words.memory_pressure(self.depth > 0, now.available, now.own)

    async def follow(self) -> None:
        """Look until cancelled."""
        while True:
            self.check()
            await asyncio.sleep(LOOK_S)


def release() -> None:
    """Collect what nobody refers to, and hand free pages back to the kernel (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
