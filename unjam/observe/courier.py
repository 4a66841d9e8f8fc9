"""Courier: tells the world what happens, from the ledger's event tail, at least once.

It reads events behind a bookmark that is kept in the ledger, gives each to its sink, and moves the
bookmark behind what arrived. A receiver that is away holds its own line only: it is tried again
with growing pauses, and nobody else waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from unjam.core.backoff import full_jitter
from unjam.core.errors import DependencyDown
from unjam.core.events import Event, EventKind
from unjam.core.ports import Ledger
from unjam.core.reasons import hint_of
from unjam.observe.notify import Message, Sink, Undelivered

_log = logging.getLogger("unjam.notify")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
REFUSED_PAUSE_S = 20.0
"""The longest pause where only single messages are refused."""
PAGE = 500
"""Events read at a time."""
AT_ONCE = 8
"""Messages under way together; their order is not promised."""
ROUND_S = 60.0
"""A round of deliveries ends after this long, so that a lost leadership is noticed."""
REFUSALS = 10
"""A message that the receiver refused (4xx) so often, while it answers others, is given up."""


class Numbered(Protocol):
    """An event; numbers grow in the order in which events can be seen."""

    @property
    def seq(self) -> int: ...


E = TypeVar("E", bound=Numbered)


class Tape(Protocol[E]):
    """Where events are read, and where bookmarks are kept. The ledger is one of its own events."""

    async def bookmark(self, name: str) -> int | None: ...
    async def set_bookmark(self, name: str, seq: int) -> None: ...
    async def last_event(self) -> int: ...
    async def events(
        self, document_id: str | None, after: int = 0, limit: int = 200
    ) -> list[E]: ...


Translate = Callable[[E], Awaitable[Message | None]]
"""An event → what to tell of it; None: nothing."""


def document_messages(ledger: Ledger) -> Translate[Event]:
    """Documents that became searchable or were parked."""

    async def translate(event: Event) -> Message | None:
        if event.kind not in (EventKind.SEARCHABLE, EventKind.DEAD):
            return None
        document = await ledger.get(event.document_id)
        data: dict[str, Any] = {
            "document_id": event.document_id,
            "generation": event.generation,
            "filename": document.filename if document else "",
            "user_id": document.user_id if document else "",
        }
        if event.kind is EventKind.SEARCHABLE:
            data["chunks"] = event.data.get("chunks", 0)
        else:
            reason = str(event.data.get("reason", ""))
            data |= {"reason": reason, "detail": event.data.get("detail", "")}
            data["hint"] = hint_of(reason)
        kind = f"document.{event.kind.value}"
        return Message(f"evt_{ledger.id[:8]}_{event.seq}", kind, event.at, data)

    return translate


@dataclass(slots=True)
class Courier(Generic[E]):
    """Call it as a chore of the leader: it starts a round of deliveries unless one is under way,
    and returns at once."""

    name: str  # of the bookmark
    ledger: Tape[E]
    sink: Sink
    translate: Translate[E]
    first_pause_s: float = FIRST_PAUSE_S
    _task: asyncio.Task[None] | None = None
    _not_before: float = 0.0
    _failures: int = 0
    _arrived: set[int] = field(default_factory=set[int])  # behind the bookmark's next gap
    _refusals: dict[int, int] = field(default_factory=dict[int, int])

    async def __call__(self) -> None:
        if self._task is not None and not self._task.done():
            return
        if time.monotonic() >= self._not_before:
            self._task = asyncio.create_task(self._round(), name=f"courier {self.name}")

    async def close(self) -> None:
        """What is under way is cut off; it is told again by whoever leads next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.sink.close()

    async def _round(self) -> None:
        try:
            until = time.monotonic() + ROUND_S
            while time.monotonic() < until:
                if not await self._page():
                    return
        except DependencyDown:
            self._not_before = time.monotonic() + 5.0  # the ledger is away: others say so
        except Exception as error:
            self._not_before = time.monotonic() + LONGEST_PAUSE_S
            _log.error("Fault while telling %s", self.name, exc_info=error)

    async def _page(self) -> bool:
        """Tell one page of events; False when there is no more, or it has to wait."""
        mark = await self.ledger.bookmark(self.name)
        if mark is None:  # told from now on, not the whole history
            await self.ledger.set_bookmark(self.name, await self.ledger.last_event())
            return False
        events = await self.ledger.events(None, after=mark, limit=PAGE)
        if not events:
            return False
        await self._tell([e for e in events if e.seq not in self._arrived])
        reached = mark
        for event in events:
            if event.seq not in self._arrived:
                break
            reached = event.seq
        if reached > mark:
            await self.ledger.set_bookmark(self.name, reached)
            self._arrived = {seq for seq in self._arrived if seq > reached}
        return reached == events[-1].seq and len(events) == PAGE

    async def _tell(self, events: Sequence[E]) -> None:
        letters: list[tuple[int, Message]] = []
        for event in events:
            message = await self.translate(event)
            if message is None:
                self._arrived.add(event.seq)
            else:
                letters.append((event.seq, message))
        if not letters:
            return
        slots = asyncio.Semaphore(AT_ONCE)
        troubles: list[Undelivered] = []

        async def one(seq: int, message: Message) -> None:
            async with slots:
                if any(not trouble.refused for trouble in troubles):
                    return  # it is away: do not knock for each of them
                try:
                    await self.sink.deliver(message)
                except Undelivered as error:
                    if not self._give_up(seq, error):
                        troubles.append(error)
                        return
                self._arrived.add(seq)
                self._refusals.pop(seq, None)

        await asyncio.gather(*(one(seq, message) for seq, message in letters))
        self._pause(troubles)

    def _give_up(self, seq: int, error: Undelivered) -> bool:
        if not error.refused:
            return False
        self._refusals[seq] = self._refusals.get(seq, 0) + 1
        if self._refusals[seq] < REFUSALS:
            return False
        _log.warning("Event %d is not told: %s, %d times", seq, error.detail, REFUSALS)
        return True

    def _pause(self, troubles: Sequence[Undelivered]) -> None:
        if not troubles:
            self._failures = 0
            return
        self._failures += 1
        asked = max(t.after_s for t in troubles)
        longest = REFUSED_PAUSE_S if all(t.refused for t in troubles) else LONGEST_PAUSE_S
        own = full_jitter(self._failures, self.first_pause_s, longest)
        self._not_before = time.monotonic() + max(asked, own)
        if self._failures in (1, 5) or self._failures % 20 == 0:
            _log.warning(
                "%s does not arrive (try %d): %s", self.name, self._failures, troubles[0].detail
            )
