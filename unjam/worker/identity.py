"""Who a process is, beyond its number: host, pid and start time, so that a reused pid is nobody."""

from __future__ import annotations

import hashlib
import os
import socket
from functools import cache
from pathlib import Path
from typing import Literal

from unjam import __version__
from unjam.core.ports import WorkerRef


@cache
def host_id() -> str:
    """``<hostname>-<8 hex>``: one boot of one machine, and one pid namespace (container) on it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{socket.gethostname()}-{hashlib.sha256((boot + namespace).encode()).hexdigest()[:8]}"


def process_start(pid: int) -> int | None:
    """When the process began, in clock ticks since boot (field 22 of ``/proc/<pid>/stat``).

    None when there is no such process, or only its zombie.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def is_stopped(pid: int) -> bool:
    """Whether it stands still by a signal (SIGSTOP, a terminal, a debugger)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in "Tt"


def process_identity(
    kind: Literal["worker", "stock", "watchdog", "api", "supervisor"] = "worker",
    pid: int | None = None,
) -> WorkerRef:
    """This process (or *pid*) as a holder of leases; the id is unique per process life.

    Raises:
        ProcessLookupError: there is no process *pid*.
    """
    pid = os.getpid() if pid is None else pid
    start = process_start(pid)
    if start is None:
        raise ProcessLookupError(f"no process {pid}")
    host = host_id()
    return WorkerRef(f"{host}.{pid}.{start}", host, pid, __version__, kind)


def is_alive(ref: WorkerRef) -> bool | None:
    """Whether the process still lives; None when it is on another host and cannot be seen."""
    if ref.host != host_id():
        return None
    start = process_start(ref.pid)
    return start is not None and ref.id == f"{ref.host}.{ref.pid}.{start}"
