"""``unjam bulk``: a back-fill of many files or texts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unjam.cli.common import OK, WARNING, Json, User
from unjam.cli.lang import t
from unjam.cli.operate import DataDir, load_settings

if TYPE_CHECKING:
    from unjam.app.bulk.follow import Progress
    from unjam.app.bulk.run import BulkReport

EVERY_S = 10.0
"""Between lines of progress when nobody watches a terminal."""

Source = Annotated[
    str,
    typer.Argument(
        help=t(
            "A folder, a JSONL or Parquet file of texts, or s3://bucket/prefix.",
            "폴더, 텍스트가 든 JSONL·Parquet 파일, 또는 s3://버킷/접두사.",
        )
    ),
]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help=t("Where the work runs.", "작업을 실행할 곳.")),
]
Format = Annotated[
    Literal["auto", "files", "jsonl", "parquet"],
    typer.Option(
        "--format",
        help=t(
            "What the source holds; auto: each file by its ending.",
            "소스의 형식. auto는 파일마다 확장자로 정합니다.",
        ),
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        min=1,
        max=1024,
        help=t("Workers for this back-fill.", "이 작업에 쓸 워커 수."),
    ),
]
Share = Annotated[
    int,
    typer.Option(
        "--share",
        min=1,
        max=100,
        metavar="PERCENT",
        help=t(
            "Begin nothing while more of RAG_MAX_CONCURRENT_JOBS is in use; the rest stays for "
            "uploads.",
            "RAG_MAX_CONCURRENT_JOBS 중 이 비율보다 많이 쓰이는 동안은 새로 시작하지 않습니다. "
            "나머지는 업로드 몫입니다.",
        ),
    ),
]
Address = Annotated[
    str,
    typer.Option(
        "--address",
        help=t(
            "A running Ray (auto, or host:port); else one is started here.",
            "실행 중인 Ray(auto 또는 호스트:포트). 없으면 여기서 시작합니다.",
        ),
    ),
]
TextField = Annotated[
    str, typer.Option("--text-field", help=t("Field of the text.", "텍스트 필드."))
]
IdField = Annotated[
    str,
    typer.Option(
        "--id-field",
        help=t("Field of the id: the document's name.", "id 필드. 문서 이름이 됩니다."),
    ),
]
UserField = Annotated[
    str, typer.Option("--user-field", help=t("Field of the user.", "사용자 필드."))
]
MetadataField = Annotated[
    str, typer.Option("--metadata-field", help=t("Field of the metadata.", "메타데이터 필드."))
]


def register(app: typer.Typer) -> None:
    app.command(
        "bulk",
        help=t(
            "Take in many files or texts at once; run again, it does what is missing.",
            "많은 파일이나 텍스트를 한꺼번에 넣습니다. 다시 실행하면 빠진 것만 처리합니다.",
        ),
    )(bulk)


def bulk(
    source: Source,
    engine: Engine = "local",
    format_: Format = "auto",
    workers: Workers = 2,
    share: Share = 75,
    address: Address = "",
    user: User = "",
    text_field: TextField = "text",
    id_field: IdField = "id",
    user_field: UserField = "user_id",
    metadata_field: MetadataField = "metadata",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Exit 0 when all of it is searchable, 1 when some is not, 2 when it failed."""
    import asyncio

    from unjam.app.bulk.run import BulkOptions, Telling, bulk
    from unjam.app.bulk.texts import Columns, Reading
    from unjam.cli import render
    from unjam.stores.bulk_source import BulkSource

    settings = load_settings(data_dir)
    columns = Columns(text_field, id_field, user_field, metadata_field)
    options = BulkOptions(
        reading=Reading(BulkSource.at(source), columns, user),
        engine=engine,
        kind=None if format_ == "auto" else format_,
        workers=workers,
        share_percent=share,
        address=address,
    )
    with render.progress(t("bulk", "일괄"), None) as bar:
        telling = Telling(_teller(bar), render.remark)
        report = asyncio.run(bulk(settings, options, telling))
    if as_json:
        render.out_json(_as_json(report))
    else:
        _print(report)
    raise typer.Exit(OK if report.whole and not report.stopped else WARNING)


def _teller(bar: Callable[[int, str], None]) -> Callable[[Progress], None]:
    """Progress goes to the bar, or into a line now and then when nobody watches one."""
    from unjam.cli import render

    last = time.monotonic()

    def tell(p: Progress) -> None:
        nonlocal last
        known = f"{p.known}{'' if p.whole else '+'}"
        left = "" if p.left_s is None else t(", {} left", ", {} 남음").format(render.span(p.left_s))
        bar(p.ended, f"/ {known}, {p.per_s:.0f}/s{left}")
        now = time.monotonic()
        if p.known and not sys.stderr.isatty() and now - last >= EVERY_S:
            last = now
            render.remark(
                t("{} of {}, {}/s{}", "{} / {}, 초당 {}건{}").format(
                    p.ended, known, f"{p.per_s:.0f}", left
                )
            )

    return tell


def _as_json(report: BulkReport) -> dict[str, Any]:
    from unjam.cli import render

    return {**render.as_json(report), "whole": report.whole}


def _print(report: BulkReport) -> None:
    from unjam.cli import render

    pairs = [
        (t("accepted now", "이번에 접수"), str(report.new)),
        (t("searchable before", "이미 검색 가능"), str(report.done_before)),
    ]
    pairs += [(render.state_text(s), str(n)) for s, n in sorted(report.states.items())]
    pairs += [
        (t("not ended", "끝나지 않음"), str(report.open)),
        (t("unfit", "처리할 수 없음"), str(report.unfit_count)),
        (t("took", "걸린 시간"), render.span(report.seconds)),
        (t("documents a second", "초당 문서"), f"{report.per_s:.1f}"),
        (t("missing in the ledger", "원장 기준 누락"), str(report.equation.missing)),
    ]
    render.facts(pairs)
    for one in report.unfit:
        render.remark(f"{one.where}: {one.why}" if one.where else one.why)
    if report.unfit_count > len(report.unfit):
        more = report.unfit_count - len(report.unfit)
        render.remark(t("… and {} more", "… 외 {}건").format(more))
    if report.stopped or report.open:
        render.remark(
            t(
                "Stopped. What was accepted goes on with running workers; run it again for the "
                "rest.",
                "중단했습니다. 접수된 문서는 실행 중인 워커가 이어서 처리합니다. 나머지는 다시 "
                "실행하세요.",
            )
        )
    if report.states.get("dead"):
        render.remark(t("Why some are dead: `unjam dlq`", "처리하지 못한 이유: `unjam dlq`"))
