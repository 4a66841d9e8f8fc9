"""What an operator may do here. Each action is asked first, with the exact number it will touch,
and does what the operators' API does, by the same functions.

``ask`` looks (a GET changes nothing); ``do`` acts on the confirmed form. When the number is
another by then, nothing happens and the question is put again.
"""

from __future__ import annotations

from collections.abc import Mapping

from unjam.core.dead_letters import AT_ONCE, DeadFilter
from unjam.core.document import Document
from unjam.core.errors import NotFound, UsageError
from unjam.core.reasons import REASONS
from unjam.core.tuning import KNOBS, check_knob
from unjam.web import dead_letters
from unjam.web.dashboard.actions_base import BY, Action, Answer, Fields, Question
from unjam.web.dashboard.actions_queue import LEVERS
from unjam.web.dashboard.board import book_of
from unjam.web.dashboard.render import Ctx
from unjam.web.dashboard.views import start_value
from unjam.web.dashboard.words import KNOBS as KNOB_WORDS
from unjam.web.dashboard.words import count, said


# -- dead letters -----------------------------------------------------------------------------
def _which(fields: Fields) -> DeadFilter:
    reason = fields.get("reason") or None
    if reason is not None and reason not in REASONS:
        raise UsageError(f"no reason {reason!a}", code="invalid")
    return DeadFilter(reason)


async def _matching(ctx: Ctx, fields: Fields) -> tuple[int, str, str]:
    """How many match, of what in words, and the page to go back to."""
    reason = fields.get("reason", "")
    n = await ctx.house.ledger.count_dead(_which(fields))
    words = REASONS[reason].what_in(ctx.lang) if reason else ""
    of = f"{words}" if words else ctx.t("All causes.", "모든 원인.")
    return n, of, f"/dead-letters?reason={reason}" if reason else "/dead-letters"


def _number(ctx: Ctx, n: int) -> str:
    return ctx.t(f"{count(n)} dead letter{'' if n == 1 else 's'}", f"데드레터 {count(n)}건")


async def _ask_retry_dead(ctx: Ctx, fields: Fields) -> Question:
    n, of, back = await _matching(ctx, fields)
    number = _number(ctx, min(n, AT_ONCE))
    text = [
        of,
        ctx.t(
            "They go back to work with fresh budgets.", "시도 횟수를 초기화하고 다시 처리합니다."
        ),
    ]
    if n > AT_ONCE:
        text.append(
            ctx.t(
                f"The oldest {count(AT_ONCE)} of {count(n)} go first; ask again for the rest.",
                f"전체 {count(n)}건 중 오래된 {count(AT_ONCE)}건부터 처리합니다. 나머지는 다시 실행하세요.",
            )
        )
    reason = fields.get("reason", "")
    return Question(
        ctx.t(f"Retry {number}?", f"{number}을 재시도할까요?"),
        tuple(text),
        ctx.t(f"Retry {number}", f"{count(min(n, AT_ONCE))}건 재시도"),
        {"reason": reason, "expected": str(n)},
        back=back,
        possible=n > 0,
        command="unjam dlq retry --reason " + reason if reason else "unjam dlq retry --all",
    )


async def _ask_drop_dead(ctx: Ctx, fields: Fields) -> Question:
    n, of, back = await _matching(ctx, fields)
    number = _number(ctx, min(n, AT_ONCE))
    reason = fields.get("reason", "")
    return Question(
        ctx.t(f"Drop {number}?", f"{number}을 폐기할까요?"),
        (
            of,
            ctx.t(
                "They end as cancelled and are not tried again by themselves. Originals stay until "
                "the documents are deleted.",
                "취소 상태로 끝나며 자동으로 다시 시도하지 않습니다. 원본은 문서를 삭제할 때까지 남습니다.",
            ),
        ),
        ctx.t(f"Drop {number}", f"{count(min(n, AT_ONCE))}건 폐기"),
        {"reason": reason, "expected": str(n)},
        danger=True,
        back=back,
        possible=n > 0,
        command="unjam dlq drop --reason " + reason if reason else "unjam dlq drop --all",
    )


