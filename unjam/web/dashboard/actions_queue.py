"""The operators' levers on the queues, as on the API: pause, resume, order, large ones apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, get_args

from unjam.core.breaker import EVERY_LANE, PAUSE, paused_lanes
from unjam.core.errors import UsageError
from unjam.core.ports import Strategy
from unjam.queue import order
from unjam.queue.lanes import LARGE, PROCESSING
from unjam.web.dashboard.actions_base import BY, Action, Answer, Fields, Question
from unjam.web.dashboard.render import Ctx
from unjam.web.dashboard.words import STRATEGIES, count, said

EVERY = EVERY_LANE.removeprefix(PAUSE)
FRONT = 100
"""So many are brought to the front, as in the runbook."""
MIB = 1_048_576


async def _paused(ctx: Ctx) -> bool:
    return bool(paused_lanes(await ctx.house.ledger.dependency_states()))


async def _ask_pause(ctx: Ctx, fields: Fields) -> Question:
    held = ctx.snap.ledger.value.equation.queued
    return Question(
        ctx.t(
            f"Pause the queues, with {count(held)} in line?",
            f"대기 {count(held)}건이 있는 큐를 일시 정지할까요?",
        ),
        (
            ctx.t(
                "Nobody takes documents until you resume. Uploads are still taken, and what is being "
                "worked on comes to its end.",
                "재개할 때까지 새 문서를 처리하지 않습니다. 업로드는 계속 받고, 작업 중인 문서는 끝까지 처리합니다.",
            ),
        ),
        ctx.t("Pause all queues", "모든 큐 일시 정지"),
        danger=True,
        back="/workers",
        possible=not await _paused(ctx),
        command="unjam queue pause",
    )


async def _ask_resume(ctx: Ctx, fields: Fields) -> Question:
    held = ctx.snap.ledger.value.equation.queued
    return Question(
        ctx.t("Resume all queues?", "모든 큐를 재개할까요?"),
        (ctx.t(f"{count(held)} in line go on.", f"대기 {count(held)}건을 다시 처리합니다."),),
        ctx.t("Resume all queues", "모든 큐 재개"),
        back="/workers",
        command="unjam queue resume",
    )


async def _show_pauses(ctx: Ctx, *, resume: bool = False) -> None:
    await ctx.house.breakers.refresh()
    paused = sorted(paused_lanes(await ctx.house.ledger.dependency_states()))
    await ctx.house.queue.show_pauses(paused, resume=resume)


async def _pause(ctx: Ctx, fields: Fields) -> Answer:
    await ctx.house.ledger.pause(EVERY, BY)
    await _show_pauses(ctx)
    return Answer(ctx.t("All queues are paused.", "모든 큐를 일시 정지했습니다."), "/workers")


async def _resume(ctx: Ctx, fields: Fields) -> Answer:
    await ctx.house.ledger.resume(EVERY, BY)
    await _show_pauses(ctx, resume=True)
    return Answer(ctx.t("All queues go on.", "모든 큐를 재개했습니다."), "/workers")


def _strategy(fields: Fields) -> Strategy:
    given = fields.get("strategy", "")
    if given not in get_args(Strategy):
        raise UsageError(f"no order {given!a}", code="invalid")
    return cast(Strategy, given)


async def _ask_reorder(ctx: Ctx, fields: Fields) -> Question:
    strategy = _strategy(fields)
    held = next((x["count"] for x in ctx.snap.lanes.value if x["name"] == PROCESSING), 0)
    n = count(min(FRONT, held))
    word = said(STRATEGIES, strategy, ctx.lang)
    return Question(
        ctx.t(
            f"Bring {n} of {count(held)} to the front: {word}?",
            f"{count(held)}건 중 {n}건을 앞으로: {word}?",
        ),
        (
            ctx.t(
                "The queue rag_processing, in one step, while workers take from it.",
                "rag_processing 큐를 워커가 처리하는 중에도 한 번에 바꿉니다.",
            ),
        ),
        ctx.t(f"Bring {n} to the front", f"{n}건 앞으로"),
        {"strategy": strategy},
        back="/workers",
        possible=held > 0,
        command=f"unjam queue reorder {strategy} --limit {FRONT}",
    )


async def _reorder(ctx: Ctx, fields: Fields) -> Answer:
    house, strategy = ctx.house, _strategy(fields)
    ids = await order.reorder(house.ledger, house.queue, PROCESSING, strategy, FRONT)
    data = {"strategy": strategy, "limit": FRONT, "queue": PROCESSING, "moved": len(ids)}
    await house.ledger.note_audit(BY, "reorder_queue", data)
    n = count(len(ids))
    return Answer(ctx.t(f"{n} brought to the front.", f"{n}건을 앞으로 옮겼습니다."), "/workers")


async def _ask_separate(ctx: Ctx, fields: Fields) -> Question:
    mb = ctx.house.settings.large_document_mb
    items, more = await ctx.house.ledger.in_line(larger_than=mb * MIB)
    large = [i for i in items if i.ticket.lane != LARGE]
    n = count(len(large)) + ("+" if more else "")
    return Question(
        ctx.t(f"Move {n} large documents aside?", f"대형 문서 {n}건을 분리할까요?"),
        (
            ctx.t(
                f"Those in line above {mb} MB go to {LARGE}, which has a slot of its own.",
                f"{mb} MB를 넘는 대기 문서를 전용 큐 {LARGE}로 옮깁니다.",
            ),
        ),
        ctx.t(f"Move {n} aside", f"{n}건 분리"),
        back="/workers",
        possible=bool(large) or bool(more),
        command="unjam queue separate",
    )


async def _separate(ctx: Ctx, fields: Fields) -> Answer:
    house, mb = ctx.house, ctx.house.settings.large_document_mb
    ids = await order.separate(house.ledger, house.queue, mb * MIB, LARGE, [])
    data = {"size_threshold_mb": mb, "target_queue": LARGE, "moved": len(ids)}
    await house.ledger.note_audit(BY, "separate_large_jobs", data)
    n = count(len(ids))
    return Answer(ctx.t(f"{n} moved aside.", f"{n}건을 분리했습니다."), "/workers")


LEVERS: Mapping[str, Action] = {
    "pause-queues": Action(_ask_pause, _pause),
    "resume-queues": Action(_ask_resume, _resume),
    "reorder": Action(_ask_reorder, _reorder),
    "separate": Action(_ask_separate, _separate),
}
