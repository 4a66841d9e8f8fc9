"""The commands that change documents: add, cancel, retry, delete."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from unjam.cli.common import (
    CRITICAL,
    OK,
    WARNING,
    Json,
    Url,
    User,
    client_for,
    hint_for,
    parse_object,
)
from unjam.cli.lang import t

if TYPE_CHECKING:
    from unjam.cli.adding import Added, Sender
    from unjam.client import Client, Document

Force = Annotated[bool, typer.Option("--yes", "-y", help=t("Do not ask.", "묻지 않습니다."))]


def register(app: typer.Typer) -> None:
    for name, call, help_text in (
        ("add", add, t("Add files, folders or stdin (-).", "파일·폴더·stdin(-)을 추가합니다.")),
        ("cancel", cancel, t("Stop working on documents.", "문서 처리를 취소합니다.")),
        ("retry", retry, t("Put documents back to work.", "문서를 다시 처리합니다.")),
        ("delete", delete, t("Delete documents.", "문서를 삭제합니다.")),
    ):
        app.command(name, help=help_text)(call)


# -- add --------------------------------------------------------------------------------------
def add(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|FOLDER|PATTERN|-",
            help=t(
                "Folders are read to the bottom, hidden files left out; - is stdin.",
                "폴더는 하위까지 읽고 숨김 파일은 제외합니다. -는 stdin입니다.",
            ),
        ),
    ],
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help=t(
                "Wait until all are searchable; exit 1 if any is not.",
                "모두 검색될 때까지 기다립니다. 실패가 있으면 종료 코드 1.",
            ),
        ),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help=t(
                "Keep running; add what appears or changes.", "계속 실행하며 변경분을 추가합니다."
            ),
        ),
    ] = False,
    user: User = "",
    metadata: Annotated[
        str, typer.Option("--metadata", help=t("A JSON object.", "JSON 객체."))
    ] = "",
    name: Annotated[
        str, typer.Option("--name", help=t("File name for stdin.", "stdin의 파일 이름."))
    ] = "stdin",
    connections: Annotated[
        int,
        typer.Option(
            "--connections", min=1, max=64, help=t("Uploads at a time.", "동시 업로드 수.")
        ),
    ] = 8,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", min=0, help=t("Seconds for --wait; 0 = none.", "--wait 제한 초. 0 = 없음.")
        ),
    ] = 0,
    url: Url = "",
    as_json: Json = False,
) -> None:
    from unjam.cli.adding import Sender, find, send_stdin

    meta = parse_object(metadata, "--metadata")
    found = find([s for s in sources if s != "-"])
    with client_for(url) as client:
        sender = Sender(client, user, meta, connections)
        run = _Adding(client, total=len(found.files) + ("-" in sources), wait=wait, as_json=as_json)
        for failed in found.errors:
            run.take(failed)
        with run.bar():
            if "-" in sources:
                run.take(send_stdin(sender, name))
            if found.files:
                sender.send(found.files, run.take)
        if wait:
            run.wait(timeout or float("inf"))
        run.summary()
        if watch:
            _watch(sender, found.folders, run)
    raise typer.Exit(run.code)


def _watch(sender: Sender, folders: list[str], run: _Adding) -> None:
    from unjam.cli.adding import watch
    from unjam.cli.render import remark
    from unjam.core.errors import UsageError

    if not folders:
        raise UsageError(
            t("--watch needs a folder", "--watch에는 폴더가 필요합니다"),
            hint="unjam add ~/Documents --watch",
        )
    remark(t("Watching; Ctrl-C ends it.", "감시 중입니다. Ctrl-C로 끝냅니다."))
    try:
        watch(sender, folders, run.known, run.take)
    except KeyboardInterrupt:
        return


def _no_bar(done: int, note: str) -> None:
    pass


class _Adding:
    """Prints what becomes of each file and remembers the worst."""

    def __init__(self, client: Client, *, total: int, wait: bool, as_json: bool) -> None:
        self._client = client
        self._total = total
        self._waits = wait
        self._json = as_json
        self._done = 0
        self._counts = {"new": 0, "known": 0, "failed": 0}
        self._paths: dict[str, str] = {}
        self._advance: Callable[[int, str], None] = _no_bar
        self.known: dict[str, str] = {}
        self.code = OK

    @contextmanager
    def bar(self) -> Generator[None]:
        from unjam.cli.render import progress

        with progress(t("adding", "추가"), self._total) as self._advance:
            yield
        self._advance = _no_bar

    def take(self, added: Added) -> None:
        self._done += 1
        self._advance(self._done, added.path)
        if added.document is None:
            self._fail(added)
            return
        self._counts["known" if added.document.duplicate_of else "new"] += 1
        self._paths.setdefault(added.document.id, added.path)
        self.known[os.path.realpath(added.path)] = added.document.id
        if not self._waits:
            self._print(added.document, added.path)

    def _fail(self, added: Added) -> None:
        from unjam.cli.render import out_json_line, plain, remark

        self.code = WARNING
        self._counts["failed"] += 1
        error = added.error
        if self._json and error is not None:
            body = {"path": added.path, "error": error.code, "detail": error.detail}
            out_json_line({**body, "hint": error.hint})
        remark(f"{plain(str(error))} {hint_for(error) if error else ''}".rstrip())

    def _print(self, document: Document, path: str) -> None:
        from unjam.cli.render import as_json, out, out_json_line, plain, state_text

        if self._json:
            out_json_line({"path": path, **as_json(document)})
            return
        cells = [document.id, state_text(document.state), plain(path)]
        if document.duplicate_of:
            cells.append(t("(already there)", "(이미 있음)"))
        if document.reason and document.ended:
            cells.append(f"{document.reason}: {document.hint}")
        out("\t".join(cells))

    def wait(self, timeout_s: float) -> None:
        from unjam.cli.adding import wait_all
        from unjam.cli.render import progress, remark

        with progress(t("searchable", "검색 가능"), len(self._paths)) as advance:

            def ended(document: Document, count: int) -> None:
                advance(count, document.filename)
                if document.state != "searchable":
                    self.code = WARNING
                self._print(document, self._paths[document.id])

            late = wait_all(self._client, self._paths, ended, timeout_s=timeout_s)
        if late:
            self.code = WARNING
            remark(
                t(
                    f"{len(late)} not at their end yet; unjam why ",
                    f"{len(late)}개 미완료; unjam why ",
                )
                + late[0]
            )

    def summary(self) -> None:
        from unjam.cli.render import remark

        n = self._counts
        text = t(
            f"{n['new']} added, {n['known']} already there, {n['failed']} failed",
            f"추가 {n['new']}, 이미 있음 {n['known']}, 실패 {n['failed']}",
        )
        remark(text)


# -- changing ---------------------------------------------------------------------------------
Documents = Annotated[list[str], typer.Argument(metavar="DOC...", help=t("Ids.", "문서 id."))]


def cancel(documents: Documents, url: Url = "", as_json: Json = False) -> None:
    def one(client: Client, document_id: str) -> Document:
        return client.cancel(document_id)

    _each(documents, url, as_json, one)


def retry(documents: Documents, url: Url = "", as_json: Json = False) -> None:
    def one(client: Client, document_id: str) -> Document:
        return client.retry(document_id)

    _each(documents, url, as_json, one)


def delete(documents: Documents, url: Url = "", as_json: Json = False, yes: Force = False) -> None:
    if not yes and sys.stdin.isatty():
        count = len(documents)
        typer.confirm(
            t(f"Delete {count} document(s)?", f"문서 {count}개를 삭제할까요?"), abort=True, err=True
        )

    def one(client: Client, document_id: str) -> Document:
        client.delete(document_id)
        return client.get(document_id)

    _each(documents, url, as_json, one)


def _each(
    documents: list[str], url: str, as_json: bool, call: Callable[[Client, str], Document]
) -> None:
    """Do *call* to each; exit 1 when it failed for some, 2 when for all."""
    from unjam.cli import render
    from unjam.core.errors import NotNow, UnjamError

    failed = 0
    with client_for(url) as client:
        for document_id in documents:
            try:
                done = call(client, document_id)
            except NotNow:
                raise
            except UnjamError as error:
                failed += 1
                render.remark(f"{render.plain(str(error))} {hint_for(error)}".rstrip())
                continue
            if as_json:
                render.out_json_line(render.as_json(done))
            else:
                render.out(f"{done.id}\t{render.state_text(done.state)}")
    if failed:
        raise typer.Exit(CRITICAL if failed == len(documents) else WARNING)
