"""CSV and JSON: rows and values as lines that read by themselves."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from unjam.core.errors import DocumentRejected
from unjam.pipeline.formats.text import plain, read_blocks
from unjam.pipeline.sections import BLOCK_CHARS, Section, TableWriter

_WHOLE_JSON_BYTES = 64 << 20
"""Above this a JSON file is read as lines of text: parsed it would take ten times its size."""


def csv_rows(path: Path) -> Iterator[Section]:
    """A table whose first row is the header."""
    blocks = read_blocks(path)
    first = next(blocks, "")
    if not first.strip():
        return
    csv.field_size_limit(1 << 30)
    table = TableWriter()
    for row in csv.reader(_lines(first, blocks), _delimiter(first)):
        yield from table.row(row)
    yield from table.close()


def _delimiter(sample: str) -> type[csv.Dialect]:
    """The mark that gives the first lines the same number of fields, most of them first."""
    lines = [line for line in sample.splitlines()[:20] if line.strip()]

    def score(mark: str) -> tuple[float, int]:
        counts = [line.count(mark) for line in lines]
        usual = max(set(counts), key=counts.count) if counts else 0
        return (counts.count(usual) / len(counts) if usual else 0.0, usual)

    best = max(",\t;|", key=score)

    class Found(csv.excel):
        delimiter = best if score(best)[1] else ","

    return Found


def _lines(first: str, blocks: Iterator[str]) -> Iterator[str]:
    yield from first.splitlines(keepends=True)
    for block in blocks:
        yield from block.splitlines(keepends=True)


def json_values(path: Path) -> Iterator[Section]:
    """``path.to.key: value`` lines, a blank line between the elements of a top-level list.

    Raises DocumentRejected (corrupt) when the file ends within its JSON.
    """
    if path.stat().st_size > _WHOLE_JSON_BYTES:
        yield from plain(path)
        return
    text = "".join(read_blocks(path))
    if not text.strip():
        return
    values = _parse(text)
    block: list[str] = []
    chars = 0
    for value in values:
        lines = "".join(f"{line}\n" for line in _flatten(value)) + "\n"
        block.append(lines)
        chars += len(lines)
        if chars >= BLOCK_CHARS:
            yield Section("".join(block))
            block, chars = [], 0
    if block:
        yield Section("".join(block))


def _parse(text: str) -> list[Any]:
    try:
        whole: Any = orjson.loads(text)
        return whole if isinstance(whole, list) else [whole]  # pyright: ignore[reportUnknownVariableType]
    except orjson.JSONDecodeError:
        pass
    try:  # one value a line
        return [orjson.loads(line) for line in text.splitlines() if line.strip()]
    except orjson.JSONDecodeError:
        pass
    try:  # numbers beyond 64 bits, NaN: the standard library takes them
        whole = json.loads(text)
        return whole if isinstance(whole, list) else [whole]  # pyright: ignore[reportUnknownVariableType]
    except (ValueError, RecursionError) as error:
        raise DocumentRejected(f"Not valid JSON: {error}", code="corrupt") from None


def _flatten(value: Any) -> Iterator[str]:
    """Lines of *value*, without recursion: nesting depth is the sender's choice."""
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, dict):
            children: list[tuple[str, Any]] = [
                (f"{path}.{key}" if path else str(key), child) for key, child in item.items()
            ]
            stack.extend(reversed(children))
        elif isinstance(item, list) and any(isinstance(child, dict | list) for child in item):
            stack.extend((path, child) for child in reversed(item))
        elif isinstance(item, list):
            yield _line(path, ", ".join(_scalar(child) for child in item))
        else:
            yield _line(path, _scalar(item))


def _line(path: str, value: str) -> str:
    return f"{path}: {value}" if path else value


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
