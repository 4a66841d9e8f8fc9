"""Rows and files of a source become items to accept, or complaints that name the line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from unjam.core.errors import UsageError
from unjam.pipeline.labels import check_metadata, clean_label, parse_metadata
from unjam.stores.bulk_source import BulkSource, Part, tables_of

LINE_BYTES = 256 * 1_048_576
"""A line of JSONL above this is no text that somebody meant to have as one document."""

IN_MEMORY_BYTES = 4 * 1_048_576
"""Files up to here are read at once; larger ones stream."""

TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class Columns:
    """What the fields of a row are called. Only *text* must be there."""

    text: str = "text"
    id: str = "id"
    user: str = "user_id"
    metadata: str = "metadata"

    def names(self) -> list[str]:
        return [self.text, self.id, self.user, self.metadata]


@dataclass(frozen=True, slots=True)
class Item:
    """A document to be. *data* None: too large to carry about, read from *name* of the source."""

    where: str
    filename: str
    data: bytes | None
    name: str = ""
    user_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Unfit:
    """What cannot become a document, where it stands, and why."""

    where: str
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    """How parts become items; *user_id* is for rows and files without one of their own."""

    source: BulkSource
    columns: Columns = field(default_factory=Columns)
    user_id: str = ""

    def items(self, part: Part) -> Iterator[Item | Unfit]:
        """Never raises for one row or file. Raises SetupError: a package is missing."""
        try:
            if part.kind == "files":
                for name in part.names:
                    yield self._file(name)
            elif part.kind == "jsonl":
                yield from self._lines(part.names[0])
            else:
                yield from self._rows(part.names[0])
        except UsageError as error:
            yield Unfit("", error.detail)

    def _file(self, name: str) -> Item | Unfit:
        where = self.source.shown(name)
        try:
            with self.source.open(name) as file:
                data = file.read(IN_MEMORY_BYTES + 1)
        except UsageError as error:
            return Unfit("", error.detail)
        except OSError as error:
            return Unfit(where, error.strerror or str(error))
        whole = len(data) <= IN_MEMORY_BYTES
        return Item(where, name, data if whole else None, name, self.user_id)

    def _lines(self, name: str) -> Iterator[Item | Unfit]:
        with self.source.open(name) as file:
            for number, line in enumerate(file, 1):
                where = f"{self.source.shown(name)}, line {number}"
                if not line.strip():
                    continue
                if len(line) > LINE_BYTES:
                    yield Unfit(where, f"longer than {LINE_BYTES} bytes")
                    continue
                try:
                    row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError:
                    yield Unfit(where, "not UTF-8")
                except (ValueError, RecursionError) as error:
                    yield Unfit(where, f"not JSON: {error}")
                else:
                    yield self._row(where, row, f"{name}-{number}.txt")

    def _rows(self, name: str) -> Iterator[Item | Unfit]:
        for number, row in enumerate(tables_of(self.source, name, self.columns.names()), 1):
            where = f"{self.source.shown(name)}, row {number}"
            yield self._row(where, row, f"{name}-{number}.txt")

    def _row(self, where: str, row: object, filename: str) -> Item | Unfit:
        if not isinstance(row, dict):
            return Unfit(where, "not an object with fields")
        fields = cast("dict[str, Any]", row)
        text = fields.get(self.columns.text)
        if not isinstance(text, str):
            known = ", ".join(sorted(map(str, fields))[:20])
            what = "is no text" if self.columns.text in fields else f"is absent; there are: {known}"
            return Unfit(where, f"field {self.columns.text!r} {what}")
        if not text.strip():
            return Unfit(where, f"field {self.columns.text!r} is empty")
        try:
            label = fields.get(self.columns.id)
            user = fields.get(self.columns.user)
            return Item(
                where=where,
                filename=filename if label in (None, "") else str(label),
                data=text.encode("utf-8", "replace"),
                user_id=self.user_id if user in (None, "") else clean_label(str(user), "user_id"),
                metadata=_metadata(fields.get(self.columns.metadata)),
                media_type=TEXT,
            )
        except UsageError as error:
            return Unfit(where, error.detail)


def _metadata(value: object) -> dict[str, Any]:
    """An object, JSON in a text, or the pairs of a Parquet map. Raises UsageError."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        return parse_metadata(value)
    if isinstance(value, list):
        try:
            value = dict(cast("list[tuple[str, Any]]", value))
        except (TypeError, ValueError):
            raise UsageError("metadata must be a JSON object", code="invalid_metadata") from None
    if isinstance(value, dict):  # a Parquet struct has every field in every row
        value = {k: v for k, v in cast("dict[str, Any]", value).items() if v is not None}
    return parse_metadata(_json(check_metadata(value)))


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
