"""The command that fills another vector store: migrate-vectors."""

from __future__ import annotations

from typing import Annotated

import typer

from unjam.cli.common import OK, WARNING, Json
from unjam.cli.lang import t
from unjam.cli.operate import DataDir, load_settings

Target = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help=t(
            "The store to fill; else RAG_VECTOR_STORE_URL, else the one in use.",
            "채울 저장소. 없으면 RAG_VECTOR_STORE_URL, 그것도 없으면 사용 중인 저장소.",
        ),
    ),
]
Source = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="URL",
        help=t("The store in use, when the house does not say.", "사용 중인 저장소."),
    ),
]


def register(app: typer.Typer) -> None:
    app.command(
        "migrate-vectors",
        help=t(
            "Fill another vector store from the embedding cache; the system may run.",
            "다른 벡터 저장소를 임베딩 캐시로 채웁니다. 실행 중에도 됩니다.",
        ),
    )(migrate_vectors)


def migrate_vectors(
    url: Target = "", source: Source = "", data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Exit 0 when every searchable document stands there whole, 1 when some do not, 2 when it
    failed; run it again and it goes on."""
    import asyncio

    from unjam.app.migrate_vectors import migrate
    from unjam.cli import render

    settings = load_settings(data_dir)
    report = asyncio.run(migrate(settings, url, source=source, say=render.remark))
    if as_json:
        render.out_json(render.as_json(report))
    else:
        render.facts(
            [
                (t("store", "저장소"), report.store),
                (t("searchable documents", "검색 가능한 문서"), str(report.documents)),
                (t("their chunks", "문서의 청크"), str(report.chunks)),
                (t("written now", "이번에 기록"), str(report.written)),
                (t("documents left", "남은 문서"), str(len(report.left))),
            ]
        )
        if report.left:
            render.remark(
                t(
                    "Those lack chunks in the store in use; running workers store them again. "
                    "Then run this once more.",
                    "사용 중인 저장소에도 청크가 없는 문서입니다. 워커가 다시 저장합니다. 그 뒤에 "
                    "다시 실행하세요.",
                )
            )
    raise typer.Exit(WARNING if report.left else OK)
