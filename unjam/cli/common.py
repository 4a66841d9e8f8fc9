"""What the commands share: exit codes, the options that most have, and finding the server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unjam.cli.lang import LANG, t

if TYPE_CHECKING:
    from unjam.client import Client
    from unjam.core.errors import UnjamError

OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3
"""0 ok · 1 warning: a part did not succeed · 2 critical: it failed · 3 could not tell."""

DEFAULT_URL = "http://127.0.0.1:8002"

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="UNJAM_URL",
        show_envvar=False,
        help=t(
            "The server; else UNJAM_URL, else the one of the data folder.",
            "서버 주소. 없으면 UNJAM_URL, 데이터 폴더의 서버 순으로 찾습니다.",
        ),
    ),
]
Json = Annotated[bool, typer.Option("--json", help=t("Print JSON.", "JSON으로 출력합니다."))]
User = Annotated[str, typer.Option("--user", help=t("User label.", "사용자 라벨."))]
DocumentArg = Annotated[
    str, typer.Argument(metavar="DOC", help=t("The document's id.", "문서 id."))
]


def data_dir() -> Path:
    """As ``unjam.settings`` has it, without its cost of 0.3 s."""
    given = os.environ.get("RAG_DATA_DIR")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "unjam"


def find_url(given: str = "") -> str:
    """--url, else UNJAM_URL, else what ``<data>/house.json`` says, else port 8002 here."""
    if given:
        return given
    try:
        house: Any = json.loads((data_dir() / "house.json").read_text())
        return str(house["api_url"]) or DEFAULT_URL
    except (OSError, ValueError, KeyError, TypeError):
        return DEFAULT_URL


def secret(name: str) -> str:
    """The variable, else its file in RAG_SECRETS_DIR (as in ``unjam.settings``), else ""."""
    given = os.environ.get(name)
    folder = os.environ.get("RAG_SECRETS_DIR")
    if given or not folder:
        return given or ""
    try:
        return (Path(folder).expanduser() / name).read_text().strip()
    except OSError:
        return ""


def client_for(url: str) -> Client:
    from unjam.client import Client

    return Client(find_url(url), secret("RAG_API_TOKEN") or None, lang=LANG)


def admin_client_for(url: str) -> Client:
    """A client with the operators' token: ADMIN_TOKEN, else the data folder's ``admin-token``."""
    from unjam.client import Client

    token = secret("ADMIN_TOKEN")
    if not token:
        try:
            token = (data_dir() / "admin-token").read_text().strip()
        except OSError:
            token = ""
    return Client(find_url(url), token or None, lang=LANG)


def exit_code(error: UnjamError) -> int:
    """3 when nobody could tell (no server, try later), else 2."""
    from unjam.core.errors import NotNow

    return UNKNOWN if isinstance(error, NotNow) else CRITICAL


def hint_for(error: UnjamError) -> str:
    """The error's hint; those that are made on this side of the wire have Korean words here."""
    return (LANG == "ko" and _HINTS_KO.get(error.code)) or error.hint


_HINTS_KO = {
    "api_down": "`unjam up`으로 시작하거나 --url 또는 UNJAM_URL로 다른 서버를 지정하세요.",
    "bad_url": "--url과 UNJAM_URL을 확인하세요.",
    "unreadable_file": "경로와 권한을 확인하세요.",
    "wait_timeout": "무엇을 기다리는지는 `unjam why 문서id`로 볼 수 있습니다.",
}


def parse_object(text: str, option: str) -> dict[str, Any] | None:
    """A JSON object given as an option; "" = None. Raises UsageError."""
    from unjam.core.errors import UsageError

    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"{option} is not JSON: {error}", hint=f"""For example: {option} '{{"team": "hr"}}'"""
        ) from None
    if not isinstance(value, dict):
        raise UsageError(f"{option} must be a JSON object")
    return value  # pyright: ignore[reportUnknownVariableType]
