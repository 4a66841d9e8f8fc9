"""Kill this process with SIGKILL exactly at a step boundary of ``pipeline/run``.

``UNJAM_CRASH_AT=stored:2`` kills at the second ``stored``; with ``UNJAM_CRASH_ONCE=<file>`` only
the first process that gets there dies, so the system around it may recover. Honoured only under
``UNJAM_TESTING=1``.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

from unjam.pipeline.steps import Checkpoint, Step, no_checkpoint


def crash_points() -> list[str]:
    """Every point at which a run can be killed: one per step, so a new one is included."""
    return [f"{step}:1" for step in Step]


def checkpoint_from_environment() -> Checkpoint:
    """The checkpoint that the environment asks for; normally one that does nothing."""
    wanted = os.environ.get("UNJAM_CRASH_AT", "")
    if os.environ.get("UNJAM_TESTING") != "1" or not wanted:
        return no_checkpoint
    name, _, count = wanted.partition(":")
    step, nth = Step(name), int(count or "1")
    once = os.environ.get("UNJAM_CRASH_ONCE")
    passed: Counter[Step] = Counter()

    def checkpoint(reached: Step) -> None:
        passed[reached] += 1
        if reached is step and passed[reached] == nth and _first_here(once):
            os.kill(os.getpid(), signal.SIGKILL)

    return checkpoint


def _first_here(once: str | None) -> bool:
    if once is None:
        return True
    try:
        os.close(os.open(Path(once), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True
