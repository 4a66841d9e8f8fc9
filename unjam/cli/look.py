"""The commands that look: list, show, why, search, status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from unjam.cli.common import (
    CRITICAL,
    OK,
    WARNING,
    DocumentArg,
    Json,
    Url,
    User,
    client_for,
    parse_object,
)
from unjam.cli.lang import LANG, t

if TYPE_CHECKING:
    from unjam.client import Document

_STATES = (
    "received queued parsing chunking embedding storing searchable waiting dead cancelled deleted"
)


def register(app: typer.Typer) -> None:
    for name, call, help_text in (
        ("list", list_documents, t("List documents, newest first.", "문서를 최신순으로 봅니다.")),
        ("show", show, t("Show one document.", "문서 하나를 봅니다.")),
        ("search", search, t("Search the documents.", "문서를 검색합니다.")),
        ("status", status, t("How the system is, in numbers.", "시스템 상태를 숫자로 봅니다.")),
        ("why", why, t("Why a document is not searchable.", "문서가 왜 검색되지 않는지 봅니다.")),
    ):
        app.command(name, help=help_text)(call)


def list_documents(
    state: Annotated[str, typer.Option("--state", help=_STATES)] = "",
    user: User = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help=t("0 = all", "0 = 전체"))] = 20,
    url: Url = "",
    as_json: Json = False,
) -> None:
    from unjam.cli import render

    with client_for(url) as client:
        found = list(client.list(state=state, user_id=user, limit=limit))
    if as_json:
        render.out_json([render.as_json(d) for d in found])
        return
    head = t("id state chunks size added name", "id 상태 청크 크기 추가 이름").split()
    rows = [
        [
            d.id,
            render.state_text(d.state),
            str(d.chunks),
            render.size(d.size_bytes),
            render.ago(d.created_at),
            render.cut(render.plain(d.filename), 60),
        ]
        for d in found
    ]
    render.table(head, rows, numbers=(2, 3))


def show(document: DocumentArg, url: Url = "", as_json: Json = False) -> None:
    from unjam.cli import render

    with client_for(url) as client:
        found = client.get(document)
    if as_json:
        render.out_json(render.as_json(found))
        return
    done = found.progress
    a = found.attempts
    render.facts(
        [
            ("id", found.id),
            (t("name", "이름"), render.plain(found.filename)),
            (t("other names", "다른 이름"), ", ".join(render.plain(n) for n in found.names)),
            (t("state", "상태"), render.state_text(found.state)),
            (t("reason", "사유"), found.reason),
            (t("detail", "상세"), render.plain(found.detail)),
            (t("hint", "조치"), found.hint),
            (t("progress", "진행"), f"{done.done}/{done.total}" if done.total else ""),
            (t("chunks", "청크"), str(found.chunks)),
            (t("type", "형식"), found.media_type),
            (t("size", "크기"), render.size(found.size_bytes)),
            (t("user", "사용자"), render.plain(found.user_id)),
            (t("metadata", "메타데이터"), str(dict(found.metadata)) if found.metadata else ""),
            (t("generation", "세대"), str(found.generation)),
            (
                t("attempts", "시도"),
                t(
                    f"{a.errors} errors, {a.deaths} deaths, {a.throttles} throttles",
                    f"오류 {a.errors}, 워커 종료 {a.deaths}, 속도 제한 {a.throttles}",
                ),
            ),
            (t("next step in", "다음 단계까지"), render.until(found.next_step_at)),
            (t("ready in about", "예상 완료까지"), _about(found)),
            (t("added", "추가"), str(found.created_at or "")),
            (t("searchable", "검색 가능"), str(found.searchable_at or "")),
        ]
    )


def why(document: DocumentArg, url: Url = "", as_json: Json = False) -> None:
    """Exit 0 when it is searchable or moves by itself, 1 when it waits, 2 when it is parked."""
    from unjam.cli import render
    from unjam.core.reasons import REASONS

    with client_for(url) as client:
        found = client.get(document)
    reason = REASONS.get(found.reason)
    what = reason.what_in(LANG) if reason else _moving(found)
    code = {"waiting": WARNING, "dead": CRITICAL}.get(found.state.value, OK)
    if as_json:
        render.out_json(
            {
                "id": found.id,
                "state": found.state,
                "reason": found.reason,
                "what": what,
                "detail": found.detail,
                "hint": found.hint,
                "next_step_at": found.next_step_at,
                "eta_s": found.eta_s,
            }
        )
        raise typer.Exit(code)
    render.facts(
        [
            (t("state", "상태"), render.state_text(found.state)),
            (t("reason", "사유"), found.reason),
            (t("what", "설명"), what),
            (t("detail", "상세"), render.plain(found.detail)),
            (t("next step in", "다음 단계까지"), render.until(found.next_step_at)),
            (t("ready in about", "예상 완료까지"), _about(found)),
            (t("hint", "조치"), found.hint or (reason.hint_in(LANG) if reason else "")),
        ]
    )
    raise typer.Exit(code)


def _about(document: Document) -> str:
    """How long until it is searchable, as people say it; "" when nobody knows."""
    if document.eta_s is None:
        return ""
    seconds = max(1, round(document.eta_s))
    if seconds < 90:
        return t(f"{seconds} s", f"{seconds}초")
    minutes = round(seconds / 60)
    if minutes < 90:
        return t(f"{minutes} min", f"{minutes}분")
    return t(f"{round(minutes / 60)} h", f"{round(minutes / 60)}시간")


def _moving(document: Document) -> str:
    if document.state == "searchable":
        return t("It is searchable.", "검색할 수 있습니다.")
    if document.state == "deleted":
        return t("It was deleted.", "삭제되었습니다.")
    done = document.progress
    if done.total:
        return t(
            f"It is being worked on: {done.done} of {done.total} chunks stored.",
            f"처리 중입니다: 청크 {done.total}개 중 {done.done}개 저장됨.",
        )
    return t("It is being worked on.", "처리 중입니다.")


def search(
    query: Annotated[list[str], typer.Argument(help=t("The question.", "질문."))],
    k: Annotated[int, typer.Option("-k", min=1, max=100, help=t("Hits.", "결과 수."))] = 5,
    user: User = "",
    filter_text: Annotated[
        str, typer.Option("--filter", help=t("A JSON object.", "JSON 객체."))
    ] = "",
    full: Annotated[
        bool, typer.Option("--full", help=t("Print whole chunks.", "청크 전체를 출력합니다."))
    ] = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Exit 1 when nothing is found."""
    from unjam.cli import render

    where = parse_object(filter_text, "--filter") or {}
    if user:
        where["user_id"] = user
    with client_for(url) as client:
        hits = client.search(" ".join(query), k=k, filter=where or None)
    if as_json:
        render.out_json([render.as_json(h) for h in hits])
    for n, hit in enumerate(hits if not as_json else [], 1):
        place = render.plain(hit.filename)
        if hit.page:
            place += t(f", p. {hit.page}", f", {hit.page}쪽")
        if hit.section:
            place += f" › {render.plain(hit.section)}"
        head = f"{n}. {hit.score:.3f}  {place}"
        render.out(render.paint(head, "bold") + render.paint(f"  {hit.document_id}", "grey"))
        text = " ".join(render.plain(hit.text).split())
        render.out("   " + (text if full else render.cut(text, 240)))
    if not hits:
        render.remark(t("nothing found", "결과가 없습니다"))
        raise typer.Exit(WARNING)


def status(url: Url = "", as_json: Json = False) -> None:
    """Exit 0 all is well, 1 documents wait or are dead, 2 not ready or documents missing."""
    from unjam.cli import render

    with client_for(url) as client:
        ready = client.readiness()
        ledger = client.ledger()
    code = WARNING if ledger["dead"] or ledger["waiting"] else OK
    if not ready["ready"] or ledger["missing"]:
        code = CRITICAL
    if as_json:
        render.out_json({"url": client.url, "readiness": ready, "ledger": ledger, "exit": code})
        raise typer.Exit(code)
    verdict = (
        render.paint(t("ready", "준비됨"), "green")
        if ready["ready"]
        else render.paint(t("not ready", "준비 안 됨"), "red")
    )
    render.facts(
        [
            (t("server", "서버"), client.url),
            (t("state", "상태"), verdict),
            (t("workers", "워커"), str(ready["workers"])),
            *((name, str(count)) for name, count in ledger.items()),
        ]
    )
    for line in render.reasons_of(ready):
        render.remark(line)
    raise typer.Exit(code)
