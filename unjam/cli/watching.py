"""``unjam watch``: the house live, as a page on a terminal and as lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unjam.cli.common import CRITICAL, OK, UNKNOWN, WARNING, Json, Url, admin_client_for, hint_for
from unjam.cli.lang import LANG, t

if TYPE_CHECKING:
    from rich.console import RenderableType

    from unjam.client import Client

PACE_S = 30.0
"""The pace shown is that of the last half minute."""
WAITING_SEEN = 200
"""So many of the waiting documents are asked for their reasons."""

View = Mapping[str, Any]
"""One look, as ``--json`` prints it."""


def register(app: typer.Typer) -> None:
    app.command(
        "watch",
        help=t(
            "Watch it live: lanes, workers, what waits and why.",
            "레인, 워커, 대기와 그 이유를 실시간으로 봅니다.",
        ),
    )(watch)


def watch(
    interval: Annotated[
        float,
        typer.Option("--interval", min=0.2, help=t("Seconds between looks.", "갱신 간격(초).")),
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help=t("One look.", "한 번만 봅니다."))] = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Ends with Ctrl-C. Exit code of the last look: 0 all is well, 1 documents wait or are dead,
    2 not ready, 3 no server."""
    from unjam.cli import render

    memory, code = Memory(), OK
    live = not once and not as_json and sys.stdout.isatty()
    with admin_client_for(url) as client:
        try:
            if live:
                code = _live(client, memory, interval)
            while not live:
                view = look(client, memory)
                code = view["exit"]
                if as_json:
                    render.out_json_line(view)
                elif once:
                    _print(view)
                else:
                    print(line_of(view), flush=True)
                if once:
                    break
                time.sleep(interval)
        except KeyboardInterrupt:
            pass
    raise typer.Exit(code)


# -- looking ----------------------------------------------------------------------------------
@dataclass(slots=True)
class Memory:
    """What the last looks saw: the pace is the difference."""

    finished: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    def pace(self, now: float, completed: int) -> float | None:
        """Documents a second over the last half minute; None at the first look."""
        if self.finished and completed < self.finished[-1][1]:
            self.finished.clear()  # another ledger answers now
        self.finished.append((now, completed))
        while self.finished[-1][0] - self.finished[0][0] > PACE_S:
            self.finished.popleft()
        since, first = self.finished[0]
        return round((completed - first) / (now - since), 2) if now > since else None


def look(client: Client, memory: Memory) -> View:
    """One look; never raises for a server that is away or says no."""
    from unjam.core.errors import UnjamError

    at = time.strftime("%H:%M:%S")
    try:
        ready = client.readiness()
        ledger = client.ledger()
        waiting = _waiting(client) if ledger["waiting"] else {}
    except UnjamError as error:
        trouble = {"code": error.code, "detail": str(error), "hint": hint_for(error)}
        return {"at": at, "exit": UNKNOWN, "reasons": [trouble]}
    view: dict[str, Any] = {"at": at, "ready": ready["ready"], "reasons": ready["reasons"]}
    view["ledger"] = ledger
    view["pace_per_s"] = memory.pace(time.monotonic(), _completed(client, ledger))
    view["waiting"] = waiting
    view["queues"] = _part(client, "queues", view)
    view["workers"] = _part(client, "workers", view)
    view["incidents"] = [i for i in _part(client, "incidents", view) if i.get("state") != "closed"]
    calm = not (ledger["waiting"] or ledger["dead"] or view["incidents"])
    view["exit"] = CRITICAL if not ready["ready"] or ledger["missing"] else OK if calm else WARNING
    return view


def _completed(client: Client, ledger: Mapping[str, int]) -> int:
    """Completions since the ledger began: deletes and updates do not lower it."""
    from unjam.core.errors import UnjamError
    from unjam.observe.alerts import read_scrape, total

    try:
        return int(total(read_scrape(client.text("/metrics")), "rag_jobs_completed_total"))
    except UnjamError:
        return ledger["searchable"]


def _part(client: Client, name: str, view: dict[str, Any]) -> list[dict[str, Any]]:
    """A list of the operators' part; what cannot be had is said once, and left out."""
    from unjam.core.errors import NotFound, UnjamError

    try:
        found = client.call("GET", f"/api/rag/admin/{name}")
        return list(found.get(name) or found.get("items") or [])
    except NotFound:
        return []
    except UnjamError as error:
        trouble = {"code": error.code, "detail": str(error), "hint": hint_for(error)}
        if all(r["code"] != error.code for r in view["reasons"]):
            view["reasons"] = [*view["reasons"], trouble]
        return []


def _waiting(client: Client) -> dict[str, int]:
    """Reason → how many of the newest waiting documents wait for it, most first."""
    counts: dict[str, int] = {}
    for document in client.list(state="waiting", limit=WAITING_SEEN):
        counts[document.reason] = counts.get(document.reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda entry: -entry[1]))


