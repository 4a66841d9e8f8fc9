"""When a document will be ready: position over pace, and silence where nothing is known."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from unjam.core.document import Document, State
from unjam.core.ports import Completed, LaneFacts
from unjam.observe.forecast import Forecast, Forecaster, paces_of
from unjam.queue.memory import MemoryQueue

NOW = 1_800_000_000.0
MINUTE = int(NOW // 60)
LANE = LaneFacts("rag_processing", 1000, workers=2, line=tuple(f"d{n:03d}" for n in range(32)))


def document(id_: str, state: State, **more: Any) -> Document:
    values: dict[str, Any] = dict.fromkeys(Document.__dataclass_fields__, 0)
    values |= {"id": id_, "state": state, "lane": "rag_processing", "reason": "", **more}
    return Document(**values)


def forecast(lane: LaneFacts = LANE) -> Forecast:
    # 600 documents in the five minutes since the first: 2 a second, 3 s of work each.
    rows = [Completed(MINUTE - n, "rag_processing", 100, 300.0) for n in range(5, -1, -1)]
    return Forecast(paces_of(rows, {"rag_processing": lane}, NOW))


def test_the_pace_is_that_since_the_first_completion() -> None:
    pace = forecast().paces["rag_processing"]
    assert pace.work_s == 3.0
    assert pace.per_s == pytest.approx(600 / (NOW - (MINUTE - 5) * 60))


@pytest.mark.parametrize(("id_", "before"), [("d000", 0), ("d016", 500), ("d999", 1000)])
def test_in_line_it_takes_those_before_it_and_its_own_work(id_: str, before: int) -> None:
    per_s = forecast().paces["rag_processing"].per_s
    for state in (State.QUEUED, State.RECEIVED):
        eta_s = forecast().eta_s(document(id_, state), NOW)
        assert eta_s == pytest.approx(before / per_s + 3.0, abs=0.1)


def test_in_a_lane_that_was_reordered_all_stand_before_it() -> None:
    turned = replace(LANE, line=tuple(reversed(LANE.line)))
    late = forecast(turned).eta_s(document("d000", State.QUEUED), NOW)
    assert late == forecast().eta_s(document("d999", State.QUEUED), NOW)


def test_at_work_it_takes_what_is_left() -> None:
    assert forecast().eta_s(document("d1", State.PARSING), NOW) == 3.0
    half = document("d1", State.STORING, progress_done=50, progress_total=100)
    assert forecast().eta_s(half, NOW) == 1.5


def test_a_retry_waits_for_its_time_first() -> None:
    soon = document("d1", State.WAITING, reason="processing_error", next_step_at=NOW + 60)
    eta_s = forecast().eta_s(soon, NOW)
    assert eta_s is not None and eta_s > 60 + 3


@pytest.mark.parametrize(
    "state", [State.SEARCHABLE, State.DEAD, State.CANCELLED, State.DELETED, State.WAITING]
)
def test_silent_about_what_does_not_move_by_itself(state: State) -> None:
    assert forecast().eta_s(document("d1", state, reason="vector_store_down"), NOW) is None


def test_silent_about_lanes_that_nobody_serves_or_that_stand() -> None:
    queued = document("d1", State.QUEUED)
    for lane in (replace(LANE, workers=0), replace(LANE, paused=True)):
        assert forecast(lane).eta_s(queued, NOW) is None
    assert forecast().eta_s(document("d1", State.QUEUED, lane="rag_pdf"), NOW) is None
    assert Forecast(paces_of([], {"rag_processing": LANE}, NOW)).eta_s(queued, NOW) is None


async def test_one_look_a_second_serves_everybody_and_redis_away_is_silence() -> None:
    class Ledger:
        looks = 0
        now = staticmethod(time.time)

        async def completions(self, first: int, end: int) -> list[Completed]:
            self.looks += 1
            return [Completed(int(time.time() // 60), "rag_processing", 10, 10.0)]

    ledger, queue = Ledger(), MemoryQueue()
    await queue.register_worker("w1", ["rag_processing"], 1)
    forecaster = Forecaster(ledger, queue)  # type: ignore[arg-type]
    for _ in range(50):
        assert await forecaster.eta_s(document("d1", State.PARSING)) == 1.0
    assert ledger.looks == 1
    forecaster._looked = 0.0
    queue.away = True
    assert await forecaster.eta_s(document("d1", State.PARSING)) is None
