"""What ``ps`` and ``pkill -f`` see of a process of ours."""

from __future__ import annotations

import ctypes
from pathlib import Path


def set_title(title: str) -> None:
    """Show *title* as this process's command line, cut to the room its arguments had.

    Writes over the memory that the kernel shows there (proc(5): arg_start, arg_end).
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, room = int(fields[45]), int(fields[46]) - int(fields[45])
    if start <= 0 or room <= 1:
        return
    raw = title.encode()[: room - 1]
    ctypes.memset(start, 0, room)
    ctypes.memmove(start, raw, len(raw))


def title() -> str:
    """What this process shows now."""
    return (
        Path("/proc/self/cmdline")
        .read_bytes()
        .replace(b"\0", b" ")
        .decode(errors="replace")
        .strip()
    )
