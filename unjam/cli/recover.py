"""``unjam recover``: look for trouble and treat it now; ``--plan`` only says what would be done."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unjam.cli.common import CRITICAL, OK, WARNING, Json, Url, admin_client_for
from unjam.cli.lang import LANG, t

if TYPE_CHECKING:
    from unjam.watchdog.recovery import Round

PATH = "/api/rag/admin/recover"


def register(app: typer.Typer) -> None:
    app.command(
        "recover",
        help=t(
            "Find trouble and treat it now, as the watchdog would.",
            "문제를 찾아 워치독과 같은 방법으로 지금 복구합니다.",
        ),
    )(recover)


def recover(
    plan: Annotated[
        bool, typer.Option("--plan", help=t("Only say what would be done.", "계획만 봅니다."))
    ] = False,
    pause: Annotated[
        bool,
        typer.Option(
            "--pause",
            help=t(
                "The kill switch: the watchdog looks on, and does nothing.",
                "킬 스위치: 워치독이 지켜보기만 하고 조치하지 않습니다.",
            ),
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help=t("Let it act again.", "자동 조치를 다시 켭니다.")),
    ] = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Exit 0: nothing is wrong; 1: something is, and it was treated or heals by itself; 2: a
    person is needed."""
    from unjam.core.errors import UsageError

    if plan + pause + resume > 1:
        raise UsageError(
            t(
                "choose one of --plan, --pause, --resume",
                "--plan, --pause, --resume 중 하나만 고르세요",
            )
        )
    if pause or resume:
        _switch(pause, url, as_json)
        return
    body = _run(plan, url)
    from unjam.cli import render

    if as_json:
        render.out_json(body)
    else:
        _print(body, plan)
    raise typer.Exit(_code(body))


def _code(body: Mapping[str, Any]) -> int:
    plans: Sequence[Mapping[str, Any]] = body["plans"]
    if not plans:
        return OK
    left = [p for p in plans if p["next"] == "hand_over"]
    states = [i["state"] for i in body["incidents"]]
    return CRITICAL if left or "handed_over" in states else WARNING


# -- through the API, or without it ----------------------------------------------------------
def _run(plan: bool, url: str) -> dict[str, Any]:
    from unjam.core.errors import DependencyDown

    try:
        with admin_client_for(url) as client:
            return client.call("POST", PATH, body={"plan": plan})
    except DependencyDown as error:
        if url or error.code != "api_down":
            raise
        from unjam.cli import render

        render.remark(
            t(
                "the API does not answer; working on the ledger itself",
                "API가 응답하지 않아 원장에서 직접 진행합니다",
            )
        )
    return _directly(plan)


def _directly(plan: bool) -> dict[str, Any]:
    import asyncio

    from unjam.app.recovery import recover_here
    from unjam.cli.operate import load_settings

    return _as_json(asyncio.run(recover_here(load_settings(), plan=plan, by=_who())))


def _switch(paused: bool, url: str, as_json: bool) -> None:
    from unjam.cli import render
    from unjam.core.errors import DependencyDown

    verb = "pause" if paused else "resume"
    try:
        with admin_client_for(url) as client:
            client.call("POST", f"{PATH}/{verb}")
    except DependencyDown as error:
        if url or error.code != "api_down":
            raise
        import asyncio

        from unjam.app.recovery import pause_here
        from unjam.cli.operate import load_settings

        asyncio.run(pause_here(load_settings(), paused, _who()))
    if as_json:
        render.out_json({"paused": paused})
    elif paused:
        render.out(
            t(
                "paused: the watchdog looks on, and does nothing; `unjam recover --resume` ends it",
                "멈춤: 워치독은 지켜보기만 합니다. `unjam recover --resume`으로 다시 켭니다",
            )
        )
    else:
        render.out(t("resumed: the watchdog acts again", "재개: 워치독이 다시 조치합니다"))


def _who() -> str:
    try:
        return f"cli {getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"


def _as_json(found: Round) -> dict[str, Any]:
    """As the API has it, as far as it is printed."""
    from unjam.core.causes import CAUSES

    def title(code: str) -> str:
        cause = CAUSES.get(code)
        return cause.said_in("title", LANG) if cause else code

    return {
        "paused": found.paused,
        "plans": [
            {
                "cause": p.diagnosis.cause,
                "subject": p.diagnosis.subject,
                "title": title(p.diagnosis.cause),
                "evidence": [s.said_in(LANG) for s in p.diagnosis.evidence],
                "effects": list(p.diagnosis.effects),
                "incident_id": p.incident.id if p.incident else None,
                "next": p.choice.verdict,
                "remedy": p.choice.remedy.code if p.choice.remedy else None,
                "remedy_title": p.choice.remedy.title.said_in(LANG) if p.choice.remedy else "",
                "take_back": p.choice.remedy.back.said_in(LANG) if p.choice.remedy else "",
                "why": p.choice.why,
            }
            for p in found.plans
        ],
        "incidents": [
            {
                "id": i.id,
                "cause": i.cause,
                "state": i.state,
                "actions": [
                    {"outcome": a.outcome, "remedy": a.remedy, "detail": a.detail.said_in(LANG)}
                    for a in i.actions
                ],
            }
            for i in found.incidents
        ],
    }


# -- printing --------------------------------------------------------------------------------
def _print(body: Mapping[str, Any], plan: bool) -> None:
    from unjam.cli import render

    if body["paused"]:
        render.remark(
            t(
                "remedies are paused; `unjam recover --resume` lets them act",
                "자동 조치가 멈춰 있습니다. `unjam recover --resume`으로 켜세요",
            )
        )
    if not body["plans"]:
        render.out(t("nothing to recover: no trouble was found", "복구할 문제가 없습니다"))
        return
    by_id = {i["id"]: i for i in body["incidents"]}
    for n, p in enumerate(body["plans"]):
        subject = f" ({render.plain(p['subject'])})" if p["subject"] else ""
        render.out(render.paint(f"{p['cause']}{subject}: {p['title']}", "red" if not n else "bold"))
        for line in p["evidence"]:
            render.out(f"  · {render.plain(line)}")
        if p["effects"]:
            render.out("  " + t("explains: ", "이로 인한 현상: ") + ", ".join(p["effects"]))
        render.out("  → " + _next(p, plan))
        for action in by_id.get(p["incident_id"], {}).get("actions", []) if not plan else []:
            detail = render.plain(action["detail"])
            render.out(f"    {action['outcome']:<8} {action['remedy']}: {detail}")
    if not plan:
        render.remark(t("then: unjam verify --now", "다음: unjam verify --now"))


def _next(p: Mapping[str, Any], plan: bool) -> str:
    if p["next"] == "act":
        would = t("would do: ", "할 일: ") if plan else ""
        back = t("; to take it back: ", " / 되돌리기: ") + p["take_back"] if plan else ""
        return f"{would}{p['remedy_title']}{back}"
    if p["next"] == "wait":
        return t(f"waits: {p['why']}", f"대기: {p['why']}")
    return t("a person is needed: ", "사람의 조치가 필요합니다: ") + f"unjam explain {p['cause']}"
