"""Work in the background goes behind the answers that somebody waits for."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

BEHIND = 5
"""Nice value of workers and parsing children: on a busy core a third of the API's share."""


def step_behind() -> None:
    """Let the API, Chroma and Valkey run before this process and what it starts.

    Linux groups the processes of a session (``sched_autogroup``), and then a process's own nice
    value counts within its session only: a session of our own is put behind as a whole.
    """
    with contextlib.suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) < BEHIND:
            os.setpriority(os.PRIO_PROCESS, 0, BEHIND)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(f"{BEHIND}\n")
