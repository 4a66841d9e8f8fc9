"""What the commands print: data on stdout, progress and remarks on stderr.

Foreign text (file names, chunks, errors) is stripped of control characters, so that a document
cannot drive the terminal.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any, TextIO, cast

from unjam.cli.lang import t

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "grey": "90", "bold": "1"}
_STATE_COLOURS = {"searchable": "green", "dead": "red", "waiting": "yellow", "cancelled": "grey"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


# -- streams ----------------------------------------------------------------------------------
def prepare_streams() -> None:
    """Korean names are printed whatever the locale; what it cannot show is escaped."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            keeps_bytes = stream.encoding.lower().replace("-", "") == "utf8"
            reconfigure(errors="surrogateescape" if keeps_bytes else "backslashreplace")


def out(text: str = "") -> None:
    print(text)


def remark(text: str) -> None:
    """Something for a person, not for a pipe."""
    print(text, file=sys.stderr, flush=True)


def out_json(value: object) -> None:
    """One JSON document; Korean stays readable."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=_plain_value))


def out_json_line(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, default=_plain_value), flush=True)


def as_json(record: object) -> dict[str, Any]:
    assert is_dataclass(record) and not isinstance(record, type)
    return asdict(record)


def _plain_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


def coloured(stream: TextIO) -> bool:
    """https://no-color.org, and a pipe is no place for colours."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    code = _COLOURS.get(colour)
    return f"\x1b[{code}m{text}\x1b[0m" if code and coloured(stream or sys.stdout) else text


def state_text(state: str) -> str:
    return paint(state, _STATE_COLOURS.get(state, "blue"))


# -- text -------------------------------------------------------------------------------------
def plain(text: str) -> str:
    """*text* on one line and without control characters."""
    return "".join(
        " " if c in "\n\r\t" else c
        for c in text
        if c in "\n\r\t" or unicodedata.category(c) != "Cc"
    )


def width(text: str) -> int:
    """Columns on a terminal: Korean, Chinese and Japanese take two (UAX #11)."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def cut(text: str, columns: int) -> str:
    """*text* in at most *columns* columns."""
    if width(text) <= columns:
        return text
    kept, used = "", 0
    for c in text:
        used += width(c)
        if used > columns - 1:
            break
        kept += c
    return kept + "…"


def size(count: int) -> str:
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return str(count)


def span(seconds: float) -> str:
    """A duration as a person says it."""
    if seconds < 1:
        return t("now", "지금")
    parts = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    for n, (unit_s, name) in enumerate(parts):
        if seconds >= unit_s:
            whole, rest = divmod(int(seconds), unit_s)
            text = f"{whole} {name}"
            if n + 1 < len(parts) and rest >= parts[n + 1][0] and whole < 10:
                text += f" {rest // parts[n + 1][0]} {parts[n + 1][1]}"
            return text
    return "0 s"


def ago(at: datetime | None) -> str:
    if at is None:
        return ""
    return span((datetime.now(UTC) - at).total_seconds())


def until(at: datetime | None) -> str:
    if at is None:
        return ""
    return span(max(0.0, (at - datetime.now(UTC)).total_seconds()))


# -- tables -----------------------------------------------------------------------------------
def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> None:
    """Aligned for a terminal; tab-separated and whole in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            out("\t".join(row))
        return
    columns = list(zip(head, *rows, strict=True))
    widths = [max(width(_bare(cell)) for cell in column) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded: list[str] = []
        for n, cell in enumerate(cells):
            space = " " * (widths[n] - width(_bare(cell)))
            padded.append(space + cell if n in numbers else cell + space)
        return "  ".join(padded).rstrip()

    out(paint(line(head), "bold"))
    for row in rows:
        out(line(row))


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Name and value, one pair a line; empty values are left out."""
    wide = max((width(name) for name, value in pairs if value), default=0)
    for name, value in pairs:
        if value:
            out(f"{name}{' ' * (wide - width(name))}  {value}")


def _bare(cell: str) -> str:
    while "\x1b[" in cell:
        before, _, rest = cell.partition("\x1b[")
        cell = before + rest.partition("m")[2]
    return cell


# -- progress ---------------------------------------------------------------------------------
@contextmanager
def progress(what: str, total: int | None) -> Generator[Callable[[int, str], None]]:
    """A bar on stderr, when somebody watches: call what is given with (done, remark)."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda done, note: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(what, total=total, note="")
        yield lambda done, note: bars.update(bar, completed=done, note=cut(plain(note), 40))


def reasons_of(report: Mapping[str, Any]) -> list[str]:
    """The readiness report's reasons as lines."""
    found = cast("Sequence[Mapping[str, str]]", report.get("reasons", []))
    return [f"{r['code']}: {r['detail']} {r.get('hint', '')}".rstrip() for r in found]
