"""Follow: how far the documents of a back-fill are, asked of the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from unjam.app.bulk.register import Registered
from unjam.app.bulk.texts import Unfit
from unjam.core.document import ENDED, State
from unjam.core.errors import NotNow
from unjam.core.ports import Ledger

AT_ONCE = 500
LOOK_S = 0.5
PACE_S = 30.0
"""The rate that is shown, and that the time left comes from, is that of so long."""

UNFIT_KEPT = 20


@dataclass(frozen=True, slots=True)
class Progress:
    """*left_s* None: not known (yet). *whole*: the source was read to its end."""

    ended: int
    known: int
    whole: bool
    per_s: float
    left_s: float | None


@dataclass(slots=True)
class Follow:
    """``add`` what was registered, ``run`` until all of it has ended."""

    ledger: Ledger
    tell: Callable[[Progress], None] = lambda _: None
    new: int = 0
    done_before: int = 0
    states: Counter[State] = field(default_factory=Counter[State])
    unfit: list[Unfit] = field(default_factory=list[Unfit])
    unfit_count: int = 0
    whole: bool = False
    _open: deque[str] = field(default_factory=deque[str])
    _seen: set[str] = field(default_factory=set[str])
    _pace: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    def add(self, some: Registered) -> None:
        self.new += some.new
        self.done_before += some.done
        self.unfit_count += len(some.unfit)
        self.unfit += some.unfit[: UNFIT_KEPT - len(self.unfit)]
        # A text that stands twice in the source is one document.
        fresh = [i for i in dict.fromkeys(some.open) if i not in self._seen]
        self._seen.update(fresh)
        self._open.extend(fresh)

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def ended(self) -> int:
        return sum(self.states.values())

    async def run(self) -> None:
        """Until the source is read and everything ended; survives a ledger that is away."""
        while not (self.whole and not self._open):
            moved = 0
            with contextlib.suppress(NotNow):
                moved = await self._look()
            self.tell(self._progress())
            if moved < AT_ONCE // 2:
                await asyncio.sleep(LOOK_S)

    async def _look(self) -> int:
        """Asks for the oldest open ones; documents end about in order."""
        asked = [self._open[n] for n in range(min(AT_ONCE, len(self._open)))]
        if not asked:
            return 0
        states = {d.id: d.state for d in await self.ledger.get_many(asked)}
        still: list[str] = []
        moved = 0
        for document_id in asked:
            self._open.popleft()
            # Without a row it was deleted and summed up meanwhile.
            state = states.get(document_id, State.DELETED)
            if state in ENDED:
                self.states[state] += 1
                moved += 1
            else:
                still.append(document_id)
        self._open.extend(still)  # those that take long do not hide the quick
        return moved

    def _progress(self) -> Progress:
        now = time.monotonic()
        self._pace.append((now, self.ended))
        while now - self._pace[0][0] > PACE_S:
            self._pace.popleft()
        since, before = self._pace[0]
        per_s = (self.ended - before) / (now - since) if now > since else 0.0
        left_s = len(self._open) / per_s if self.whole and per_s > 0 else None
        return Progress(self.ended, self.ended + len(self._open), self.whole, per_s, left_s)
