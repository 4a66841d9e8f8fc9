"""What the host says: memory, out-of-memory kills, load, disks. Blocking; a millisecond."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unjam.watchdog.facts import Disk, HostFacts

KIB = 1024
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder to watch. *needed_bytes*: with less room than this, work or uploads stop."""

    what: str
    path: Path
    needed_bytes: int = 0


def host_facts(proc: Path = Path("/proc"), cgroup: Path = _CGROUP) -> HostFacts:
    """From ``/proc`` and cgroup v2. What cannot be read stays at its default."""
    memory = _numbers(proc / "meminfo", strip=":")
    total = memory.get("MemTotal", 0) * KIB
    free = memory.get("MemAvailable", 0) * KIB
    kills = _numbers(proc / "vmstat").get("oom_kill", 0)
    ours = _own_cgroup(proc, cgroup)
    limit, used = _number(ours / "memory.max"), _number(ours / "memory.current")
    if limit is not None and used is not None and limit < total:
        cache = _numbers(ours / "memory.stat").get("inactive_file", 0)
        total, free = limit, min(free, max(0, limit - used + cache))
    kills = max(kills, _numbers(ours / "memory.events").get("oom_kill", 0))
    return HostFacts(
        boottime=time.clock_gettime(time.CLOCK_BOOTTIME),
        memory_bytes=total,
        memory_free_bytes=free,
        swap_bytes=memory.get("SwapFree", 0) * KIB,
        oom_kills=kills,
        load=os.getloadavg()[0],
        cpus=len(os.sched_getaffinity(0)),
        memory_stalled=_stalled(proc / "pressure" / "memory"),
    )


def disk_facts(folder: Folder) -> Disk:
    """Of the file system that holds the folder (or its first parent that exists)."""
    place = folder.path
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        found = os.statvfs(place)
    except OSError as error:
        return Disk(folder.what, str(folder.path), writable=False, detail=str(error))
    read_only = bool(found.f_flag & os.ST_RDONLY) or not os.access(place, os.W_OK)
    return Disk(
        folder.what,
        str(folder.path),
        free_bytes=found.f_bavail * found.f_frsize,
        total_bytes=found.f_blocks * found.f_frsize,
        free_inodes=found.f_favail if found.f_files else None,
        writable=not read_only,
        needed_bytes=folder.needed_bytes,
    )


def process_state(pid: int) -> str:
    """The letter of ``ps``: R, S, D, T, Z; "" when it cannot be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def _own_cgroup(proc: Path, root: Path) -> Path:
    try:
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            if line.startswith("0::"):
                mine = root / line.removeprefix("0::").lstrip("/")
                return mine if (mine / "memory.max").exists() else root
    except OSError:
        pass
    return root


def _numbers(path: Path, strip: str = "") -> Mapping[str, int]:
    """``name value …`` lines."""
    found: dict[str, int] = {}
    try:
        for line in path.read_text().splitlines():
            name, _, rest = line.partition(" ")
            value = rest.split()
            if value and value[0].isdigit():
                found[name.rstrip(strip)] = int(value[0])
    except OSError:
        pass
    return found


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _stalled(path: Path) -> float:
    """``some avg10=`` of pressure stall information (Linux ≥ 4.20), as a share."""
    try:
        for part in path.read_text().split():
            if part.startswith("avg10="):
                return float(part.removeprefix("avg10=")) / 100
    except (OSError, ValueError):
        pass
    return 0.0
