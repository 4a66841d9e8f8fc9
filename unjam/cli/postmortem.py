"""``unjam postmortem``: an incident's report, with the runbook's eight fields."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unjam.cli.common import OK, Json, Url, admin_client_for
from unjam.cli.lang import LANG, t

PATH = "/api/rag/admin/incidents"
FORMATS = ("md", "json", "html")


def register(app: typer.Typer) -> None:
    app.command(
        "postmortem",
        help=t("Write the report of an incident.", "장애의 사후 분석 보고서를 씁니다."),
    )(postmortem)


def postmortem(
    incident: Annotated[
        int | None,
        typer.Argument(
            metavar="[ID]",
            help=t("The incident; the newest when empty.", "장애 번호. 비우면 가장 최근 장애."),
        ),
    ] = None,
    style: Annotated[
        str, typer.Option("--format", help=t("md, json or html.", "md, json, html 중 하나."))
    ] = "md",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help=t("Write it there.", "파일로 씁니다.")),
    ] = None,
    every: Annotated[
        bool, typer.Option("--list", help=t("Which incidents there are.", "장애 목록을 봅니다."))
    ] = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Also of an incident that is still open, as far as it has come."""
    from unjam.core.errors import UsageError

    style = "json" if as_json and style == "md" else style
    if style not in FORMATS:
        raise UsageError(
            t(f"no such format: {style}", f"없는 형식: {style}"), hint=", ".join(FORMATS)
        )
    if every:
        _list(url, as_json)
        raise typer.Exit(OK)
    text = _report(incident, style, url)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
        from unjam.cli import render

        render.remark(str(output))


def _report(incident: int | None, style: str, url: str) -> str:
    from unjam.core.errors import DependencyDown, NotFound

    try:
        with admin_client_for(url) as client:
            if incident is None:
                items = client.call("GET", PATH, params={"limit": "1"})["items"]
                if not items:
                    raise NotFound(t("there was no incident yet", "아직 장애가 없었습니다"))
                incident = int(items[0]["id"])
            return client.text(f"{PATH}/{incident}/report?format={style}&lang={LANG}")
    except DependencyDown as error:
        if url or error.code != "api_down":
            raise
    import asyncio

    from unjam.app.recovery import report_here
    from unjam.cli.operate import load_settings
    from unjam.watchdog.report import FORMATS as WRITERS

    report = asyncio.run(report_here(load_settings(), incident, LANG))
    return WRITERS[style][0](report)


def _list(url: str, as_json: bool) -> None:
    from unjam.cli import render

    with admin_client_for(url) as client:
        body = client.call("GET", PATH, params={"limit": "50"})
    if as_json:
        render.out_json(body)
        return
    items: list[dict[str, Any]] = body["items"]
    if not items:
        render.remark(t("no incidents", "장애가 없습니다"))
        return
    head = t("id|state|severity|started|lasted|cause", "번호|상태|심각도|시작|지속|원인").split("|")
    rows = [
        [
            str(i["id"]),
            i["state"],
            i["severity"],
            i["started_at"],
            render.span(float(i["duration_s"])),
            render.plain(i["title"]),
        ]
        for i in items
    ]
    render.table(head, rows)
