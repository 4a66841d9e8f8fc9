"""kill -9 at each step boundary: the document ends searchable, complete, without doubles."""

from __future__ import annotations

import asyncio
import signal

import pytest

from unjam.core.chunk import chunk_ids
from unjam.core.document import State
from unjam.pipeline.steps import Step
from unjam.testing.crash import crash_points
from unjam.testing.stack import Stack
from unjam.testing.wait import until_ended

TEXT = "\n\n".join(
    f"Section {n}. The pump of line {n} is serviced every {n + 3} weeks by team {n % 7}. "
    f"라인 {n}의 펌프는 {n + 3}주마다 정비한다." * 6
    for n in range(40)
)


def test_every_step_is_a_crash_point() -> None:
    assert {point.partition(":")[0] for point in crash_points()} == {str(step) for step in Step}


@pytest.mark.slow
@pytest.mark.parametrize("point", crash_points())
async def test_a_kill_at_this_boundary_loses_nothing(ledger_stack: Stack, point: str) -> None:
    stack = ledger_stack
    document_id = await stack.add(TEXT)
    crash = {"UNJAM_TESTING": "1", "UNJAM_CRASH_AT": point}
    assert await stack.worker(crash).ended() == -signal.SIGKILL, "the crash point was not reached"
    stack.worker()
    reconciling = asyncio.create_task(_reconcile(stack))
    try:
        document = (await until_ended(stack.services.ledger, [document_id]))[document_id]
    finally:
        reconciling.cancel()
    assert document.state is State.SEARCHABLE
    assert document.chunks > 20
    # A clean run stores exactly the computed ids of the visible generation.
    wanted = set(chunk_ids(document_id, document.visible_generation, document.chunks))
    assert await stack.chunk_ids(document_id) == wanted
    equation = await stack.services.ledger.equation()
    assert (equation.accepted, equation.searchable, equation.missing) == (1, 1, 0)


async def _reconcile(stack: Stack) -> None:
    while True:
        await stack.reconcile()
        await asyncio.sleep(0.2)
