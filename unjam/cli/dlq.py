"""``unjam dlq``: dead letters by cause, one with its evidence, retry and drop by filter."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unjam.cli.common import (
    CRITICAL,
    OK,
    WARNING,
    DocumentArg,
    Json,
    Url,
    admin_client_for,
)
from unjam.cli.lang import t

if TYPE_CHECKING:
    from unjam.client import Client

PATH = "/api/rag/admin/dlq"

Reason = Annotated[
    str,
    typer.Option("--reason", help=t("Only those dead of this cause.", "이 원인의 데드레터만.")),
]
OfUser = Annotated[
    str, typer.Option("--user", help=t("Only this user's.", "이 사용자의 데드레터만."))
]
All = Annotated[bool, typer.Option("--all", help=t("Every dead letter.", "모든 데드레터."))]
Yes = Annotated[bool, typer.Option("--yes", "-y", help=t("Do not ask.", "확인을 묻지 않습니다."))]
Documents = Annotated[
    list[str] | None,
    typer.Argument(metavar="DOC", help=t("Ids; else a filter.", "문서 id. 없으면 필터.")),
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help=t(
            "Dead letters: parked documents, by cause; retry or drop them.",
            "데드레터: 처리할 수 없어 보관된 문서를 원인별로 보고, 재시도하거나 제거합니다.",
        ),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for name, call, text in (
        ("list", list_letters, t("Dead letters by cause.", "데드레터를 원인별로 봅니다.")),
        ("show", show, t("One, with its evidence.", "데드레터 한 건을 증거와 함께 봅니다.")),
        ("retry", retry, t("Put them back to work, in one step.", "한 번에 다시 처리합니다.")),
        ("drop", drop, t("End them without a retry.", "재시도 없이 끝냅니다.")),
    ):
        group.command(name, help=text)(call)
    app.add_typer(group, name="dlq")


def _filter(reason: str, user: str) -> dict[str, str]:
    return {k: v for k, v in (("reason", reason), ("user_id", user)) if v}


# -- looking ----------------------------------------------------------------------------------
def list_letters(
    reason: Reason = "",
    user: OfUser = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help=t("Most.", "최대."))] = 20,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Causes and numbers; with --reason or --user the letters themselves."""
    from unjam.cli import render

    which = _filter(reason, user)
    with admin_client_for(url) as client:
        body = client.call("GET", PATH, params={**which, "limit": str(min(limit, 200))})
        items: list[dict[str, Any]] = body["items"]
        while body["next_cursor"] and len(items) < limit:
            asked = {**which, "limit": "200", "cursor": body["next_cursor"]}
            body = client.call("GET", PATH, params=asked)
            items += body["items"]
    items = items[:limit]
    if as_json:
        found = {"total": body["total"], "groups": body["groups"], "items": items}
        render.out_json(found)
    elif which:
        _print_items(items)
        render.remark(_many(body["total"]))
    else:
        _print_groups(body["groups"])


def _print_groups(groups: Sequence[Mapping[str, Any]]) -> None:
    from unjam.cli import render

    if not groups:
        render.remark(t("no dead letters", "데드레터가 없습니다"))
        return
    head = t("count|reason|what|what to do", "개수|원인|설명|조치").split("|")
    rows = [[str(g["count"]), g["reason"], g["what"], g["hint"]] for g in groups]
    render.table(head, rows, numbers=(0,))
    first = groups[0]["reason"]
    render.remark(
        t("see them: ", "목록: ")
        + f"unjam dlq list --reason {first}"
        + t("; once the cause is gone: ", ", 원인을 없앤 뒤: ")
        + f"unjam dlq retry --reason {first}"
    )


def _print_items(items: Sequence[Mapping[str, Any]]) -> None:
    from unjam.cli import render

    head = t("id reason died user name detail", "id 원인 경과 사용자 이름 상세").split()
    rows = [
        [
            d["id"],
            d["reason"],
            render.ago(datetime.fromisoformat(d["updated_at"])),
            render.plain(d["user_id"]),
            render.cut(render.plain(d["filename"]), 40),
            render.cut(render.plain(d["detail"]), 80),
        ]
        for d in items
    ]
    render.table(head, rows)


