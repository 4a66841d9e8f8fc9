"""The commands that run the system. Thin: ``unjam.app`` does the work."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unjam.cli.lang import t

if TYPE_CHECKING:
    from unjam.settings import Settings

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help=t("The one data folder (RAG_DATA_DIR).", "데이터 폴더(RAG_DATA_DIR)."),
    ),
]
Host = Annotated[str, typer.Option("--host", help=t("Address to listen on.", "수신 주소."))]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help=t("API port.", "API 포트."))]
DashboardPort = Annotated[
    int,
    typer.Option(
        "--dashboard-port",
        min=0,
        max=65535,
        help=t("Port of the operators' page.", "운영자 페이지 포트."),
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
            "Begin nothing while more of RAG_MAX_CONCURRENT_JOBS is in use.",
            "RAG_MAX_CONCURRENT_JOBS 중 이 비율보다 많이 쓰이는 동안은 새로 시작하지 않습니다.",
        ),
    ),
]


def register(app: typer.Typer) -> None:
    app.command("up", help=t("Start everything, in the foreground.", "전체를 시작합니다."))(up)
    app.command("api", help=t("Start the HTTP servers only.", "HTTP 서버만 시작합니다."))(api)
    app.command("worker", help=t("Start one worker.", "워커 하나를 시작합니다."))(worker)
    app.command("watchdog", help=t("Start the watchdog only.", "감시자만 시작합니다."))(watchdog)


def up(
    workers: Annotated[
        int, typer.Option("--workers", min=0, max=256, help=t("Worker processes.", "워커 수."))
    ] = 2,
    data_dir: DataDir = None,
    host: Host = "127.0.0.1",
    port: Port = 8002,
    dashboard_port: DashboardPort = 9181,
    allow_restart: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-restart",
            metavar="NAME",
            help=t(
                "A systemd unit or docker:NAME that the watchdog may restart; may be repeated.",
                "워치독이 재시작해도 되는 systemd 유닛 또는 docker:이름. 여러 번 쓸 수 있습니다.",
            ),
        ),
    ] = None,
) -> None:
    if allow_restart:  # the children read it, too
        os.environ["RAG_ALLOW_RESTART"] = ",".join(allow_restart)
    settings = load_settings(data_dir)
    from unjam.app.run_up import main

    code = main(settings, workers=workers, host=host, port=port, dashboard_port=dashboard_port)
    raise typer.Exit(code)


def api(
    data_dir: DataDir = None,
    host: Host = "127.0.0.1",
    port: Port = 8002,
    dashboard_port: DashboardPort = 9181,
) -> None:
    load_settings(data_dir)
    serve = ["--host", host, "--port", str(port), "--dashboard-port", str(dashboard_port)]
    os.execv(sys.executable, [sys.executable, "-m", "unjam.web.main", *serve])


def worker(
    queues: Annotated[
        str,
        typer.Option(
            "--queues",
            help=t(
                "Lanes to serve, comma-separated; all of them when empty.",
                "처리할 큐(쉼표로 구분). 비우면 전체.",
            ),
        ),
    ] = "",
    share: Share = 100,
    data_dir: DataDir = None,
) -> None:
    settings = load_settings(data_dir)
    from unjam.app.run_worker import main

    lanes = [lane.strip() for lane in queues.split(",") if lane.strip()]
    raise typer.Exit(main(settings, lanes, share))


def watchdog(data_dir: DataDir = None) -> None:
    settings = load_settings(data_dir)
    from unjam.app.run_watchdog import main

    raise typer.Exit(main(settings))


def load_settings(data_dir: Path | None = None) -> Settings:
    """The settings of this process, children included.

    Raises:
        SetupError: a variable holds something unfit; one line per variable.
    """
    if data_dir is not None:
        os.environ["RAG_DATA_DIR"] = str(data_dir.expanduser().absolute())
    from pydantic import ValidationError

    from unjam.core.errors import SetupError
    from unjam.settings import Settings

    try:
        return Settings()  # type: ignore[call-arg]
    except ValidationError as error:
        faults = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise SetupError(
            "; ".join(faults),
            hint=t("Correct the environment variables.", "환경 변수를 고치세요."),
        ) from None
