"""``unjam verify``: did the recovery hold? The runbook's windows of 2, 10 and 30 minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unjam.cli.common import UNKNOWN, Json
from unjam.cli.lang import LANG, t

if TYPE_CHECKING:
    from unjam.watchdog.verify import Check

NAMES = {
    "workers": ("workers live", "활성 워커"),
    "queue_shrinks": ("the queue shrinks", "큐 감소"),
    "work_starts": ("new work starts", "새 작업 시작"),
    "processes_stable": ("processes are stable", "프로세스 안정"),
    "errors_end": ("errors do not grow", "오류 증가 중단"),
    "memory": ("memory below 80 %", "메모리 80% 미만"),
    "throughput": ("throughput", "처리 속도"),
    "processing_time": ("mean processing time", "평균 처리 시간"),
    "equation": ("the ledger equation", "원장 등식"),
    "canary": ("a canary document", "확인용 문서"),
    "ledger": ("the ledger answers", "원장 응답"),
}
MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "critical": ("✗", "red")}


def register(app: typer.Typer) -> None:
    app.command(
        "verify",
        help=t(
            "Prove that it works: 2, 10 and 30 minutes, the equation, a canary document.",
            "정상인지 확인합니다: 2·10·30분 점검, 원장 등식, 확인용 문서.",
        ),
    )(verify)


def verify(
    now: Annotated[
        bool,
        typer.Option(
            "--now",
            help=t("What can be told within seconds.", "지금 알 수 있는 것만 확인합니다."),
        ),
    ] = False,
    minutes: Annotated[
        int,
        typer.Option(
            "--minutes",
            min=2,
            max=30,
            help=t(
                "The longest window: 2, 10 or 30.", "가장 긴 점검 구간(2, 10, 30 중 하나)입니다."
            ),
        ),
    ] = 30,
    as_json: Json = False,
) -> None:
    """Exit 0 ok, 1 warning, 2 critical, 3 could not tell."""
    import asyncio

    from unjam.cli.operate import load_settings

    checks = asyncio.run(_verify(load_settings(), now, minutes, not as_json))
    from unjam.cli import render
    from unjam.watchdog.verify import exit_code, verdict

    code = exit_code(checks) if checks else UNKNOWN
    if as_json:
        render.out_json({"verdict": verdict(checks), "checks": [_as_json(c) for c in checks]})
    else:
        words = t("ok|warning|critical|could not tell", "정상|주의|심각|판단 불가").split("|")
        render.out(t("verdict: ", "판정: ") + words[code])
    raise typer.Exit(code)


async def _verify(settings: Any, now: bool, minutes: int, show: bool) -> list[Check]:
    from unjam.app.verifying import open_verifier
    from unjam.watchdog.verify import WINDOWS_MIN

    verifier, ledger = await open_verifier(settings)
    checks: list[Check] = []
    try:
        if now:
            checks = await verifier.now()
            if show:
                _print(checks)
            return checks
        if show:
            _remark(minutes)
        windows = [m for m in WINDOWS_MIN if m <= minutes]
        async for some in verifier.over_time(windows):
            checks += some
            if show:
                _print(some)
        return checks
    finally:
        await verifier.look.close()
        await ledger.close()


def _remark(minutes: int) -> None:
    from unjam.cli import render

    render.remark(
        t(
            f"watching for {minutes} minutes; `--now` tells within seconds",
            f"{minutes}분간 지켜봅니다. `--now`는 바로 알려 줍니다",
        )
    )


def _as_json(check: Check) -> dict[str, Any]:
    return {
        "minutes": check.minutes,
        "check": check.code,
        "level": check.level,
        "detail": check.said.said_in(LANG),
    }


def _print(checks: Sequence[Check]) -> None:
    from unjam.cli import render

    for check in checks:
        mark, colour = MARKS.get(check.level, ("?", "yellow"))
        en, ko = NAMES.get(check.code, (check.code, check.code))
        window = t(f"{check.minutes} min", f"{check.minutes}분") if check.minutes else ""
        name = t(en, ko)
        pad = " " * max(1, 24 - render.width(name))
        room = " " * max(1, 8 - render.width(window))
        detail = render.plain(check.said.said_in(LANG))
        render.out(f"{render.paint(mark, colour)} {window}{room}{name}{pad}{detail}")
