"""``unjam logs``: all processes' log files as one stream, the past ones in the order of time."""

from __future__ import annotations

import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from unjam.cli.common import OK, WARNING, data_dir
from unjam.cli.lang import t

POLL_S = 0.2
BLOCK = 1 << 16
_OURS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.0-9]*Z")
_COLOUR = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")
"""What servers write for a terminal (ECMA-48, control sequences); a log is read without."""
_VALKEY = re.compile(r"\d\d \w{3} \d{4} \d\d:\d\d:\d\d\.\d+")


def register(app: typer.Typer) -> None:
    app.command("logs", help=t("Show all processes' logs.", "모든 프로세스의 로그를 봅니다."))(logs)


def logs(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help=t(
                "worker, api, watchdog, valkey, chroma, or a file's name; all when empty.",
                "worker, api, watchdog, valkey, chroma 또는 파일 이름. 비우면 전체.",
            ),
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help=t("Go on as lines come.", "새 줄을 계속 봅니다.")),
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help=t("Last lines.", "마지막 줄 수."))
    ] = 50,
    grep: Annotated[
        str,
        typer.Option(
            "--grep", help=t("A pattern; case does not matter.", "정규식. 대소문자 무시.")
        ),
    ] = "",
    as_json: Annotated[
        bool,
        typer.Option("--json", help=t("One JSON object a line.", "한 줄에 JSON 객체 하나.")),
    ] = False,
) -> None:
    """Exit 1 when no line is found."""
    from unjam.cli import render

    wanted = _pattern(grep)
    folder = log_dir()
    files = chosen(folder, names or [])
    ends = {file: file.stat().st_size for file in files}  # before: rather twice than never
    found = last_lines(files, lines, wanted)
    show = _printer(as_json, [line.file for line in found] if not follow else files)
    for line in found:
        show(line)
    if follow:
        try:
            for line in followed(folder, names or [], ends):
                if wanted is None or wanted.search(line.text):
                    show(line)
        except KeyboardInterrupt:
            raise typer.Exit(OK) from None
    if not found:
        render.remark(t(f"no such line in {folder}", f"{folder}에 해당하는 줄이 없습니다"))
    raise typer.Exit(OK if found else WARNING)


@dataclass(frozen=True, slots=True)
class Line:
    """*text* has no line break; lines without a time of their own belong to the one before."""

    file: Path
    text: str


def log_dir() -> Path:
    """RAG_LOG_DIR, else what the running house says, else ``logs`` of the data folder."""
    if given := os.environ.get("RAG_LOG_DIR"):
        return Path(given).expanduser()
    try:
        said = json.loads((data_dir() / "house.json").read_text())["log_dir"]
    except (OSError, ValueError, KeyError, TypeError):
        said = ""
    return Path(said) if said else data_dir() / "logs"


def chosen(folder: Path, names: Sequence[str]) -> list[Path]:
    """The log files of *folder* that *names* mean: ``worker`` means rag-worker.log,
    rag-worker2.log …; a whole name means that file only.

    Raises:
        UsageError: a name means none of them, or there is no log yet.
    """
    from unjam.core.errors import UsageError

    there = sorted(p for p in folder.glob("*.log") if p.is_file())
    if not there:
        raise UsageError(
            f"there are no logs in {folder}",
            hint=t(
                "Start with `unjam up`, or name the folder with RAG_LOG_DIR.",
                "`unjam up`으로 시작하거나 RAG_LOG_DIR로 폴더를 지정하세요.",
            ),
        )
    if not names:
        return there
    found: list[Path] = []
    for name in names:
        stem = name.removesuffix(".log")
        means = re.compile(rf"(rag-)?{re.escape(stem)}[\d-]*")
        exact = [p for p in there if p.stem == stem]
        meant = [p for p in there if means.fullmatch(p.stem)] if name == stem else exact
        if not meant:
            have = ", ".join(p.stem for p in there)
            raise UsageError(
                f"no log is called {name!a}", hint=t(f"There are: {have}", f"있는 로그: {have}")
            )
        found += [p for p in meant if p not in found]
    return found


