"""Items become accepted documents in ``rag_bulk``: durable, deduplicated, never too many ahead.

Safe to repeat: the same bytes of the same user are one document, so whoever reads a part again
after a kill is answered with what is there already.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from unjam.app.bulk.texts import Item, Reading, Unfit
from unjam.app.services import Services, bulk_intake
from unjam.core.document import AcceptKind, State
from unjam.core.errors import NotNow, UnjamError
from unjam.pipeline.intake import Entry, Intake, Receipt, Staged
from unjam.queue.lanes import BULK
from unjam.stores.bulk_source import Part

AT_ONCE = 500
"""Documents that share fsyncs and a ledger write; as ``intake.COMMIT_FILES``."""
AT_ONCE_BYTES = 16 * 1_048_576

AHEAD = 2_000
"""Documents that stand in the lane at most before more are taken in: some hundred times what is in
work, so nobody is ever short, and the system's limits of waiting documents stay for uploads."""

LOOK_S = 0.25
PIECE = 1_048_576


@dataclass(slots=True)
class Registered:
    """What became of some items: *open* are ids that work goes on for, *done* were searchable
    already, *new* of the open ones did not exist before."""

    open: list[str] = field(default_factory=list[str])
    done: int = 0
    new: int = 0
    unfit: list[Unfit] = field(default_factory=list[Unfit])


class Registrar:
    """One per process. *say* is told why it waits. ``close`` it."""

    def __init__(
        self, services: Services, reading: Reading, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._services = services
        self._intake: Intake = bulk_intake(services)
        self._reading = reading
        self._say = say

    async def register(self, part: Part) -> AsyncGenerator[Registered]:
        """Accept the part's items, some at a time. Waits while too much waits, or something is
        away. Raises SetupError: a package is missing."""
        groups = _groups(self._reading.items(part))
        while group := await asyncio.to_thread(next, groups, None):
            done = Registered(unfit=[i for i in group if isinstance(i, Unfit)])
            items = [i for i in group if isinstance(i, Item)]
            if items:
                await self._room()
                await self._patiently(items, done)
            yield done

    async def close(self) -> None:
        await self._intake.close()

    async def _room(self) -> None:
        while True:
            try:
                lane = (await self._services.queue.lane_facts([BULK]))[BULK]
                if lane.count < AHEAD:
                    return
            except NotNow as error:  # nothing leaves a lane that is away
                self._say(error.detail)
            await asyncio.sleep(LOOK_S)

    async def _patiently(self, items: list[Item], done: Registered) -> None:
        while True:
            try:
                await self._intake.admit()
                receipts = await self._accept(items, done)
            except NotNow as error:
                self._say(error.detail)
                await asyncio.sleep(min(30.0, error.retry_after_s))
            else:
                _sort(receipts, done)
                return

    async def _accept(self, items: list[Item], done: Registered) -> list[Receipt]:
        entries: list[Entry] = []
        try:
            for item in list(items):
                try:
                    staged = await self._stage(item)
                except NotNow:
                    raise
                except (UnjamError, OSError) as error:  # this one only
                    done.unfit.append(Unfit(item.where, str(error)))
                    items.remove(item)
                    continue
                entries.append(Entry(staged, item.user_id, item.metadata, "", item.media_type))
        except BaseException:
            await asyncio.shield(self._intake.abort([e.staged for e in entries]))
            raise
        return await self._intake.accept_each(entries) if entries else []

    async def _stage(self, item: Item) -> Staged:
        staged = await self._intake.open(item.filename)
        try:
            if item.data is not None:
                await self._intake.write(staged, item.data)
                return staged
            file = await asyncio.to_thread(self._reading.source.open, item.name)
            with contextlib.closing(file):
                while piece := await asyncio.to_thread(file.read, PIECE):
                    await self._intake.write(staged, piece)
        except BaseException:
            await asyncio.shield(self._intake.abort([staged]))
            raise
        return staged


def _sort(receipts: list[Receipt], done: Registered) -> None:
    for receipt in receipts:
        if receipt.state is State.SEARCHABLE:
            done.done += 1
        else:
            done.open.append(receipt.document_id)
            done.new += receipt.kind in (AcceptKind.CREATED, AcceptKind.REVIVED)


def _groups(items: Iterator[Item | Unfit]) -> Iterator[list[Item | Unfit]]:
    """Runs of items that are accepted together."""
    count = size = number = 0

    def key(item: Item | Unfit) -> int:
        nonlocal count, size, number
        weight = len(item.data or b"") if isinstance(item, Item) else 0
        if count == AT_ONCE or (count and size + weight > AT_ONCE_BYTES):
            count, size, number = 0, 0, number + 1
        count, size = count + 1, size + weight
        return number

    for _, run in groupby(items, key):
        yield list(run)