def _expected(fields: Fields) -> int:
    text = fields.get("expected", "")
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise UsageError("the expected number is missing", code="invalid")
    return int(text)


async def _retry_dead(ctx: Ctx, fields: Fields) -> Answer:
    ids = await dead_letters.retry(ctx.house, _which(fields), expected=_expected(fields), by=BY)
    number = _number(ctx, len(ids))
    text = ctx.t(f"{number} went back to work.", f"{number}을 다시 처리합니다.")
    return Answer(text, "/dead-letters")


async def _drop_dead(ctx: Ctx, fields: Fields) -> Answer:
    ids = await dead_letters.drop(ctx.house, _which(fields), expected=_expected(fields), by=BY)
    number = _number(ctx, len(ids))
    return Answer(ctx.t(f"{number} dropped.", f"{number}을 폐기했습니다."), "/dead-letters")


# -- one document -----------------------------------------------------------------------------
async def _document(ctx: Ctx, fields: Fields) -> Document:
    document_id = fields.get("id", "")
    found = await ctx.house.ledger.get(document_id) if document_id else None
    if found is None:
        raise NotFound(f"no document {document_id!a}")
    return found


def _about(
    found: Document, verb: str, title: str, text: str, confirm: str, *, danger: bool
) -> Question:
    return Question(
        title,
        (found.filename or found.id, text),
        confirm,
        {"id": found.id},
        danger=danger,
        back=f"/documents/{found.id}",
        command=f"unjam {verb} {found.id}",
    )


async def _ask_cancel(ctx: Ctx, fields: Fields) -> Question:
    return _about(
        await _document(ctx, fields),
        "cancel",
        ctx.t("Cancel 1 document?", "문서 1건을 취소할까요?"),
        ctx.t(
            "Work on it stops now. What search shows of it already stays.",
            "처리를 바로 멈춥니다. 이미 검색되는 내용은 그대로 남습니다.",
        ),
        ctx.t("Cancel 1 document", "문서 1건 취소"),
        danger=True,
    )


async def _ask_retry(ctx: Ctx, fields: Fields) -> Question:
    return _about(
        await _document(ctx, fields),
        "retry",
        ctx.t("Retry 1 document?", "문서 1건을 재시도할까요?"),
        ctx.t(
            "It goes back to work with fresh budgets.", "시도 횟수를 초기화하고 다시 처리합니다."
        ),
        ctx.t("Retry 1 document", "문서 1건 재시도"),
        danger=False,
    )


async def _ask_delete(ctx: Ctx, fields: Fields) -> Question:
    return _about(
        await _document(ctx, fields),
        "delete",
        ctx.t("Delete 1 document for good?", "문서 1건을 완전히 삭제할까요?"),
        ctx.t(
            "Its chunks, its original and its names go. This cannot be undone.",
            "청크, 원본, 파일 이름이 모두 지워지며 되돌릴 수 없습니다.",
        ),
        ctx.t("Delete 1 document", "문서 1건 삭제"),
        danger=True,
    )


async def _cancel(ctx: Ctx, fields: Fields) -> Answer:
    found = await _document(ctx, fields)
    await ctx.house.ledger.cancel(found.id)
    return Answer(
        ctx.t("1 document cancelled.", "문서 1건을 취소했습니다."), f"/documents/{found.id}"
    )


async def _retry(ctx: Ctx, fields: Fields) -> Answer:
    found = await _document(ctx, fields)
    ticket = await ctx.house.ledger.retry(found.id, ctx.house.current_pin())
    ctx.house.intake.ring([ticket])
    text = ctx.t("1 document went back to work.", "문서 1건을 다시 처리합니다.")
    return Answer(text, f"/documents/{found.id}")


async def _delete(ctx: Ctx, fields: Fields) -> Answer:
    found = await _document(ctx, fields)
    await ctx.house.ledger.delete(found.id)
    return Answer(ctx.t("1 document deleted.", "문서 1건을 삭제했습니다."), "/documents")


