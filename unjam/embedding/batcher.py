"""Texts of many documents in shared requests; every text is embedded once, and judged alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from unjam.core.errors import DependencyDown, DocumentRejected
from unjam.core.ports import Vectors
from unjam.embedding.wire import estimate_tokens

Answer = Vectors | Exception
"""A vector of shape (dimension,), or why there is none."""

TooLarge = Callable[[int], None]

Embed = Callable[[Sequence[str]], Awaitable[Vectors]]
Keep = Callable[[Mapping[str, Vectors]], Awaitable[None]]

LINGER_S = 0.010
"""How long a request that is not full waits for company while others are in flight, at least.
With none in flight twice as long at most, and half as long without a further text: documents that
were parsed together ask within milliseconds of each other, and should share it."""

LINGER_SHARE = 0.5
LONGEST_LINGER_S = 0.1
"""The same as a share of what an answer takes, and at most. Without it, requests of one text leave
in every free place, and come back in the same instants for ever."""

QUIET_SHARE = 0.2
"""It lingers no longer than this without a further text, for a document that takes long to read."""

MAX_REQUEST_TOKENS = 250_000
"""Of all texts of one request; OpenAI's limit is 300,000, and ours is an estimate."""

TURNS_PER_BATCH = 4
"""Documents that wait take turns of a quarter of a request, so a huge one delays nobody much and
small ones are not spread thin."""

SHORTEST_TURN = 4

ALONE_FRACTION = 4
"""A suspect's requests are this many times smaller, so that a death loses little."""


@dataclass(eq=False, slots=True)
class _Item:
    """One text on its way, and everybody who waits for it."""

    text: str
    answer: asyncio.Future[Answer]
    waiters: int = 0
    sent: bool = False


_Call = deque[_Item]