def show(document: DocumentArg, url: Url = "", as_json: Json = False) -> None:
    from unjam._wire import checked_id
    from unjam.cli import render

    with admin_client_for(url) as client:
        found = client.call("GET", f"{PATH}/{checked_id(document)}")
    if as_json:
        render.out_json(found)
        return
    render.facts(
        [
            ("id", found["id"]),
            (t("name", "이름"), render.plain(found["filename"])),
            (t("user", "사용자"), render.plain(found["user_id"])),
            (t("reason", "원인"), found["reason"]),
            (t("what", "설명"), found["what"]),
            (t("detail", "상세"), render.plain(found["detail"])),
            (t("hint", "조치"), found["hint"]),
            (t("died", "시각"), found["died_at"]),
            *((name, _value(name, value)) for name, value in found["evidence"].items()),
        ]
    )
    render.out()
    for event in found["history"]:
        cause = event["data"].get("reason") or event["data"].get("why") or ""
        detail = render.cut(render.plain(str(event["data"].get("detail", ""))), 100)
        render.out("\t".join(p for p in (event["at"], event["kind"], cause, detail) if p))


def _value(name: str, value: object) -> str:
    from unjam.cli import render

    if value is None or value == "":
        return ""
    if name.endswith("_bytes") and isinstance(value, int):
        return render.size(value)
    return render.plain(str(value)).strip()


# -- acting -----------------------------------------------------------------------------------
def retry(
    documents: Documents = None,
    reason: Reason = "",
    user: OfUser = "",
    every: All = False,
    yes: Yes = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Exit 1 when none of them, or not all that were named, were dead."""
    _act("retry", documents or [], _filter(reason, user), every, yes, url, as_json)


def drop(
    documents: Documents = None,
    reason: Reason = "",
    user: OfUser = "",
    every: All = False,
    yes: Yes = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """They become cancelled; `unjam retry` brings one back, `unjam delete` removes its bytes."""
    _act("drop", documents or [], _filter(reason, user), every, yes, url, as_json)


def _act(
    verb: Literal["retry", "drop"],
    ids: list[str],
    which: dict[str, str],
    every: bool,
    yes: bool,
    url: str,
    as_json: bool,
) -> None:
    from unjam.cli import render

    _check(ids, which, every)
    with admin_client_for(url) as client:
        total = len(set(ids)) if ids else int(client.call("GET", PATH, params=which)["total"])
        if total and not yes and sys.stdin.isatty():
            _confirm(verb, total)
        done = _by_ids(client, verb, ids) if ids else _by_filter(client, verb, which, total)
    if as_json:
        render.out_json({verb: len(done), "ids": done})
    else:
        for document_id in done:
            render.out(document_id)
        word = t("retried", "재시도") if verb == "retry" else t("dropped", "제거")
        render.remark(f"{word}: {_many(len(done))}")
    raise typer.Exit(OK if done and len(done) == total else WARNING)


def _check(ids: list[str], which: dict[str, str], every: bool) -> None:
    from unjam.core.errors import UsageError

    if ids and (which or every):
        raise UsageError(
            t("name either documents or a filter", "문서 id와 필터 중 하나만 지정하세요")
        )
    if not (ids or which or every):
        raise UsageError(
            t("which ones?", "어떤 데드레터인가요?"),
            hint=t(
                "Give ids, --reason, --user or --all.",
                "id, --reason, --user, --all 중 하나를 지정하세요.",
            ),
        )


def _confirm(verb: str, count: int) -> None:
    question = (
        t(f"Retry {_many(count)}?", f"데드레터 {count}개를 다시 처리할까요?")
        if verb == "retry"
        else t(f"Drop {_many(count)}?", f"데드레터 {count}개를 제거할까요?")
    )
    if not typer.confirm(question, err=True):
        raise typer.Exit(CRITICAL)


def _many(count: int) -> str:
    return t(f"{count} dead letter{'s' * (count != 1)}", f"데드레터 {count}개")


def _by_ids(client: Client, verb: str, ids: list[str]) -> list[str]:
    done: list[str] = []
    every = list(dict.fromkeys(ids))
    for start in range(0, len(every), 1000):
        body = client.call("POST", f"{PATH}/{verb}", body={"ids": every[start : start + 1000]})
        done += body["ids"]
    return done


def _by_filter(client: Client, verb: str, which: dict[str, str], total: int) -> list[str]:
    """Exactly the number that was seen (and confirmed); a step takes what the server allows."""
    from unjam.cli import render
    from unjam.core.errors import Conflict

    done: list[str] = []
    while len(done) < total:
        body = {"filter": which, "expected": total - len(done)}
        try:
            answer = client.call("POST", f"{PATH}/{verb}", body=body)
        except Conflict as error:
            if not done:
                raise
            render.remark(render.plain(str(error)))
            break
        done += answer["ids"]
        if not answer["ids"]:
            break
    return done
