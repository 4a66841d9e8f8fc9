"""A lane that nobody listens to gives its documents back to ``rag_processing``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from unjam.core.ports import Ledger, Queue
from unjam.observe import words
from unjam.queue.lanes import DEAD, PROCESSING
from unjam.queue.order import move_all

UNSERVED_S = 15.0
"""A lane without a live listener is given up after this long: a restart of its workers is over."""


@dataclass(slots=True)
class LanesServed:
    """Call ``check`` every round. Suspects in a house with stock workers only go this way, too."""

    ledger: Ledger
    queue: Queue
    clock: Callable[[], float] = time.monotonic
    unserved_s: float = UNSERVED_S
    _since: dict[str, float] = field(default_factory=dict[str, float])

    async def check(self) -> None:
        """Raises DependencyDown."""
        facts = await self.queue.lane_facts()
        now = self.clock()
        served = {name for name, lane in facts.items() if lane.workers}
        for name in facts.keys() - served - {DEAD, PROCESSING}:
            self._since.setdefault(name, now)
        for name in served & self._since.keys():
            del self._since[name]
        if PROCESSING not in served:  # nothing is gained there, and their order would be lost
            return
        for name, since in self._since.items():
            # It stays given up: what enters it later need not wait again.
            if now - since >= self.unserved_s:
                moved = await move_all(self.ledger, self.queue, name, PROCESSING)
                if moved:
                    words.lane_given_up(name, moved)
