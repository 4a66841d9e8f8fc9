"""``unjam explain CODE``: every code that unjam says, in plain words."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unjam.cli.common import Json
from unjam.cli.lang import LANG, t


def register(app: typer.Typer) -> None:
    app.command(
        "explain",
        help=t(
            "Explain a code: a cause, a document's reason or an error; without one, list them.",
            "코드(원인, 문서의 사유, 오류)를 설명합니다. 코드가 없으면 목록을 보여 줍니다.",
        ),
    )(explain)


def explain(
    code: Annotated[
        str,
        typer.Argument(metavar="CODE", help=t("The code; empty: all.", "코드. 비우면 전체 목록.")),
    ] = "",
    as_json: Json = False,
) -> None:
    """Exit 2 when nobody knows the code; the nearest ones are named."""
    from unjam.cli import render

    known = every_code()
    if not code:
        if as_json:
            render.out_json(known)
            return
        rows = [[entry["code"], entry["kind"], entry["what"]] for some in known for entry in some]
        render.table(t("code kind what", "코드 종류 설명").split(), rows)
        return
    found = [entry for some in known for entry in some if entry["code"] == code.strip().lower()]
    if not found:
        from difflib import get_close_matches

        from unjam.core.errors import NotFound

        names = sorted({entry["code"] for some in known for entry in some})
        near = ", ".join(get_close_matches(code.strip().lower(), names, n=3, cutoff=0.5))
        hint = t(f"Nearest: {near}.", f"비슷한 코드: {near}.") if near else ""
        raise NotFound(
            t(f"no such code: {code}", f"없는 코드입니다: {code}"),
            hint=hint or t("`unjam explain` lists all.", "`unjam explain`으로 전체를 봅니다."),
        )
    if as_json:
        render.out_json(found)
        return
    for n, entry in enumerate(found):
        if n:
            render.out()
        render.out(render.paint(f"{entry['code']}  ({entry['kind']})", "bold"))
        render.facts([(_names()[k], str(v)) for k, v in entry.items() if k in _names()])


def _names() -> dict[str, str]:
    return {
        "severity": t("severity", "심각도"),
        "title": t("cause", "원인"),
        "what": t("what", "설명"),
        "repair": t("the system", "시스템이 하는 일"),
        "hint": t("you", "할 일"),
        "command": t("next", "다음 명령"),
    }


def every_code() -> tuple[list[dict[str, Any]], ...]:
    """Causes, reasons and errors, each as a flat record in the language of the command."""
    from unjam.core.causes import CAUSES
    from unjam.core.codes import OTHER_CODES, PROBLEMS
    from unjam.core.reasons import REASONS

    causes = [
        {
            "code": cause.code,
            "kind": t("cause", "원인"),
            "severity": cause.severity,
            "title": cause.said_in("title", LANG),
            "what": cause.said_in("meaning", LANG),
            "repair": cause.said_in("repair", LANG),
            "hint": cause.said_in("advice", LANG),
            "command": cause.command,
        }
        for cause in CAUSES.values()
    ]
    kinds = {
        "dead": t("reason: parked", "사유: 보관"),
        "waiting": t("reason: waiting", "사유: 대기"),
        "ended": t("reason: ended", "사유: 종료"),
    }
    reasons = [
        {
            "code": reason.code,
            "kind": kinds[reason.kind],
            "what": reason.what_in(LANG),
            "hint": reason.hint_in(LANG),
        }
        for reason in REASONS.values()
    ]
    errors = [
        {
            "code": code,
            "kind": t("error", "오류"),
            "what": t(word.title, word.title_ko),
            "hint": t(word.hint, word.hint_ko),
        }
        for code, word in {**OTHER_CODES, **PROBLEMS}.items()
    ]
    return causes, reasons, errors
