"""The step boundaries of a document's run: where it may die, and where tests make it die."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Step(StrEnum):
    """Each boundary that ``run`` and ``finish`` pass, in order. A killed process resumes after
    any of them without loss: the crash-point tests go through this enumeration, so a new step
    cannot be forgotten."""

    CLAIMED = "claimed"  # the lease is ours, nothing was read
    PARSED = "parsed"  # the child gave its first window of chunks
    EMBEDDED = "embedded"  # a window's vectors are in the cache
    STORED = "stored"  # a window's chunks are confirmed by the vector store
    COMPLETE = "complete"  # every window is stored; before the flip
    FLIPPED = "flipped"  # visible in the ledger; the queue does not know yet
    FINISHED = "finished"  # the queue's books are closed, too


Checkpoint = Callable[[Step], None]
"""Called at each boundary."""


def no_checkpoint(step: Step) -> None:
    """The production checkpoint: nothing happens."""
