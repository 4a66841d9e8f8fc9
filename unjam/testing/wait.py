"""Waiting for something to become true, with a deadline and a message; never for time to pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from unjam.core.document import ENDED, Document, State
from unjam.core.ports import Ledger

T = TypeVar("T")


class TooLate(AssertionError):
    """The deadline passed; the message says what was waited for and what was seen last."""


async def until(
    what: str,
    probe: Callable[[], Awaitable[T]],
    good: Callable[[T], object] = bool,
    *,
    deadline_s: float = 30.0,
    every_s: float = 0.02,
) -> T:
    """The first value of *probe* for which *good* holds.

    Raises:
        TooLate: it did not hold within *deadline_s* seconds.
    """
    end = time.monotonic() + deadline_s
    while True:
        seen = await probe()
        if good(seen):
            return seen
        if time.monotonic() > end:
            raise TooLate(f"{what}: not within {deadline_s:g} s; last seen: {seen!r}")
        await asyncio.sleep(every_s)


async def until_ended(
    ledger: Ledger, document_ids: Sequence[str], *, deadline_s: float = 60.0
) -> dict[str, Document]:
    """The documents once all of them are searchable, dead, cancelled or deleted."""
    found: dict[str, Document] = {}

    async def open_ones() -> list[tuple[str, State, str]]:
        for document_id in document_ids:
            if document_id not in found:
                document = await ledger.get(document_id)
                assert document is not None, f"{document_id} is not in the ledger"
                if document.state in ENDED:
                    found[document_id] = document
        waiting = [i for i in document_ids if i not in found]
        return [(i, d.state, d.reason) for i in waiting[:3] if (d := await ledger.get(i))]

    await until("all documents at their end", open_ones, lambda w: not w, deadline_s=deadline_s)
    return found