class Batcher:
    """Merges the texts of concurrent calls into requests of the size that the knob says.

    A full request leaves at once, and so does any other when no text is expected; else it lingers
    while texts keep coming: a moment when none is in flight, or up to half of what an answer takes.
    A caller that is cancelled takes only its own unsent texts away.
    """

    def __init__(
        self,
        embed: Embed,
        keep: Keep,
        *,
        size: Callable[[], int],
        in_flight: Callable[[], int],
        latency_s: Callable[[], float] = lambda: 0.0,
        too_large: TooLarge = lambda _: None,
        expected: Callable[[], bool] = lambda: True,
    ) -> None:
        """*keep* has the vectors before any caller; *in_flight*: most requests at a time, each
        until its vectors are kept; *latency_s*: what an answer takes; *too_large* hears of batches
        that had to be halved although none of their texts was refused; *expected*: whether further
        texts may come soon (``look`` when that has changed)."""
        self._embed = embed
        self._keep = keep
        self._size = size
        self._max_in_flight = in_flight
        self._latency_s = latency_s
        self._too_large = too_large
        self._expected = expected
        self._items: dict[str, _Item] = {}
        self._calls: deque[_Call] = deque()
        self._waiting = 0
        self._in_flight = 0
        self._oldest = 0.0
        self._newest = 0.0
        self._pump_handle: asyncio.Handle | None = None
        self._linger_handle: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def embed(self, texts: Sequence[str]) -> dict[str, Answer]:
        """An answer for each of the (distinct) texts; errors are answers too."""
        items = [self._join(text) for text in texts]
        fresh = _Call(item for item in items if item.waiters == 1 and not item.sent)
        if fresh:
            if not self._waiting:
                self._oldest = asyncio.get_running_loop().time()
            self._newest = asyncio.get_running_loop().time()
            self._waiting += len(fresh)
            self._calls.append(fresh)
            self._pump_soon()
        try:
            await asyncio.wait([item.answer for item in items])
        finally:
            for item in items:
                self._leave(item)
        return {item.text: item.answer.result() for item in items}

    async def embed_alone(self, texts: Sequence[str]) -> dict[str, Answer]:
        """The same in requests of its own, smaller and one after the other; ends at an error."""
        answers: dict[str, Answer] = {}
        size = max(1, self._size() // ALONE_FRACTION)
        for start in range(0, len(texts), size):
            part = texts[start : start + size]
            found = dict(zip(part, await isolate(self._embed, part, self._too_large), strict=True))
            await self._keep(_vectors(found))
            answers.update(found)
            if any(isinstance(answer, Exception) for answer in found.values()):
                break
        return answers

    async def close(self) -> None:
        """Give up what has not been answered; its callers get DependencyDown."""
        for handle in (self._pump_handle, self._linger_handle):
            if handle is not None:
                handle.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for item in list(self._items.values()):
            self._resolve(item, DependencyDown("Embedding is closing", code="embedding_down"))
        self._calls.clear()
        self._waiting = 0

    # -- callers come and go ----------------------------------------------------------------
    def _join(self, text: str) -> _Item:
        item = self._items.get(text)
        if item is None:
            item = _Item(text, asyncio.get_running_loop().create_future())
            self._items[text] = item
        item.waiters += 1
        return item

    def _leave(self, item: _Item) -> None:
        item.waiters -= 1
        if not item.waiters and not item.sent and not item.answer.done():
            # Nobody wants it any more: the queue skips it, and a later caller starts afresh.
            del self._items[item.text]
            item.answer.cancel()
            self._waiting -= 1

    # -- requests leave ---------------------------------------------------------------------
    def _pump_soon(self) -> None:
        # One turn of the loop lets everybody who is ready in this instant join.
        if self._pump_handle is None:
            self._pump_handle = asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_handle = None
        while self._waiting and self._in_flight < self._max_in_flight():
            if self._waiting < self._size() and not self._lingered():
                return
            batch = self._take()
            if not batch:
                return
            self._in_flight += 1
            task = asyncio.create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def look(self) -> None:
        """Nobody is expected any more."""
        if self._waiting:
            self._pump_soon()

    def _lingered(self) -> bool:
        """Whether the oldest text has waited long enough; arranges to be asked again if not."""
        if not self._expected():
            return True
        loop = asyncio.get_running_loop()
        latency_s = self._latency_s()
        linger_s = min(max(LINGER_SHARE * latency_s, LINGER_S), LONGEST_LINGER_S)
        quiet_s = min(max(QUIET_SHARE * latency_s, LINGER_S), linger_s)
        if not self._in_flight:
            linger_s, quiet_s = min(linger_s, 2 * LINGER_S), min(quiet_s, LINGER_S / 2)
        due = min(self._oldest + linger_s, max(self._newest, self._oldest) + quiet_s)
        if loop.time() >= due - 0.001:
            return True
        if self._linger_handle is None:
            self._linger_handle = loop.call_at(due, self._lingered_enough)
        return False

    def _lingered_enough(self) -> None:
        # A timer that has fired is forgotten here: uvloop's clock may still show its own moment.
        self._linger_handle = None
        self._pump_soon()

    def _take(self) -> list[_Item]:
        size = self._size()
        turn = max(SHORTEST_TURN, size // TURNS_PER_BATCH)
        batch: list[_Item] = []
        tokens = 0
        while self._calls and len(batch) < size:
            call = self._calls.popleft()
            for _ in range(min(turn, size - len(batch))):
                while call and call[0].answer.cancelled():
                    call.popleft()
                if not call:
                    break
                tokens += estimate_tokens(call[0].text)
                if batch and tokens > MAX_REQUEST_TOKENS:
                    self._calls.appendleft(call)
                    return self._send(batch)
                batch.append(call.popleft())
            if call:
                self._calls.append(call)
        return self._send(batch)

    def _send(self, batch: list[_Item]) -> list[_Item]:
        for item in batch:
            item.sent = True
        self._waiting -= len(batch)
        self._oldest = asyncio.get_running_loop().time()
        return batch

    async def _run(self, batch: list[_Item]) -> None:
        texts = [item.text for item in batch]
        failure: Exception = DependencyDown("Embedding is closing", code="embedding_down")
        answers: Sequence[Answer] = [failure] * len(batch)
        try:
            answers = await isolate(self._embed, texts, self._too_large)
            await self._keep(_vectors(dict(zip(texts, answers, strict=True))))
        finally:
            # Only now: what a death may cost is what the requests in flight paid for.
            self._in_flight -= 1
            self._pump_soon()
            for item, answer in zip(batch, answers, strict=True):
                self._resolve(item, answer)

    def _resolve(self, item: _Item, answer: Answer) -> None:
        self._items.pop(item.text, None)
        if not item.answer.done():
            item.answer.set_result(answer)


async def isolate(
    embed: Embed, texts: Sequence[str], too_large: TooLarge = lambda _: None
) -> list[Answer]:
    """One answer for each text; a refused batch is halved until the refused texts stand alone.

    *too_large* is told the size of a batch that was refused although each of its texts is taken.
    """
    try:
        return list(await embed(texts))
    except DocumentRejected as error:
        if len(texts) == 1:
            return [error]
    except Exception as error:
        return [error] * len(texts)
    middle = len(texts) // 2
    answers = [
        *await isolate(embed, texts[:middle], too_large),
        *await isolate(embed, texts[middle:], too_large),
    ]
    if not any(isinstance(answer, Exception) for answer in answers):
        too_large(len(texts))
    return answers


def _vectors(answers: Mapping[str, Answer]) -> dict[str, Vectors]:
    return {text: a for text, a in answers.items() if not isinstance(a, Exception)}