def last_lines(
    files: Sequence[Path], count: int, wanted: re.Pattern[str] | None = None
) -> list[Line]:
    """The last *count* lines of all *files* that match, oldest first."""
    timed: list[tuple[str, int, Line]] = []
    for number, file in enumerate(files):
        stamp = ""
        mine: deque[tuple[str, int, Line]] = deque(maxlen=count)
        for text in _tail(file, count, wanted):
            stamp = time_of(text) or stamp
            mine.append((stamp, number, Line(file, text)))
        timed += mine
    timed.sort(key=lambda entry: entry[:2])  # stable: one file's lines keep their order
    return [line for _, _, line in timed][-count:] if count else []


def time_of(line: str) -> str:
    """When *line* was written, as ours have it (UTC); "" when it does not say. Valkey's are in the
    host's time."""
    if match := _OURS.search(line[:60]):
        return match[0]
    if match := _VALKEY.search(line[:60]):
        at = datetime.strptime(match[0], "%d %b %Y %H:%M:%S.%f").astimezone(UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return ""


def _tail(file: Path, count: int, wanted: re.Pattern[str] | None) -> list[str]:
    """The last *count* lines of *file* that match, read from its end."""
    found: deque[str] = deque()
    for text in _backwards(file):
        if len(found) >= count:
            break
        if wanted is None or wanted.search(text):
            found.appendleft(text)
    return list(found)


def _backwards(file: Path) -> Iterator[str]:
    """The lines of *file*, the last one first; its size costs nothing."""
    try:
        with file.open("rb") as handle:
            at = handle.seek(0, os.SEEK_END)
            rest, last = b"", True
            while at > 0:
                step = min(BLOCK, at)
                at = handle.seek(at - step)
                rest, *whole = (handle.read(step) + rest).split(b"\n")
                if last and whole and not whole[-1]:
                    whole.pop()  # what follows the last line break is no line
                last = False
                yield from (_text(row) for row in reversed(whole))
            if rest:
                yield _text(rest)
    except FileNotFoundError:  # rotated away meanwhile
        return


def _text(row: bytes) -> str:
    return _COLOUR.sub("", row.decode("utf-8", "replace").rstrip("\r"))


# -- as it comes ------------------------------------------------------------------------------
def followed(folder: Path, names: Sequence[str], seen: dict[Path, int]) -> Iterator[Line]:
    """Lines as they are written, for ever; *seen*: how far each file was read. Files that are new,
    truncated or replaced (rotation) are read from their beginning."""
    half: dict[Path, bytes] = {}
    which: dict[Path, int] = {}
    while True:
        quiet = True
        for file in _still(folder, names):
            try:
                with file.open("rb") as handle:
                    stat = os.fstat(handle.fileno())
                    replaced = which.get(file, stat.st_ino) != stat.st_ino
                    which[file] = stat.st_ino
                    if replaced or stat.st_size < seen.get(file, 0):
                        seen[file] = 0
                        half.pop(file, None)
                    handle.seek(seen.get(file, 0))
                    new = handle.read(1 << 20)
            except FileNotFoundError:
                continue
            seen[file] = seen.get(file, 0) + len(new)
            *whole, half[file] = (half.get(file, b"") + new).split(b"\n")
            for row in whole:
                quiet = False
                yield Line(file, _text(row))
        if quiet:
            time.sleep(POLL_S)


def _still(folder: Path, names: Sequence[str]) -> list[Path]:
    from unjam.core.errors import UsageError

    try:
        return chosen(folder, names)
    except UsageError:
        return []


# -- output -----------------------------------------------------------------------------------
def _pattern(text: str) -> re.Pattern[str] | None:
    from unjam.core.errors import UsageError

    try:
        return re.compile(text, re.IGNORECASE) if text else None
    except re.error as error:
        raise UsageError(f"--grep {text!a}: {error}") from None


def _printer(as_json: bool, files: Iterable[Path]) -> Callable[[Line], None]:
    from unjam.cli import render

    wide = max((len(file.stem) for file in files), default=0)
    several = len(set(files)) > 1

    def show(line: Line) -> None:
        if as_json:
            render.out_json_line({"log": line.file.stem, "line": line.text})
            return
        text = render.plain(line.text)
        for word, colour in (("ERROR", "red"), ("WARNING", "yellow")):
            if f" {word}: " in text[:60]:
                text = render.paint(text, colour)
        head = render.paint(line.file.stem.ljust(wide) + "  ", "grey") if several else ""
        print(head + text, flush=True)

    return show
