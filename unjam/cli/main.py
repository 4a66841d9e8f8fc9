"""``unjam``: the command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from unjam.cli import (
    alerts,
    bulk,
    capacity,
    dlq,
    doctor,
    drill,
    explain,
    ingest,
    levers,
    logs,
    look,
    operate,
    postmortem,
    recover,
    safe,
    vectors,
    verify,
    watching,
)
from unjam.cli.lang import t, without_lang

app = typer.Typer(
    name="unjam",
    help=t(
        "RAG ingestion that never silently stalls.",
        "조용히 멈추는 일이 없는 RAG 문서 처리.",
    ),
    epilog=t(
        "Data goes to stdout, progress to stderr. Exit codes: 0 ok, 1 warning, 2 critical, "
        "3 could not tell. --lang en|ko works with every command.",
        "데이터는 stdout, 진행 상황은 stderr로 출력합니다. 종료 코드: 0 정상, 1 경고, 2 심각, "
        "3 판단 불가. --lang en|ko는 모든 명령에 쓸 수 있습니다.",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from unjam import __version__

        print(f"unjam {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help=t("Print the version.", "버전을 출력합니다."),
        ),
    ] = False,
) -> None:
    pass


operate.register(app)
ingest.register(app)
bulk.register(app)
look.register(app)
doctor.register(app)
explain.register(app)
safe.register(app)
vectors.register(app)
dlq.register(app)
levers.register(app)
watching.register(app)
logs.register(app)
capacity.register(app)
alerts.register(app)
drill.register(app)
recover.register(app)
verify.register(app)
postmortem.register(app)


def run() -> None:
    """The console script. Users' mistakes end in one line and a hint, never in a traceback."""
    from unjam.cli.render import prepare_streams
    from unjam.core.errors import UnjamError

    prepare_streams()
    # httpx loads its own command line, which takes 50 ms, unless that cannot be imported.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    try:
        arguments = without_lang(sys.argv[1:])
    except ValueError as error:
        _complain(f"--lang {error}: " + t("only en and ko are known", "en과 ko만 쓸 수 있습니다"))
        sys.exit(2)
    try:
        app(arguments, prog_name="unjam")
    except UnjamError as error:
        from unjam.cli.common import exit_code, hint_for

        _complain(str(error), hint_for(error))
        sys.exit(exit_code(error))
    except BrokenPipeError:
        # The reader of the pipe has enough; closing stdout again must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def _complain(text: str, hint: str = "") -> None:
    from unjam.cli.render import paint, plain, remark

    remark(paint("unjam: ", "red", sys.stderr) + plain(text))
    if hint:
        remark("  " + plain(hint))


if __name__ == "__main__":
    run()
