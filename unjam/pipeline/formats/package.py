"""Zip packages of XML, read without trust: sizes, ratios, entities and nesting are bounded."""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol
from xml.parsers import expat

from unjam.core.errors import DocumentRejected
from unjam.pipeline.sections import Section

MAX_TOTAL_BYTES = 4 << 30
MAX_MEMBER_BYTES = 1 << 30
MAX_MEMBERS = 50_000
SUSPICIOUS_BYTES = 16 << 20
SUSPICIOUS_RATIO = 250
"""Deflate's limit is 1,032 : 1; the most repetitive sheets that people make stay below 100 : 1."""
MAX_DEPTH = 2_000
_READ_BYTES = 65_536


class Package:
    """A zip file whose directory was checked.

    Raises DocumentRejected: corrupt, encrypted, decompression_bomb.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise DocumentRejected(f"Not a whole zip package: {error}", code="corrupt") from None
        members = self._zip.infolist()
        self.names = {info.filename: info for info in members}
        total = sum(info.file_size for info in members)
        if total > MAX_TOTAL_BYTES or len(members) > MAX_MEMBERS:
            raise _bomb(f"{len(members)} members, {total >> 20} MiB unpacked")
        for info in members:
            if info.file_size > max(SUSPICIOUS_BYTES, info.compress_size * SUSPICIOUS_RATIO):
                raise _bomb(f"{info.filename[:80]} unpacks to {info.file_size >> 20} MiB")
            if info.flag_bits & 1:
                raise DocumentRejected("The package is password-protected.", code="encrypted")

    def close(self) -> None:
        self._zip.close()

    def __enter__(self) -> Package:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def open(self, name: str) -> IO[bytes]:
        info = self.names.get(name)
        if info is None:
            raise DocumentRejected(f"The package lacks its part {name}.", code="corrupt")
        if info.file_size > MAX_MEMBER_BYTES:
            raise _bomb(f"{name[:80]} unpacks to {info.file_size >> 20} MiB")
        try:
            return self._zip.open(info)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
            raise DocumentRejected(f"{name}: {error}", code="corrupt") from None

    def read(self, name: str, limit: int = 64 << 20) -> bytes:
        with self.open(name) as stream:
            data = b"".join(blocks(stream))
        if len(data) > limit:
            raise _bomb(f"{name[:80]} is larger than {limit >> 20} MiB")
        return data

    def relations(self, part: str) -> dict[str, str]:
        """Relation id → part name, from the part's ``.rels``; external targets left out."""
        folder, base = posixpath.split(part)
        name = posixpath.join(folder, "_rels", f"{base}.rels")
        found: dict[str, str] = {}
        if name not in self:
            return found
        for tag, attrs in elements(self, name):
            if tag == "Relationship" and attrs.get("TargetMode") != "External":
                target = attrs.get("Target", "")
                joined = target[1:] if target.startswith("/") else posixpath.join(folder, target)
                found[attrs.get("Id", "")] = posixpath.normpath(joined)
        return found


def _bomb(detail: str) -> DocumentRejected:
    return DocumentRejected(f"Unpacks to an absurd size: {detail}.", code="decompression_bomb")


def blocks(stream: IO[bytes]) -> Iterator[bytes]:
    try:
        while block := stream.read(_READ_BYTES):
            yield block
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DocumentRejected(f"The package is damaged: {error}", code="corrupt") from None


class Handler(Protocol):
    """What `drive` calls; names come without their namespace. Sections are left in *out*."""

    out: list[Section]

    def start(self, tag: str, attrs: dict[str, str]) -> None: ...
    def end(self, tag: str) -> None: ...
    def data(self, text: str) -> None: ...


def drive(package: Package, name: str, handler: Handler) -> Iterator[Section]:
    """Feed the part *name* to *handler* block by block; yields its sections as they come.

    Raises DocumentRejected: corrupt (not well-formed, too deep), decompression_bomb (it declares
    entities: no office program does, every "billion laughs" does).
    """
    parser = _parser(handler)
    with package.open(name) as stream:
        for block in blocks(stream):
            _feed(parser, block, name, final=False)
            if handler.out:
                yield from handler.out
                handler.out.clear()
    _feed(parser, b"", name, final=True)
    yield from handler.out
    handler.out.clear()


def _feed(parser: expat.XMLParserType, block: bytes, name: str, *, final: bool) -> None:
    try:
        parser.Parse(block, final)
    except expat.ExpatError as error:
        raise DocumentRejected(f"{name} is not well-formed: {error}", code="corrupt") from None


class _LocalNames(dict[str, str]):
    """``namespace name`` → ``name``, each split once."""

    def __missing__(self, name: str) -> str:
        short = self[name] = name.rpartition(" ")[2]
        return short


def _parser(handler: Handler) -> expat.XMLParserType:
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    local = _LocalNames()
    handler_start, handler_end = handler.start, handler.end
    depth = 0

    def start(tag: str, attrs: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise DocumentRejected("The XML is nested absurdly deep.", code="decompression_bomb")
        handler_start(local[tag], {local[key]: attrs[key] for key in attrs} if attrs else attrs)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        handler_end(local[tag])

    def entity(*_: object) -> None:
        raise DocumentRejected("The XML declares entities.", code="decompression_bomb")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = handler.data
    parser.EntityDeclHandler = entity
    return parser


class _Elements:
    def __init__(self) -> None:
        self.out: list[Section] = []
        self.found: list[tuple[str, dict[str, str]]] = []

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        self.found.append((tag, attrs))

    def end(self, tag: str) -> None: ...
    def data(self, text: str) -> None: ...


def elements(package: Package, name: str) -> list[tuple[str, dict[str, str]]]:
    """Every element of a small part with its attributes, in document order."""
    handler = _Elements()
    for _ in drive(package, name, handler):
        pass
    return handler.found
