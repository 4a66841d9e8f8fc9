"""Memory pressure: when it is felt, how a worker gives way, and that it comes back."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from unjam.app.knobs import LiveKnobs
from unjam.settings import Settings
from unjam.worker.pressure import DEEPEST, RELIEF_LOOKS, Memory, Pressure, look, pressed

GIB = 1 << 30
MIB = 1 << 20


@pytest.mark.parametrize(
    ("total", "available", "own", "cap", "short"),
    [
        (64 * GIB, 10 * GIB, GIB, 0, False),
        (64 * GIB, 3 * GIB, GIB, 0, False),
        (64 * GIB, 2 * GIB, GIB, 0, True),
        (4 * GIB, 200 * MIB, GIB, 0, True),
        (GIB, 200 * MIB, GIB // 2, 0, False),
        (GIB, 60 * MIB, GIB // 2, 0, True),
        (64 * GIB, 40 * GIB, 600 * MIB, 512 * MIB, True),
        (64 * GIB, 40 * GIB, 500 * MIB, 512 * MIB, False),
    ],
)
def test_when_memory_is_short(total: int, available: int, own: int, cap: int, short: bool) -> None:
    assert pressed(Memory(total, available, own), cap, before=False) is short


def test_it_does_not_flap_at_the_edge() -> None:
    edge = Memory(4 * GIB, 300 * MIB, GIB)
    assert not pressed(edge, 0, before=False)
    assert pressed(edge, 0, before=True)
    assert pressed(Memory(GIB, GIB, 480 * MIB), 512 * MIB, before=True)
    assert not pressed(Memory(GIB, GIB, 400 * MIB), 512 * MIB, before=True)


def test_a_worker_gives_way_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    well, short = Memory(4 * GIB, 3 * GIB, MIB), Memory(4 * GIB, 50 * MIB, MIB)
    seen: list[Memory] = []

    def looks() -> Iterator[Memory]:
        yield well
        for _ in range(DEEPEST + 2):
            yield short
        while True:
            yield well

    source = looks()

    def one() -> Memory:
        seen.append(next(source))
        return seen[-1]

    pressure = Pressure(look=one)
    allowed: list[int] = []
    while len(seen) < 1 + DEEPEST + 2 + DEEPEST * RELIEF_LOOKS:
        pressure.check()
        allowed.append(pressure.allow(32))
    assert allowed[: DEEPEST + 3] == [32, 16, 8, 4, 2, 1, 1, 1]
    assert allowed[-1] == 32
    assert sorted(allowed[DEEPEST + 2 :]) == allowed[DEEPEST + 2 :]
    said = [r.getMessage() for r in caplog.records if "Memory" in r.getMessage()]
    assert [s.split(":")[0] for s in said] == ["Memory is short", "Memory suffices again"]


def test_the_host_can_be_looked_at() -> None:
    now = look()
    assert 0 < now.available < now.total
    assert 10 * MIB < now.own < now.total


def test_requests_shrink_along_and_the_others_knobs_stay() -> None:
    knobs = LiveKnobs(Settings(), None)  # type: ignore[call-arg, arg-type]
    before = dict(knobs())
    pressure = Pressure(look=lambda: Memory(4 * GIB, 50 * MIB, MIB))
    knobs.allow = pressure.allow
    assert knobs() == before
    pressure.check()
    name = "RAG_EMBEDDING_BATCH_SIZE"
    assert knobs()[name] == before[name] // 2
    assert {k: v for k, v in knobs().items() if k != name} == {
        k: v for k, v in before.items() if k != name
    }
