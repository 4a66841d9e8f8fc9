"""What callers send, made safe; and the doorbell's bounds."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unjam.core.document import Ticket
from unjam.core.errors import DependencyDown, UsageError
from unjam.pipeline.doorbell import Doorbell
from unjam.pipeline.labels import clean_filename, clean_label, parse_metadata


@given(st.text())
def test_any_name_becomes_a_safe_label(raw: str) -> None:
    name = clean_filename(raw)
    assert 0 < len(name) <= 255
    assert "/" not in name and "\\" not in name and "\0" not in name
    assert name not in (".", "..")
    assert name == clean_filename(name)
    name.encode()


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda s: s.encode("utf-8", "replace")))
def test_any_metadata_is_taken_or_refused(raw: bytes) -> None:
    try:
        assert isinstance(parse_metadata(raw), dict)
    except UsageError as error:
        assert error.code == "invalid_metadata"


def test_metadata_bounds() -> None:
    good = '{"s": "한글", "i": 9223372036854775807, "f": 1.5, "b": true, "n": null, "l": [1, "x"]}'
    assert parse_metadata(good)["s"] == "한글"
    for bad in (
        '{"i": 9223372036854775808}',
        '{"f": 1e999}',
        '{"l": [[1]]}',
        '{"": 1}',
        '{"s": "\\ud800"}',
        "[" * 100_000,
        '{"a": "' + "x" * 16_384 + '"}',
        f'{{"{"k" * 129}": 1}}',
        '"text"',
    ):
        with pytest.raises(UsageError):
            parse_metadata(bad)


def test_labels() -> None:
    assert clean_label("  kim  ", "user_id") == "kim"
    for bad in ("a\nb", "a\0b", "\ud800", "x" * 256):
        with pytest.raises(UsageError, match="user_id"):
            clean_label(bad, "user_id")


class Bell:
    """Ledger and queue in one, as the doorbell sees them."""

    def __init__(self) -> None:
        self.pushed: list[list[Ticket]] = []
        self.marked: list[Ticket] = []
        self.fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def push(self, tickets: list[Ticket]) -> None:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        self.pushed.append(tickets)

    async def mark_pushed(self, tickets: list[Ticket]) -> None:
        self.marked += tickets


def doorbell(bell: Bell, **options: Any) -> Doorbell:
    return Doorbell(cast(Any, bell), cast(Any, bell), **options)


def tickets(count: int) -> list[Ticket]:
    return [Ticket(f"d{n}", 1, "rag_processing", 1) for n in range(count)]


async def test_what_rings_during_a_push_goes_together() -> None:
    bell = Bell()
    bell.gate.clear()
    ringing = doorbell(bell, batch=100)
    for ticket in tickets(50):
        ringing.ring([ticket])
        await asyncio.sleep(0)
    bell.gate.set()
    await ringing.close()
    assert len(bell.pushed) == 2
    assert [t for batch in bell.pushed for t in batch] == tickets(50) == bell.marked


async def test_a_full_doorbell_drops_instead_of_growing() -> None:
    bell = Bell()
    bell.gate.clear()
    ringing = doorbell(bell, capacity=10, batch=5)
    ringing.ring(tickets(1000))
    bell.gate.set()
    await ringing.close()
    assert len(bell.marked) == 10


@pytest.mark.parametrize("fault", [DependencyDown("away", code="queue_down"), RuntimeError("bug")])
async def test_a_failed_push_is_left_to_the_reconciler_and_the_next_ring_works(
    fault: Exception,
) -> None:
    bell = Bell()
    bell.fault = fault
    ringing = doorbell(bell)
    ringing.ring(tickets(3))
    await ringing.close()
    assert bell.marked == []
    bell.fault = None
    ringing.ring(tickets(2))
    await ringing.close()
    assert bell.marked == tickets(2)


async def test_closing_does_not_wait_for_a_queue_that_hangs() -> None:
    bell = Bell()
    bell.gate.clear()
    ringing = doorbell(bell)
    ringing.ring(tickets(1))
    async with asyncio.timeout(2):
        await ringing.close(timeout_s=0.05)
    assert bell.marked == []
