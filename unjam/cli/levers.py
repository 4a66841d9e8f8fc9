"""``unjam queue`` and ``unjam set``: order, lanes, pauses, and live settings."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unjam.cli.common import OK, WARNING, Json, Url, admin_client_for
from unjam.cli.lang import t

if TYPE_CHECKING:
    from unjam.client import Client

ADMIN = "/api/rag/admin"
STRATEGIES = ("oldest_first", "newest_first", "smallest_first", "largest_first", "fair")

_UNITS_KO = {
    "RAG_EMBEDDING_BATCH_SIZE": "요청당 텍스트 수",
    "RAG_EMBEDDING_CONCURRENCY": "프로세스당 동시 요청 수",
    "RAG_EMBEDDING_RATE_LIMIT": "키 그룹별 분당 요청 수",
    "RAG_EMBEDDING_TOKENS_PER_MINUTE": "분당 토큰 수(0 = 제한 없음)",
    "RAG_EMBEDDING_DELAY_MS": "프로세스의 요청 간격(ms)",
    "RAG_MAX_CHUNK_SIZE": "토큰(새 세대부터)",
    "RAG_CHUNK_OVERLAP": "토큰(새 세대부터)",
    "RAG_MAX_CONCURRENT_JOBS": "시스템 전체의 동시 처리 문서 수",
}

OneLane = Annotated[
    str,
    typer.Argument(metavar="QUEUE", help=t("Only this queue; else all.", "이 큐만. 없으면 전체.")),
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help=t(
            "Queues: what waits, in which order, and whether it may be worked on.",
            "큐: 무엇이 대기하는지, 어떤 순서인지, 처리해도 되는지.",
        ),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for name, call, text in (
        ("list", list_queues, t("Queues and what waits in them.", "큐와 대기 문서를 봅니다.")),
        ("reorder", reorder, t("Bring documents to the front.", "문서를 맨 앞으로 옮깁니다.")),
        (
            "separate",
            separate,
            t("Give large documents a queue of their own.", "큰 문서를 전용 큐로 분리합니다."),
        ),
        (
            "prioritize",
            prioritize,
            t("Send documents to queues by rules.", "규칙에 따라 문서를 큐로 보냅니다."),
        ),
        ("pause", pause, t("Take nothing from a queue, or from any.", "큐 처리를 멈춥니다.")),
        ("resume", resume, t("Let paused queues go on.", "멈춘 큐를 재개합니다.")),
        (
            "requeue",
            requeue,
            t("Ring again for documents that wait.", "대기 문서를 큐에 다시 알립니다."),
        ),
    ):
        group.command(name, help=text)(call)
    app.add_typer(group, name="queue")
    app.command("set", help=t("Show or change live settings.", "실시간 설정을 보거나 바꿉니다."))(
        set_setting
    )


def _call(client: Client, method: str, path: str, body: object = None) -> dict[str, Any]:
    return client.call(method, f"{ADMIN}/{path}", body=body, headers={"X-Operator": _me()})


def _me() -> str:
    """Who this is, for the audit: a label."""
    try:
        return getpass.getuser().encode("ascii", "ignore").decode()[:64]
    except (OSError, KeyError):  # a user without a name, as in a container
        return ""


# -- looking ----------------------------------------------------------------------------------
def list_queues(url: Url = "", as_json: Json = False) -> None:
    """Exit 1 when documents wait in a queue that is paused or that nobody serves."""
    from unjam.cli import render

    with admin_client_for(url) as client:
        queues: list[dict[str, Any]] = _call(client, "GET", "queues")["queues"]
    stuck = [q for q in queues if q["name"] != "rag_dlq" and _stuck(q)]
    if as_json:
        render.out_json({"queues": queues})
    else:
        head = t("queue|waiting|oldest|in work|workers|", "큐|대기|최장 대기|처리 중|워커|").split(
            "|"
        )
        rows = [
            [
                q["name"],
                str(q["count"]),
                "" if q["oldest_age_s"] is None else render.span(q["oldest_age_s"]),
                str(q["started"]),
                str(q["workers"]),
                _mark(q),
            ]
            for q in queues
        ]
        render.table(head, rows, numbers=(1, 3, 4))
    raise typer.Exit(WARNING if stuck else OK)


def _stuck(queue: Mapping[str, Any]) -> bool:
    return bool(queue["count"]) and (queue["paused"] or not queue["workers"])


def _mark(queue: Mapping[str, Any]) -> str:
    if queue["paused"]:
        return t("paused", "일시 중지")
    if queue["name"] != "rag_dlq" and _stuck(queue):
        return t("no worker", "워커 없음")
    return ""


# -- order ------------------------------------------------------------------------------------
def reorder(
    strategy: Annotated[
        str, typer.Argument(metavar="STRATEGY", help=" | ".join(STRATEGIES))
    ] = "oldest_first",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, help=t("How many.", "문서 수."))
    ] = 100,
    queue: Annotated[str, typer.Option("--queue", help=t("Which queue.", "대상 큐."))] = (
        "rag_processing"
    ),
    url: Url = "",
    as_json: Json = False,
) -> None:
    from unjam.core.errors import UsageError

    if strategy not in STRATEGIES:
        raise UsageError(
            t(f"there is no strategy {strategy!r}", f"{strategy!r} 순서는 없습니다"),
            hint=t("One of: ", "사용할 수 있는 값: ") + ", ".join(STRATEGIES),
        )
    body = {"strategy": strategy, "limit": limit, "queue": queue}
    with admin_client_for(url) as client:
        _print_moved(_call(client, "POST", "reorder-queue", body), as_json)


def separate(
    over_mb: Annotated[
        float,
        typer.Option("--over-mb", min=0, help=t("Larger than so many MB.", "이 크기(MB) 초과.")),
    ] = 10.0,
    to: Annotated[str, typer.Option("--to", help=t("Into which queue.", "옮길 큐."))] = (
        "rag_large_docs"
    ),
    url: Url = "",
    as_json: Json = False,
) -> None:
    body = {"size_threshold_mb": over_mb, "target_queue": to}
    with admin_client_for(url) as client:
        _print_moved(_call(client, "POST", "separate-large-jobs", body), as_json)


def _print_moved(answer: Mapping[str, Any], as_json: bool) -> None:
    from unjam.cli import render

    if as_json:
        render.out_json(answer)
        return
    for document_id in answer["ids"]:
        render.out(document_id)
    render.remark(t(f"moved: {answer['moved']}", f"이동: {answer['moved']}건"))


def prioritize(
    rules: Annotated[
        str,
        typer.Argument(
            metavar="RULES",
            help=t(
                "A JSON list of rules, or @FILE that holds one (- reads standard input).",
                "규칙의 JSON 목록, 또는 그것이 담긴 @파일(-는 표준 입력).",
            ),
        ),
    ],
    url: Url = "",
    as_json: Json = False,
) -> None:
    from unjam.cli import render

    with admin_client_for(url) as client:
        counts = _call(client, "POST", "prioritize-queue", {"rules": _rules(rules)})
    if as_json:
        render.out_json(counts)
        return
    words = {
        "high": t("high", "높음"),
        "normal": t("normal", "보통"),
        "low": t("low", "낮음"),
        "unmatched": t("no rule", "해당 규칙 없음"),
    }
    render.facts([(word, str(counts[name])) for name, word in words.items()])


def _rules(text: str) -> list[Any]:
    import json
    import sys
    from pathlib import Path

    from unjam.core.errors import UsageError

    hint = """For example '[{"file_size_mb": {"$lt": 5}, "priority": "high"}]'."""
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text("utf-8")
        value: Any = json.loads(text)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}", code="unreadable_file") from None
    except ValueError as error:
        wrong = t(f"the rules are not JSON: {error}", f"규칙이 JSON이 아닙니다: {error}")
        raise UsageError(wrong, hint=hint) from None
    if isinstance(value, dict) and "rules" in value:
        value = value["rules"]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, list):
        raise UsageError(t("the rules are no list", "규칙이 목록이 아닙니다"), hint=hint)
    return value  # pyright: ignore[reportUnknownVariableType]


# -- pauses -----------------------------------------------------------------------------------
def pause(queue: OneLane = "", url: Url = "", as_json: Json = False) -> None:
    """Uploads are taken meanwhile, and what is being worked on comes to its end."""
    _pauses("pause", queue, url, as_json)


def resume(queue: OneLane = "", url: Url = "", as_json: Json = False) -> None:
    """Without a queue every pause ends, that of `rq suspend` too."""
    _pauses("resume", queue, url, as_json)


def _pauses(verb: str, queue: str, url: str, as_json: bool) -> None:
    from unjam.cli import render

    with admin_client_for(url) as client:
        answer = _call(client, "POST", verb, {"queue": queue} if queue else {})
    if as_json:
        render.out_json(answer)
        return
    if answer["paused"]:
        render.remark(
            t(
                "Paused; documents wait there until `unjam queue resume`:",
                "일시 정지됨. `unjam queue resume`까지 문서가 기다립니다:",
            )
        )
        for name in answer["paused"]:
            render.out(t("all queues", "전체 큐") if name == "*" else name)
    else:
        render.remark(t("no queue is paused", "일시 정지된 큐가 없습니다"))


def requeue(
    documents: Annotated[
        list[str] | None,
        typer.Argument(metavar="DOC", help=t("Ids; else --queue.", "문서 id. 없으면 --queue.")),
    ] = None,
    queue: Annotated[
        str, typer.Option("--queue", help=t("All that wait in it.", "이 큐의 대기 문서 전체."))
    ] = "",
    url: Url = "",
    as_json: Json = False,
) -> None:
    """The reconciler does this by itself; exit 1 when some of the ids do not wait."""
    from unjam.cli import render
    from unjam.core.errors import UsageError

    if bool(documents) == bool(queue):
        raise UsageError(
            t("name either documents or --queue", "문서 id와 --queue 중 하나만 지정하세요")
        )
    body: dict[str, Any] = {"ids": documents} if documents else {"queue": queue}
    with admin_client_for(url) as client:
        answer = _call(client, "POST", "requeue", body)
    if as_json:
        render.out_json(answer)
    else:
        for document_id in answer["ids"]:
            render.out(document_id)
        numbers = answer["requeued"], answer["in_line"], len(answer["skipped"])
        render.remark(
            t(
                "requeued: {}, stood in line anyway: {}, do not wait: {}",
                "다시 넣음: {}, 이미 대기 중: {}, 대기 문서 아님: {}",
            ).format(*numbers)
        )
    raise typer.Exit(WARNING if answer["skipped"] else OK)


# -- settings ---------------------------------------------------------------------------------
def set_setting(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help=t("Or NAME=VALUE; nothing: list.", "이름=값도 됩니다. 없으면 목록."),
        ),
    ] = "",
    value: Annotated[
        str,
        typer.Argument(
            metavar="VALUE",
            help=t("A number, or `default`.", "숫자, 또는 시작 값으로 되돌리는 `default`."),
        ),
    ] = "",
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Every worker follows within a batch, without a restart."""
    from unjam.cli import render

    name, equals, given = name.partition("=")
    value = given if equals else value
    name = name.upper()
    with admin_client_for(url) as client:
        if value:
            found = _call(client, "PATCH", "settings", {name: _number(name, value)})
        else:
            found = _call(client, "GET", "settings")
    items: list[dict[str, Any]] = found["items"]
    if name:
        items = _only(items, name)
    if as_json:
        render.out_json({"items": items})
        return
    head = t("setting|value|start|bounds|unit", "설정|값|시작 값|범위|단위").split("|")
    rows = [
        [
            s["name"],
            render.paint(str(s["value"]), "yellow") if s["changed"] else str(s["value"]),
            str(s["start"]),
            f"{s['low']}–{s['high']}",
            t(s["unit"], str(_UNITS_KO.get(s["name"], s["unit"]))),
        ]
        for s in items
    ]
    render.table(head, rows, numbers=(1, 2))


def _only(items: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    from unjam.core.errors import UsageError

    some = [s for s in items if s["name"] == name]
    if not some:
        raise UsageError(
            t(f"{name} cannot be changed live", f"{name}은(는) 실시간으로 바꿀 수 없습니다"),
            hint=t("Live settings: ", "실시간 설정: ") + ", ".join(s["name"] for s in items),
        )
    return some


def _number(name: str, text: str) -> int | None:
    from unjam.core.errors import UsageError

    if text == "default":
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            t(f"{name}: {text!r} is no whole number", f"{name}: {text!r}은(는) 정수가 아닙니다")
        ) from None
