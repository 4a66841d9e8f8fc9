"""``unjam drill``: play a fault on a throw-away system, and see what is promised held or broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from unjam.cli.common import CRITICAL, OK, Json
from unjam.cli.lang import LANG, t

if TYPE_CHECKING:
    from unjam.testing.drills import Drill, DrillReport, Entry

NAMES = (
    "worker-kill",
    "worker-freeze",
    "redis-restart",
    "redis-flush",
    "chroma-down",
    "rate-limit",
    "bad-key",
    "oom",
    "huge-file",
    "disk-full",
)
"""As ``unjam.testing.drills.DRILLS``, whose import is not for ``--help``; a test compares."""

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help=t("One of: ", "다음 중 하나: ") + ", ".join((*NAMES, "all")) + ".",
    ),
]
Keep = Annotated[
    bool,
    typer.Option(
        "--keep",
        help=t("Leave data and logs where they are.", "데이터와 로그를 지우지 않습니다."),
    ),
]


def register(app: typer.Typer) -> None:
    app.command(
        "drill",
        help=t(
            "Play a fault on a throw-away system with servers of its own, never on live data.",
            "일회용 시스템에서 장애를 재현합니다. 실제 데이터는 건드리지 않습니다.",
        ),
    )(drill)


def drill(name: Name, keep: Keep = False, as_json: Json = False) -> None:
    """Exit 0 when every promise held, 2 when one broke."""
    from unjam.core.errors import UsageError

    if name != "all" and name not in NAMES:
        raise UsageError(
            t(f"there is no drill {name}", f"{name}이라는 훈련이 없습니다"),
            hint=", ".join((*NAMES, "all")),
        )
    import asyncio
    import logging

    from unjam.cli import render
    from unjam.testing.drills import DRILLS

    logging.getLogger("unjam").addHandler(logging.NullHandler())  # the timeline tells it
    reports = [
        asyncio.run(_one(DRILLS[n], keep, as_json)) for n in (NAMES if name == "all" else [name])
    ]
    ok = all(report.ok for report in reports)
    if as_json:
        render.out_json({"ok": ok, "drills": [report.to_json() for report in reports]})
    elif len(reports) > 1:
        _summary(reports)
    raise typer.Exit(OK if ok else CRITICAL)


async def _one(which: Drill, keep: bool, as_json: bool) -> DrillReport:
    import tempfile
    from pathlib import Path

    from unjam.cli import render
    from unjam.testing.drills import run_drill

    say = render.remark if as_json else render.out
    folder = Path(tempfile.mkdtemp(prefix="unjam-drill-")) if keep else None
    say(render.paint(f"{which.name}: {t(which.what, which.what_ko)}", "bold"))

    def tell(entry: Entry) -> None:
        say(f"  {entry.at_s:7.2f} s  {render.plain(t(entry.en, entry.ko))}")

    report = await run_drill(which, folder=folder, tell=tell)
    if not as_json:
        _result(report)
    if folder is not None:
        render.remark(t(f"data and logs: {folder}", f"데이터와 로그: {folder}"))
    return report


def _result(report: DrillReport) -> None:
    from unjam.cli import render

    for promise in report.promises:
        mark = render.paint("✓", "green") if promise.held else render.paint("✗", "red")
        seen = f" ({render.plain(promise.seen)})" if promise.seen else ""
        render.out(f"  {mark} {promise.ko if LANG == 'ko' else promise.en}{seen}")
    render.facts(
        [
            (t("  noticed after", "  감지까지"), _seconds(report.noticed_s)),
            (t("  recovered after", "  복구까지"), _seconds(report.recovered_s)),
            (t("  documents lost", "  유실 문서"), f"{report.lost} / {report.documents}"),
        ]
    )
    if report.story:
        render.remark(report.story)


def _summary(reports: list[DrillReport]) -> None:
    from unjam.cli import render

    head = ("drill", "noticed after", "recovered after", "documents lost", "promises")
    head_ko = ("훈련", "감지까지", "복구까지", "유실 문서", "약속")
    rows = [
        (
            report.name,
            _seconds(report.noticed_s),
            _seconds(report.recovered_s),
            f"{report.lost} / {report.documents}",
            t("held", "지킴") if report.ok else t("BROKEN", "깨짐"),
        )
        for report in reports
    ]
    render.table(head_ko if LANG == "ko" else head, rows, numbers=(1, 2, 3))


def _seconds(value: float | None) -> str:
    return t("never", "없음") if value is None else f"{value:.2f} s"
