"""Server-sent events of one document: replay, then live, with resume by event number.

The ledger is the source. One tail of it per process only *wakes* the streams of documents that
moved; each stream reads its own document's events. So nothing depends on the order in which
concurrent writers' numbers become visible, and ten idle streams cost one query, not ten.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson

from unjam.core.document import ENDED, Document, State
from unjam.core.errors import NotNow
from unjam.core.ports import Ledger
from unjam.observe.forecast import Forecast
from unjam.web.schemas import Keeps, document_json, event_json

_log = logging.getLogger("unjam.api")

TAIL_S = 0.25
LOOK_S = 1.0
"""A stream looks at its document this often even unwoken: progress is no event of its own."""
KEEP_ALIVE_S = 15.0
_PAGE = 200


class Tail:
    """Follows the ledger's events while somebody listens, and wakes the streams concerned."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def listen(self, document_id: str) -> Any:
        wake = asyncio.Event()
        self._listeners.setdefault(document_id, set()).add(wake)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow(), name="event-tail")
        try:
            yield wake
        finally:
            own = self._listeners[document_id]
            own.discard(wake)
            if not own:
                del self._listeners[document_id]

    @property
    def streams(self) -> int:
        return sum(len(s) for s in self._listeners.values())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        after: int | None = None
        while self._listeners:
            try:
                if after is None:
                    after = await self._ledger.last_event()
                events = await self._ledger.events(None, after=after, limit=_PAGE)
            except NotNow:
                await asyncio.sleep(LOOK_S)
                continue
            for event in events:
                after = event.seq
                for wake in self._listeners.get(event.document_id, ()):
                    wake.set()
            if len(events) < _PAGE:
                await asyncio.sleep(TAIL_S)


class Stream:
    """The frames of one document's event stream."""

    def __init__(
        self,
        ledger: Ledger,
        tail: Tail,
        closing: asyncio.Event,
        *,
        document_id: str,
        after: int,
        follow: bool,
        lang: str,
        keeps: Keeps = lambda _state, _lane: None,
        forecast: Callable[[], Awaitable[Forecast]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._tail = tail
        self._closing = closing
        self._id = document_id
        self._after = after
        self._follow = follow
        self._lang = lang
        self._keeps = keeps
        self._forecast = forecast
        self._shown: tuple[State, int, int, str] | None = None

    async def frames(self) -> AsyncIterator[bytes]:
        """Events as ``id`` (its number), ``event`` (its kind) and ``data`` (JSON); ``progress``
        frames without id in between; a last ``end`` frame with the document."""
        yield b"retry: 2000\n\n"
        quiet_s = 0.0
        with self._tail.listen(self._id) as wake:
            while not self._closing.is_set():
                wake.clear()
                # The document first: whatever ended it is then among the events read next.
                document = await self._ledger.get(self._id)
                wrote = False
                async for frame in self._new_events():
                    wrote = True
                    yield frame
                if document is None or (document.state in ENDED and not self._follow):
                    yield self._end(document)
                    return
                progress = await self._progress(document)
                if progress:
                    yield progress
                quiet_s = 0.0 if wrote or progress else quiet_s + LOOK_S
                if quiet_s >= KEEP_ALIVE_S:
                    quiet_s = 0.0
                    yield b": still here\n\n"
                await self._pause(wake)

    async def _new_events(self) -> AsyncIterator[bytes]:
        while True:
            events = await self._ledger.events(self._id, after=self._after, limit=_PAGE)
            for event in events:
                self._after = event.seq
                yield _frame(event.kind.value, event_json(event), event.seq)
            if len(events) < _PAGE:
                return

    async def _progress(self, document: Document) -> bytes:
        kept = self._keeps(document.state, document.lane)
        shown = (
            document.state,
            document.progress_done,
            document.progress_total,
            kept.reason if kept else "",
        )
        if shown == self._shown:
            return b""
        self._shown = shown
        forecast = await self._forecast() if self._forecast else None
        return _frame("progress", document_json(document, self._lang, self._keeps, forecast))

    def _end(self, document: Document | None) -> bytes:
        body = document_json(document, self._lang, self._keeps) if document else {"id": self._id}
        return _frame("end", body)

    async def _pause(self, wake: asyncio.Event) -> None:
        """Until the document moved, the server closes, or it is time to look again."""
        look_s = max(LOOK_S, self._tail.streams / 50)  # at most about fifty looks a second in all
        waits = {asyncio.ensure_future(wake.wait()), asyncio.ensure_future(self._closing.wait())}
        try:
            await asyncio.wait(waits, timeout=look_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _frame(name: str, data: object, seq: int | None = None) -> bytes:
    head = f"id: {seq}\n" if seq is not None else ""
    return f"{head}event: {name}\n".encode() + b"data: " + orjson.dumps(data) + b"\n\n"
