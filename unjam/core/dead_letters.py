"""Dead letters: documents that are parked with a reason, and what a person needs to judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unjam.core.document import Document
from unjam.core.events import Event

AT_ONCE = 5_000
"""Dead letters that one retry or drop may touch: one transaction, in which nobody else writes.
About a second, and a heartbeat that waits for it still comes in time."""


@dataclass(frozen=True, slots=True)
class DeadFilter:
    """Which dead letters; all that is set must match, and nothing set means all of them."""

    reason: str | None = None
    user_id: str | None = None  # "" = anonymous
    media_type: str | None = None
    ids: Sequence[str] | None = None
    """These documents, as far as they are dead."""

    def fields(self) -> dict[str, Any]:
        """What is set, for the audit; of many ids only their number."""
        given = {"reason": self.reason, "user_id": self.user_id, "media_type": self.media_type}
        found: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if self.ids is not None:
            found["ids"] = list(self.ids) if len(self.ids) <= 20 else len(self.ids)
        return found


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead document with its evidence."""

    document: Document
    died_at: float
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])
    history: Sequence[Event] = ()
    """The last events up to its death, oldest first."""