# -- lines ------------------------------------------------------------------------------------
def line_of(view: View) -> str:
    """One look on one line, for a pipe."""
    if "ledger" not in view:
        return f"{view['at']} {verdict(view)}"
    ledger = view["ledger"]
    parts = [view["at"], verdict(view)]
    parts += [f"{name}={ledger[name]}" for name in _SHOWN]
    parts += [f"pace={view['pace_per_s']}/s"] if view["pace_per_s"] is not None else []
    parts += [f"{q['name']}={q['count']}" for q in view["queues"] if q["count"]]
    parts.append(f"workers={_live_count(view['workers'])}")
    parts += [f"{reason}={n}" for reason, n in view["waiting"].items()]
    parts += [f"incident={i['cause']}" for i in view["incidents"]]
    return " ".join(parts)


_SHOWN = ("running", "queued", "waiting", "dead", "searchable", "missing")


def verdict(view: View) -> str:
    """The whole look in a few words."""
    if "ledger" not in view:
        return t("no-answer", "응답-없음")
    if not view["ready"]:
        return t("not-ready", "준비-안됨") + ":" + ",".join(r["code"] for r in view["reasons"])
    if view["ledger"]["missing"]:
        return t("documents-missing", "문서-누락")
    busy = view["ledger"]["running"] or view["ledger"]["queued"]
    return t("working", "처리-중") if busy else t("idle", "유휴")


def _live_count(workers: Sequence[Mapping[str, Any]]) -> int:
    return sum(bool(w["live"]) and w["kind"] in ("worker", "stock") for w in workers)


def _print(view: View) -> None:
    """One look as facts and tables."""
    from unjam.cli import render

    render.out(f"{view['at']}  {verdict(view)}")
    for line in _troubles(view):
        render.out(line)
    if "ledger" not in view:
        return
    render.facts([(name, str(view["ledger"][name])) for name in _SHOWN])
    for head, rows, numbers in _tables(view):
        if rows:
            render.out()
            render.table(head, rows, numbers=numbers)


def _troubles(view: View) -> list[str]:
    from unjam.cli import render

    return [render.plain(f"{r['code']}: {r['detail']} {r['hint']}") for r in view["reasons"]]


def _tables(view: View) -> list[tuple[list[str], list[list[str]], tuple[int, ...]]]:
    """(head, rows, columns of numbers) of lanes, workers, reasons and incidents."""
    from unjam.cli import render
    from unjam.core.reasons import REASONS

    queues = [
        [
            str(q["name"]),
            str(q["count"]),
            str(q["started"]),
            render.span(q["oldest_age_s"]) if q["oldest_age_s"] is not None else "",
            str(q["workers"]),
            t("paused", "정지") if q["paused"] else "",
        ]
        for q in view["queues"]
    ]
    workers = [
        [
            str(w["kind"]),
            f"{w['host']}:{w['pid']}",
            t("live", "정상") if w["live"] else t("gone", "응답 없음"),
            render.span(w["beat_age_s"]),
        ]
        for w in view["workers"]
    ]
    reasons = [
        [str(n), reason, REASONS[reason].what_in(LANG) if reason in REASONS else ""]
        for reason, n in view["waiting"].items()
    ]
    incidents = [
        [str(i["severity"]), str(i["cause"]), str(i.get("subject", "")), str(i["state"])]
        for i in view["incidents"]
    ]
    return [
        (t("incident cause about state", "장애 원인 대상 상태").split(), incidents, ()),
        (
            [
                *t("lane waiting started oldest workers", "레인 대기 처리중 최장대기 워커").split(),
                "",
            ],
            queues,
            (1, 2, 4),
        ),
        (t("number reason meaning", "수 이유 뜻").split(), reasons, (0,)),
        (t("process where state beat", "프로세스 위치 상태 심박").split(), workers, ()),
    ]


# -- the page ---------------------------------------------------------------------------------
def _live(client: Client, memory: Memory, interval: float) -> int:
    from rich.console import Console
    from rich.live import Live

    code = OK
    with Live(console=Console(), screen=True, auto_refresh=False) as page:
        try:
            while True:
                began = time.monotonic()
                view = look(client, memory)
                code = view["exit"]
                page.update(_page(view), refresh=True)
                time.sleep(max(0.05, interval - (time.monotonic() - began)))
        except KeyboardInterrupt:
            return code


def _page(view: View) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    colour = {OK: "green", WARNING: "yellow", CRITICAL: "red", UNKNOWN: "red"}[view["exit"]]
    head = Text.assemble(
        ("unjam ", "bold"), (verdict(view), f"bold {colour}"), (f"   {view['at']}", "dim")
    )
    parts: list[RenderableType] = [head]
    parts += [Text(line, "red") for line in _troubles(view)]
    if "ledger" in view:
        figures = [f"{name} {view['ledger'][name]}" for name in _SHOWN]
        if view["pace_per_s"] is not None:
            figures.append(t(f"{view['pace_per_s']} a second", f"초당 {view['pace_per_s']}건"))
        parts.append(Text("   ".join(figures)))
        for names, rows, numbers in _tables(view):
            if not rows:
                continue
            table = Table(box=None, pad_edge=False, header_style="dim")
            for n, name in enumerate(names):
                table.add_column(name, justify="right" if n in numbers else "left")
            for row in rows:
                table.add_row(*(Text(cell) for cell in row))
            parts += [Text(), table]
    parts += [Text(), Text(t("Ctrl-C ends", "Ctrl-C로 종료"), "dim")]
    return Group(*parts)
