"""The records of the Python client, and how they come off and go onto the wire."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from unjam.core.document import ENDED, State
from unjam.core.errors import (
    Backlogged,
    Conflict,
    DependencyDown,
    NotFound,
    TooLarge,
    UnjamError,
    UsageError,
)

if TYPE_CHECKING:
    import httpx

_FIRST_GROUP_FILES = 8
_GROUP_FILES = 50
_GROUP_BYTES = 8 * 1_048_576
_ERRORS: Mapping[int, type[UnjamError]] = {404: NotFound, 409: Conflict, 413: TooLarge}

Source = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes themselves, or a file open for reading bytes."""


@dataclass(frozen=True, slots=True)
class Progress:
    stage: str = ""
    done: int = 0  # chunks stored
    total: int = 0  # 0 = not known yet


@dataclass(frozen=True, slots=True)
class Attempts:
    errors: int = 0
    deaths: int = 0
    throttles: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the server described it a moment ago; :meth:`Client.get` looks again."""

    id: str
    state: State
    reason: str = ""  # why it waits or is parked
    hint: str = ""  # what to do about it
    detail: str = ""
    progress: Progress = field(default_factory=Progress)
    attempts: Attempts = field(default_factory=Attempts)
    next_step_at: datetime | None = None
    eta_s: float | None = None
    chunks: int = 0
    filename: str = ""
    names: tuple[str, ...] = ()
    media_type: str = ""
    size_bytes: int = 0
    content_hash: str = ""
    user_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    generation: int = 0
    visible_generation: int = 0
    lane: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    searchable_at: datetime | None = None
    duplicate_of: str = ""  # set by add: these bytes were here already

    @property
    def ended(self) -> bool:
        """Searchable, dead, cancelled or deleted: it moves no more by itself."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk that answers a search. *score* is cosine similarity, −1 … 1."""

    document_id: str
    chunk_id: str
    score: float
    text: str
    filename: str
    page: int | None = None
    section: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    user_id: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A frame of a document's event stream. *seq* is None for ``progress`` and ``end``."""

    seq: int | None
    kind: str
    data: Mapping[str, Any]


def checked_id(document_id: str) -> str:
    if not document_id or not all(c.isalnum() or c in "-_" for c in document_id):
        raise NotFound(f"no document {document_id!a}")
    return document_id


def display_name(path: str | os.PathLike[str]) -> str:
    """A path's last part as text; names in bytes that are not UTF-8 are read as CP949."""
    name = os.path.basename(os.fspath(path))  # noqa: PTH119 - Path would refuse some of them
    try:
        name.encode()
    except UnicodeEncodeError:
        name = os.fsencode(name).decode("cp949", "replace")
    return name


def part_of(source: Source, filename: str, stack: ExitStack) -> tuple[str, Any]:
    """One ``file`` part: its name and its bytes, or something to read them from."""
    if isinstance(source, bytes):
        return filename or "document", source
    if isinstance(source, str | os.PathLike):
        try:
            opened = stack.enter_context(Path(source).open("rb"))  # noqa: SIM115 - closed by stack
        except OSError as error:
            raise UsageError(
                f"cannot read {display_name(source)}: {error.strerror}", code="unreadable_file"
            ) from None
        return filename or display_name(source), opened
    name = getattr(source, "name", "")
    own = display_name(name) if isinstance(name, str) else ""
    return filename or own or "document", source if _seekable(source) else _Unsized(source)


def _seekable(source: BinaryIO) -> bool:
    try:
        return source.seekable()
    except AttributeError:
        return False


class _Unsized:
    """A pipe as an upload of unknown length; its descriptor would pass for an empty file."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source

    def read(self, count: int = -1) -> bytes:
        return self._source.read(count)

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(65_536):
            yield block


def groups_of(sources: Iterable[Source]) -> Iterator[list[Source]]:
    """Small files share requests. The first ones are short, so that workers begin early."""
    group: list[Source] = []
    total, most = 0, _FIRST_GROUP_FILES
    for source in sources:
        size = _size(source)
        if group and (len(group) >= most or total + size > _GROUP_BYTES):
            yield group
            group, total, most = [], 0, min(_GROUP_FILES, most * 2)
        group.append(source)
        total += size
    if group:
        yield group


def _size(source: Source) -> int:
    if isinstance(source, bytes):
        return len(source)
    if isinstance(source, str | os.PathLike):
        try:
            return Path(source).stat().st_size
        except OSError:
            return 0
    return _GROUP_BYTES  # an open file: alone


def document_of(raw: Mapping[str, Any]) -> Document:
    known = {f.name for f in fields(Document)}
    values: dict[str, Any] = {k: v for k, v in raw.items() if k in known and v is not None}
    values["state"] = State(values["state"])
    for name in ("next_step_at", "created_at", "updated_at", "searchable_at"):
        if name in values:
            values[name] = datetime.fromisoformat(values[name])
    if "progress" in values:
        values["progress"] = Progress(**values["progress"])
    if "attempts" in values:
        values["attempts"] = Attempts(**values["attempts"])
    values["names"] = tuple(values.get("names", ()))
    return Document(**values)


def frames_of(lines: Iterable[str]) -> Iterator[Event]:
    """Server-sent events (WHATWG HTML §9.2.6), as far as our server uses them."""
    seq, kind, data = None, "", ""
    for line in lines:
        if not line:
            if data:
                yield Event(seq, kind or "message", json.loads(data))
            seq, kind, data = None, "", ""
        elif line.startswith("id: "):
            seq = int(line[4:])
        elif line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            data += line[6:]


def raise_for(answer: httpx.Response) -> None:
    try:
        body: dict[str, Any] = answer.json()
        code, detail = str(body["code"]), str(body["detail"])
    except (ValueError, KeyError, TypeError):
        status = answer.status_code
        raise UsageError(
            f"{answer.request.url} answered {status} and is not an unjam server", code="bad_url"
        ) from None
    hint = str(body.get("hint", ""))
    status = answer.status_code
    header = answer.headers.get("retry-after", "")
    retry_after_s = float(header) if header.isdigit() else 5.0
    if status == 429:
        raise Backlogged(detail, code=code, hint=hint, retry_after_s=retry_after_s)
    if status == 503:
        raise DependencyDown(detail, code=code, hint=hint, retry_after_s=retry_after_s)
    kind = _ERRORS.get(status, UsageError if status < 500 else UnjamError)
    raise kind(detail, code=code, hint=hint)
