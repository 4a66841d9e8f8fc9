"""The doorbell."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from unjam.core.document import (
    Ticket,
)


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """A lane as RQ's books have it at this moment."""

    name: str
    count: int  # jobs that wait in it
    started: int = 0
    failed: int = 0
    scheduled: int = 0
    deferred: int = 0
    finished: int = 0
    workers: int = 0  # live ones that serve it
    paused: bool = False
    line: tuple[str, ...] = ()
    """Document ids at evenly spaced places of the lane, head first: item i stands behind
    i × count / len(line) others."""


@dataclass(frozen=True, slots=True)
class Parked:
    """Dead letters in ``rag_dlq``, as counted in three places; alike unless a tool was there."""

    listed: int
    registered: int
    known: int


class Queue(Protocol):
    """The doorbell. Losing all of it costs seconds, never a document.

    Raises DependencyDown (queue_down, queue_full). A full one still takes, starts, finishes.
    """

    async def push(self, tickets: Sequence[Ticket]) -> None:
        """Put each into its lane unless its job exists already. Idempotent, one round trip.

        Users take turns: the j-th of a user that waits stands behind at most j of every other's.
        """
        ...

    async def take(self, lanes: Sequence[str], limit: int, worker: str) -> list[Ticket]:
        """Up to *limit* tickets, lanes in order, moved to an intermediate list in one step."""
        ...

    async def started(self, tickets: Sequence[Ticket], worker: str) -> None:
        """Claimed: leave the intermediate list, appear as started in RQ's books."""
        ...

    async def finished(self, tickets: Sequence[Ticket], worker: str, *, ok: bool = True) -> None:
        """Ended in the ledger: the job leaves RQ's books."""
        ...

    async def put_back(self, tickets: Sequence[Ticket], worker: str) -> None:
        """Not claimed for want of a slot: back to the head of its lane."""
        ...

    async def discard(self, tickets: Sequence[Ticket], worker: str) -> None:
        """Stale: drop job and intermediate entry."""
        ...

    async def move(self, tickets: Sequence[Ticket], lane: str) -> list[Ticket]:
        """Those that still wait in their lanes go to *lane*; each lane in one atomic step.

        They come back, now of *lane*, in the order in which they stood.
        """
        ...

    async def to_front(
        self, lane: str, tickets: Sequence[Ticket], turns: Sequence[int] = ()
    ) -> list[Ticket]:
        """Those that wait in *lane* stand at its head now, in this order; they come back.

        *turns*, one each, growing: how many turns later than the head others may still go
        between them; none: all before whoever comes from now on.
        """
        ...

    async def show_pauses(self, lanes: Collection[str], *, resume: bool = False) -> None:
        """Lanes that a person paused ("*": all), for whoever looks at the queue, RQ's own tools
        included. What counts is the ledger's word. *resume*: end what those tools paused, too."""
        ...

    async def present(self, tickets: Sequence[Ticket]) -> list[bool]:
        """Whether each stands in its lane or an intermediate list (audit)."""
        ...

    async def strand(self, workers: Sequence[str]) -> list[Ticket]:
        """What these dead workers took and did not start; absent for ``present`` from now on."""
        ...

    async def park(self, tickets: Sequence[Ticket]) -> None:
        """Make dead letters visible in ``rag_dlq`` (list and failed registry)."""
        ...

    async def unpark(self, document_ids: Sequence[str]) -> None: ...

    async def repark(self, tickets: Sequence[Ticket]) -> None:
        """Make ``rag_dlq`` hold exactly these; requeued ones that are not acknowledged stay."""
        ...

    async def parked(self) -> Parked:
        """How many dead letters stand where."""
        ...

    async def requeued(self) -> list[Ticket]:
        """Dead letters whose id left RQ's failed registry while it is still listed: somebody sent
        them back with ``rq requeue``."""
        ...

    async def acknowledge(self, tickets: Sequence[Ticket]) -> None:
        """These requeued ones were dealt with; a later death of theirs stays parked."""
        ...

    async def unsound(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Those of the dead letters that ``rag_dlq`` does not hold whole."""
        ...

    async def epoch(self) -> int:
        """The counter that tells a Redis that lost its data; 0 = none. Negative: it is there, but
        a restart, evictions, or an audit that never came to its end ask for a whole audit."""
        ...

    async def set_epoch(self, value: int) -> None:
        """A whole audit begins under this epoch."""
        ...

    async def confirm_epoch(self, value: int) -> bool:
        """It came to its end. False: the data was lost meanwhile."""
        ...

    async def suspended(self) -> bool:
        """Whether somebody ran ``rq suspend``: nobody takes anything then, ours neither."""
        ...

    async def standing(self) -> int:
        """Jobs that wait in all lanes, or are in somebody's hand and not started yet; cheap."""
        ...

    async def look_anew(self) -> None:
        """Something is known to be wrong: the next ``present`` trusts no earlier look."""
        ...

    async def heal_books(self) -> tuple[int, int]:
        """Take ghosts of workers, and locks that nobody will release, off RQ's books; how many."""
        ...

    async def lengths(self) -> dict[str, int]:
        """Every lane that exists, and rag_dlq."""
        ...

    async def lane_facts(self, lanes: Sequence[str] = ()) -> dict[str, LaneFacts]:
        """Every lane that exists, *lanes*, and rag_dlq; its cost grows with the lanes only."""
        ...

    async def has_figures(self) -> bool:
        """Whether the statistics that were written last are still there."""
        ...

    async def write_figures(self, figures: Mapping[str, int], kept_s: Mapping[str, int]) -> None:
        """Write statistics: key → value, and key → how long to keep it (seconds)."""
        ...

    async def wait(self, lanes: Sequence[str], timeout_s: float) -> None:
        """Return when a lane may hold something, or after the time-out."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...