# -- live settings ----------------------------------------------------------------------------
def _knob(fields: Fields) -> tuple[str, int]:
    name, text = fields.get("name", ""), fields.get("value", "").strip()
    if name not in KNOBS:
        raise UsageError(f"{name!a} cannot be changed live", code="invalid")
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise UsageError(f"{name}: {text!a} is no whole number", code="invalid")
    value = int(text)
    check_knob(name, value)
    return name, value


async def _ask_knob(ctx: Ctx, fields: Fields) -> Question:
    name, value = _knob(fields)
    changed = await ctx.house.ledger.knobs()
    before = changed.get(name, start_value(ctx.house.settings, name))
    label = said(KNOB_WORDS, name, ctx.lang)
    return Question(
        ctx.t("Change 1 setting?", "설정 1개를 바꿀까요?"),
        (
            f"{label}: {count(before)} → {count(value)}",
            ctx.t(
                "Every worker follows within a batch, without a restart.",
                "모든 워커가 재시작 없이 다음 배치부터 따릅니다.",
            ),
        ),
        ctx.t("Change 1 setting", "설정 1개 변경"),
        {"name": name, "value": str(value)},
        back="/workers",
        possible=before != value,
        command=f"unjam set {name}={value}",
    )


async def _set_knob(ctx: Ctx, fields: Fields) -> Answer:
    name, value = _knob(fields)
    await ctx.house.ledger.set_knob(name, value, BY)
    text = ctx.t(f"{name} is {count(value)} now.", f"{name} 값을 {count(value)}(으)로 바꿨습니다.")
    return Answer(text, "/workers")


# -- the watchdog's kill switch ---------------------------------------------------------------
async def _ask_pause(ctx: Ctx, fields: Fields) -> Question:
    return Question(
        ctx.t("Pause all remedies?", "복구 조치를 모두 중지할까요?"),
        (
            ctx.t(
                "The watchdog goes on looking and telling, and repairs nothing until you resume it. "
                "Workers go on.",
                "워치독은 감시와 알림만 하고, 재개할 때까지 아무것도 복구하지 않습니다. 워커는 계속 일합니다.",
            ),
        ),
        ctx.t("Pause remedies", "복구 조치 중지"),
        danger=True,
        back="/incidents",
        possible=not await book_of(ctx.house).remedies_paused(),
        command="unjam recover --pause",
    )


async def _ask_resume(ctx: Ctx, fields: Fields) -> Question:
    return Question(
        ctx.t("Let remedies work again?", "복구 조치를 재개할까요?"),
        (ctx.t("The watchdog repairs what it may again.", "워치독이 다시 자동으로 복구합니다."),),
        ctx.t("Resume remedies", "복구 조치 재개"),
        back="/incidents",
        possible=await book_of(ctx.house).remedies_paused(),
        command="unjam recover --resume",
    )


async def _pause(ctx: Ctx, fields: Fields) -> Answer:
    await book_of(ctx.house).pause_remedies(True, BY)
    return Answer(ctx.t("Remedies are paused.", "복구 조치를 중지했습니다."), "/incidents")


async def _resume(ctx: Ctx, fields: Fields) -> Answer:
    await book_of(ctx.house).pause_remedies(False, BY)
    return Answer(ctx.t("Remedies work again.", "복구 조치를 재개했습니다."), "/incidents")


ACTIONS: Mapping[str, Action] = {
    "dlq-retry": Action(_ask_retry_dead, _retry_dead),
    "dlq-drop": Action(_ask_drop_dead, _drop_dead),
    "cancel": Action(_ask_cancel, _cancel),
    "retry": Action(_ask_retry, _retry),
    "delete": Action(_ask_delete, _delete),
    "set": Action(_ask_knob, _set_knob),
    "pause-remedies": Action(_ask_pause, _pause),
    "resume-remedies": Action(_ask_resume, _resume),
    **LEVERS,
}


def action(name: str) -> Action:
    """Raises NotFound."""
    found = ACTIONS.get(name)
    if found is None:
        raise NotFound(f"no action {name!a}")
    return found
