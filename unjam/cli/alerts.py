"""``unjam alerts``: which alerts there are, which conditions hold now, and Prometheus' rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from unjam.cli.common import CRITICAL, OK, WARNING, Json, Url, client_for
from unjam.cli.lang import LANG, t

if TYPE_CHECKING:
    from unjam.observe.alerts import Alert, Scrape


def register(app: typer.Typer) -> None:
    app.command(
        "alerts",
        help=t(
            "Which alert conditions hold now; --rules prints Prometheus' rules.",
            "지금 성립하는 알림 조건을 봅니다. --rules는 Prometheus 규칙을 출력합니다.",
        ),
    )(alerts)


def alerts(
    rules: Annotated[
        bool,
        typer.Option(
            "--rules",
            help=t("Print the rules file for Prometheus.", "Prometheus 규칙 파일을 출력합니다."),
        ),
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help=t("Those that do not hold, too.", "나머지도 보입니다."))
    ] = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Exit 0 when no condition holds, 1 for a warning, 2 for a critical one. Conditions that speak
    of a stretch of time need Prometheus: one look cannot tell."""
    from unjam.cli import render
    from unjam.observe.alert_table import ALERTS
    from unjam.observe.alerts import read_scrape, rules_yaml

    if rules:
        print(rules_yaml(ALERTS), end="")
        raise typer.Exit(OK)
    with client_for(url) as client:
        scrape = read_scrape(client.text("/metrics"))
    found = [_row(alert, scrape) for alert in ALERTS]
    if as_json:
        render.out_json(found)
    else:
        _print(found, every)
    firing = {row["severity"] for row in found if row["state"] == "holds"}
    code = CRITICAL if "critical" in firing else WARNING if "warning" in firing else OK
    raise typer.Exit(code)


def _row(alert: Alert, scrape: Scrape) -> dict[str, Any]:
    subjects = list(alert.now(scrape)) if alert.now is not None else []
    state = "needs_history" if alert.now is None else "holds" if subjects else "quiet"
    return {
        "name": alert.name,
        "severity": alert.severity,
        "state": state,
        "subjects": [s for s in subjects if s],
        "for": alert.hold,
        "meaning": alert.said_in("meaning", LANG),
        "command": alert.command,
    }


def _print(found: list[dict[str, Any]], every: bool) -> None:
    from unjam.cli import render

    names = {
        "holds": t("holds now", "지금 성립"),
        "quiet": t("quiet", "정상"),
        "needs_history": t("needs Prometheus", "Prometheus 필요"),
    }
    colours = {"critical": "red", "warning": "yellow", "info": "blue"}
    shown = [row for row in found if every or row["state"] == "holds"]
    for row in shown:
        colour = colours[row["severity"]] if row["state"] == "holds" else "grey"
        about = f" ({', '.join(row['subjects'])})" if row["subjects"] else ""
        head = f"{row['name']}{about}"
        render.out(
            f"{render.paint(head, colour)}  {row['severity']}  {names[row['state']]}  "
            f"{t('for', '지속')} {row['for']}"
        )
        render.out(f"    {row['meaning']}")
        render.out(f"    {t('first', '먼저')}: {row['command']}")
    unseen = sum(row["state"] == "needs_history" for row in found)
    if not shown:
        render.remark(t("no condition holds", "성립하는 조건이 없습니다"))
    if not every:
        render.remark(
            t(
                f"{unseen} more look at a stretch of time and need Prometheus (--all, --rules)",
                f"그 밖의 {unseen}개는 일정 기간을 보므로 Prometheus가 필요합니다(--all, --rules)",
            )
        )
