"""``unjam doctor`` and ``unjam explain``: what is wrong, why, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from unjam.cli.common import Json
from unjam.cli.lang import LANG, t
from unjam.cli.operate import DataDir, load_settings

if TYPE_CHECKING:
    from unjam.app.checks import Check
    from unjam.app.doctor import Finding, Report


def register(app: typer.Typer) -> None:
    app.command(
        "doctor",
        help=t(
            "Find what is wrong, and why: looks at everything, changes nothing.",
            "무엇이 왜 잘못되었는지 찾습니다. 모두 살펴보고 아무것도 바꾸지 않습니다.",
        ),
    )(doctor)


def doctor(
    probe_embedding: Annotated[
        bool,
        typer.Option(
            "--probe-embedding",
            help=t(
                "Send one word to the embedding endpoint with each key.",
                "임베딩 엔드포인트에 키마다 한 단어를 보냅니다.",
            ),
        ),
    ] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Exit 0 all is well, 1 warning, 2 critical, 3 could not tell."""
    import asyncio

    from unjam.app.doctor import examine
    from unjam.cli import render

    report = asyncio.run(examine(load_settings(data_dir), probe_embedding=probe_embedding))
    if as_json:
        render.out_json(_as_json(report))
    else:
        _print(report)
    raise typer.Exit(report.exit)


_COLOURS = {"ok": "green", "info": "green", "warning": "yellow", "critical": "red"}
_MARKS = {"ok": "✓", "info": "✓", "note": "·", "warning": "!", "critical": "✗", "unknown": "?"}
_LEVELS_KO = {
    "ok": "정상",
    "info": "정상",
    "warning": "경고",
    "critical": "심각",
    "unknown": "판단 불가",
}


def _print(report: Report) -> None:
    from unjam.cli import render

    head = _headline(report)
    render.out(render.paint(head, _COLOURS.get(report.verdict, "yellow")))
    for finding in report.findings:
        _print_finding(finding, lead=len(report.findings) > 1)
    render.out()
    wide = max(render.width(c.name) for c in report.checks)
    for check in report.checks:
        mark = render.paint(_MARKS[check.level], _COLOURS.get(check.level, "grey"))
        space = " " * (wide - render.width(check.name))
        render.out(f"{mark} {check.name}{space}  {render.plain(check.said.said_in(LANG))}")
        if check.command and check.level != "ok":
            render.out(" " * (wide + 4) + render.paint(f"$ {check.command}", "grey"))


def _headline(report: Report) -> str:
    mark = _MARKS.get(report.verdict, "?")
    level = t(report.verdict, _LEVELS_KO.get(report.verdict, report.verdict))
    if report.verdict == "unknown" and not report.findings:
        where = report.data_dir
        return t(
            f"{mark} could not tell: no house was found in {where}; start one with `unjam up`",
            f"{mark} 판단 불가: {where}에 시스템이 없습니다. `unjam up`으로 시작하세요",
        )
    if not report.findings:
        if report.verdict == "ok":
            return t(f"{mark} ok: everything works", f"{mark} 정상: 모두 동작합니다")
        return t(f"{mark} {level}: see the checks", f"{mark} {level}: 아래 항목을 보세요")
    first = report.findings[0].cause
    return f"{mark} {level}: {first.said_in('title', LANG)}"


def _print_finding(finding: Finding, *, lead: bool) -> None:
    from unjam.cli import render

    cause, diagnosis = finding.cause, finding.diagnosis
    title = cause.said_in("title", LANG)
    if diagnosis.subject:
        title += f" ({render.plain(diagnosis.subject)})"
    render.out()
    render.out(render.paint(f"{title}  [{cause.code}]", "bold") if lead else f"[{cause.code}]")
    for said in diagnosis.evidence:
        render.out(f"  - {render.plain(said.said_in(LANG))}")
    effects = ", ".join(diagnosis.effects)
    rows = [
        (t("it brings about", "이어지는 증상"), effects),
        (t("the system", "시스템이 하는 일"), cause.said_in("repair", LANG)),
        (t("you", "할 일"), cause.said_in("advice", LANG)),
        (t("next", "다음 명령"), finding.command),
        (t("more", "자세히"), f"unjam explain {cause.code}"),
    ]
    render.facts([("  " + name, value) for name, value in rows if value])


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "verdict": report.verdict,
        "exit": report.exit,
        "data_dir": report.data_dir,
        "took_s": round(report.took_s, 3),
        "findings": [_finding_json(f) for f in report.findings],
        "checks": [_check_json(c) for c in report.checks],
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    cause, diagnosis = finding.cause, finding.diagnosis
    return {
        "cause": cause.code,
        "subject": diagnosis.subject,
        "severity": cause.severity,
        "title": cause.said_in("title", LANG),
        "evidence": [said.said_in(LANG) for said in diagnosis.evidence],
        "effects": list(diagnosis.effects),
        "since": diagnosis.since,
        "repair": cause.said_in("repair", LANG),
        "advice": cause.said_in("advice", LANG),
        "command": finding.command,
    }


def _check_json(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "level": check.level,
        "said": check.said.said_in(LANG),
        "command": check.command,
    }
