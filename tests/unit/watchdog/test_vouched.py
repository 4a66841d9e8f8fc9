"""A worker of another host cannot be seen from here; the supervisor that keeps it speaks for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fixtures.facts import healthy
from unjam.core.ports import WorkerRef
from unjam.core.vitals import Vitals
from unjam.watchdog import snapshot

WORKER = WorkerRef("there.7.500", "there", 7, "0.1.0")
KEEPER = WorkerRef("there.5.400", "there", 5, "0.1.0", "supervisor")


def vouched(silent_s: float = 8.0, keeper: WorkerRef = KEEPER, keeper_s: float = 1.0) -> bool:
    vitals = healthy().vitals
    assert vitals is not None
    rows = ((WORKER, silent_s), (keeper, keeper_s))
    return snapshot._vouched(WORKER, silent_s, replace(vitals, processes=rows))


def test_its_keeper_reports_and_saw_no_end() -> None:
    assert vouched()


@pytest.mark.parametrize(
    "keeper",
    [
        replace(KEEPER, host="elsewhere"),
        replace(KEEPER, id="there.9.600"),  # it began after the worker: another run's
        replace(KEEPER, kind="watchdog"),
    ],
)
def test_nobody_else_speaks_for_it(keeper: WorkerRef) -> None:
    assert not vouched(keeper=keeper)


def test_not_when_the_keeper_is_silent_too_or_it_is_long_ago() -> None:
    assert not vouched(keeper_s=30.0)
    assert not vouched(silent_s=120.0)


def test_not_when_it_ended() -> None:
    vitals = healthy().vitals
    assert isinstance(vitals, Vitals)
    rows = ((WORKER, 8.0), (KEEPER, 1.0))
    ended = replace(vitals, processes=rows, ended={WORKER.id: (7.0, -9)})
    assert not snapshot._vouched(WORKER, 8.0, ended)
