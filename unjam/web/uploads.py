"""Multipart bodies streamed straight into the blob store: 2 GiB pass in bounded memory.

Fields may come in any order: files are staged as they arrive and accepted once the body is whole.
A client that hangs up leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from unjam.core.errors import TooLarge, UsageError
from unjam.pipeline.intake import Intake, Staged
from unjam.pipeline.labels import MAX_METADATA_BYTES, parse_metadata

MAX_FILES = 100
"""Files of one request: each holds a file descriptor until the body is whole."""
OVERHEAD_BYTES = 1_048_576
"""What boundaries, part headers and small fields may add to the bytes of the files."""
_MAX_USER_ID_BYTES = 4096
_EXTENDED_NAME = re.compile(rb"filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)

_Action = tuple[Literal["begin", "data", "end"], bytes, bytes]


@dataclass(slots=True)
class Form:
    """A whole body: staged files and the fields beside them."""

    files: list[Staged] = field(default_factory=list[Staged])
    user_id: str = ""
    metadata: dict[str, Any] | None = None


async def receive_form(request: Request, intake: Intake, *, max_files: int = MAX_FILES) -> Form:
    """Read the multipart body of *request* to its end.

    Raises:
        UsageError: not multipart (415), malformed (400), no file (422), metadata unfit (422).
        TooLarge: announced or found too large, or too many files.
        Backlogged, DependencyDown: as ``Intake.admit`` and ``Intake.write``.
        starlette.requests.ClientDisconnect: the caller hung up.
    """
    boundary = _boundary(request.headers.get("content-type", ""))
    announced = _announced(request.headers.get("content-length"))
    await intake.admit(None if announced is None else max(0, announced - OVERHEAD_BYTES))
    reader = _Reader(intake, max_files)
    parts = _Parts(boundary)
    received = 0
    try:
        async for block in request.stream():
            received += len(block)
            if received > intake.max_upload_bytes + OVERHEAD_BYTES:
                raise TooLarge(f"the upload is larger than {intake.max_upload_bytes} bytes")
            for action in parts.feed(block):
                await reader.take(action)
        parts.finish()
        return reader.form()
    except BaseException:
        await asyncio.shield(intake.abort(reader.files))
        raise


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data":
        raise UsageError(
            f"the body is {kind.decode('latin-1') or 'of no type'!a}, not multipart/form-data",
            code="unsupported_media_type",
        )
    if not boundary:
        raise _malformed("the multipart body names no boundary")
    return boundary


def _malformed(detail: str) -> UsageError:
    return UsageError(detail, code="malformed_body")


def _announced(header: str | None) -> int | None:
    return int(header) if header is not None and header.isascii() and header.isdigit() else None


class _Parts:
    """The low-level parser's callbacks, turned into a list of actions per block."""

    def __init__(self, boundary: bytes) -> None:
        self._actions: list[_Action] = []
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except (FormParserError, ValueError) as error:
            raise _malformed(f"the multipart boundary is unfit: {error}") from None

    def feed(self, block: bytes) -> list[_Action]:
        if block:
            try:
                self._parser.write(block)
            except FormParserError as error:
                raise _malformed(f"the multipart body is malformed: {error}") from None
        actions, self._actions = self._actions, []
        return actions

    def finish(self) -> None:
        if not self._ended:
            raise _malformed("the multipart body ended before its closing boundary")

    def _on_part_begin(self) -> None:
        self._disposition = self._header = self._value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        self._actions.append(("begin", *_names(self._disposition)))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._actions.append(("data", data[start:end], b""))

    def _on_part_end(self) -> None:
        self._actions.append(("end", b"", b""))

    def _on_end(self) -> None:
        self._ended = True


def _names(disposition: bytes) -> tuple[bytes, bytes]:
    """Field name and file name of a part; the RFC 5987 form that older clients send included."""
    _, options = parse_options_header(disposition.decode("latin-1"))
    filename = options.get(b"filename", b"").replace(b"%22", b'"')
    extended = _EXTENDED_NAME.search(disposition)
    if extended:
        filename = unquote_to_bytes(extended[1])
    return options.get(b"name", b""), filename


class _Reader:
    """Carries the actions out: files go to the intake, fields are kept."""

    def __init__(self, intake: Intake, max_files: int) -> None:
        self._intake = intake
        self._max_files = max_files
        self.files: list[Staged] = []
        self._fields: dict[str, bytes] = {}
        self._unknown: list[str] = []
        self._name = ""

    async def take(self, action: _Action) -> None:
        kind, first, second = action
        if kind == "begin":
            await self._begin(first.decode("utf-8", "replace"), decode_name(second))
        elif kind == "data":
            await self._data(first)
        else:
            self._name = ""

    async def _begin(self, name: str, filename: str) -> None:
        self._name = name
        if name == "file":
            if len(self.files) >= self._max_files:
                raise TooLarge(f"more than {self._max_files} files in one request")
            self.files.append(await self._intake.open(filename))
        elif name in ("user_id", "metadata"):
            self._fields[name] = b""
        elif len(self._unknown) < 10:
            self._unknown.append(name[:40])

    async def _data(self, data: bytes) -> None:
        if self._name == "file":
            await self._intake.write(self.files[-1], data)
        elif self._name in self._fields:
            value = self._fields[self._name] = self._fields[self._name] + data
            limit = MAX_METADATA_BYTES if self._name == "metadata" else _MAX_USER_ID_BYTES
            if len(value) > limit:
                code = "invalid_metadata" if self._name == "metadata" else "invalid_label"
                raise UsageError(f"{self._name} is longer than {limit} bytes", code=code)

    def form(self) -> Form:
        if not self.files:
            seen = ", ".join(repr(n) for n in self._unknown) or "none"
            raise UsageError(
                f"no part named 'file' in the body (other parts: {seen})", code="missing_file"
            )
        metadata = self._fields.get("metadata", b"")
        try:
            user_id = self._fields.get("user_id", b"").decode()
        except UnicodeDecodeError:
            raise UsageError("user_id is not UTF-8", code="invalid_label") from None
        return Form(self.files, user_id, parse_metadata(metadata) if metadata.strip() else None)


def decode_name(raw: bytes) -> str:
    """A file name's bytes as text: UTF-8, else CP949 (Korean Windows), else Latin-1."""
    for encoding in ("utf-8", "cp949"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")
