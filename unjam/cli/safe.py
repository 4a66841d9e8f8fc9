"""The commands that keep and bring back: backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unjam.cli.common import OK, WARNING, Json
from unjam.cli.lang import t
from unjam.cli.operate import DataDir, load_settings

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        help=t("The backup's folder: new for backup.", "백업 폴더. 백업할 때는 새 폴더."),
    ),
]


def register(app: typer.Typer) -> None:
    app.command(
        "backup",
        help=t(
            "Back up ledger, originals and embedding cache; the system may run.",
            "원장, 원본, 임베딩 캐시를 백업합니다. 실행 중에도 됩니다.",
        ),
    )(backup)
    app.command(
        "restore",
        help=t(
            "Restore a backup into an empty data folder; the index is rebuilt by `unjam up`.",
            "빈 데이터 폴더에 백업을 복원합니다. 색인은 `unjam up`이 다시 만듭니다.",
        ),
    )(restore)


def backup(
    folder: Folder,
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help=t("Without the embedding cache.", "임베딩 캐시 제외.")),
    ] = False,
    with_originals: Annotated[
        bool,
        typer.Option(
            "--with-originals",
            help=t("Originals that are in a bucket, too.", "버킷에 있는 원본도 포함."),
        ),
    ] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Exit 0 when it is complete, 1 when originals are missing from the store, 2 when it failed."""
    import asyncio

    from unjam.app.backup import backup as run
    from unjam.cli import render

    settings = load_settings(data_dir)
    target = folder.expanduser().absolute()
    report = asyncio.run(
        run(
            settings,
            target,
            with_cache=not no_cache,
            with_originals=with_originals,
            say=render.remark,
        )
    )
    if as_json:
        render.out_json(render.as_json(report))
    else:
        render.facts(
            [
                (t("backup", "백업"), report.folder),
                (t("ledger", "원장"), report.ledger_id),
                (t("originals", "원본"), f"{report.originals}, {render.size(report.size_bytes)}"),
                (t("embedding cache", "임베딩 캐시"), _yes(report.cache)),
            ]
        )
    if report.originals_in:
        where = report.originals_in
        render.remark(
            t(
                f"The originals stay in {where} and are not in this backup.",
                f"원본은 {where}에 그대로 있으며 이 백업에는 없습니다.",
            )
        )
    _end(report.missing)


def restore(folder: Folder, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Exit 0 when all is back, 1 when the backup lacks originals, 2 when nothing was restored."""
    import asyncio

    from unjam.app.backup import restore as run
    from unjam.cli import render

    settings = load_settings(data_dir)
    report = asyncio.run(run(settings, folder.expanduser().absolute(), say=render.remark))
    if as_json:
        render.out_json(render.as_json(report))
    else:
        render.facts(
            [
                (t("data", "데이터"), str(settings.data_dir)),
                (t("ledger", "원장"), report.ledger_id),
                (t("originals", "원본"), str(report.originals)),
                (t("embedding cache", "임베딩 캐시"), _yes(report.cache)),
                (t("documents to store again", "다시 저장할 문서"), str(report.documents)),
            ]
        )
        render.remark(
            t(
                "Start it with `unjam up`: documents become searchable again one by one.",
                "`unjam up`으로 시작하면 문서가 차례로 다시 검색됩니다.",
            )
        )
    _end(report.missing)


def _yes(value: bool) -> str:
    return t("yes", "예") if value else t("no", "아니요")


def _end(missing: tuple[str, ...]) -> None:
    from unjam.cli import render

    for content_hash in missing[:20]:
        render.remark(t(f"missing original {content_hash}", f"없는 원본 {content_hash}"))
    raise typer.Exit(WARNING if missing else OK)
