"""BulkSource: where a back-fill reads from: a folder or a prefix in S3, files or rows of texts.

A *part* is a file of rows (JSONL, Parquet) or some hundred files; parts are read independently,
by whoever has time. Nothing is kept between them, so a source may be shared over processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from unjam.core.errors import SetupError, UsageError
from unjam.stores.s3_place import SCHEME, S3Place

Kind = Literal["files", "jsonl", "parquet"]

FILES_A_PART = 200
_KINDS: dict[str, Kind] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_UNFINISHED = (".part", ".crdownload", ".tmp", ".swp", "~")


@dataclass(frozen=True, slots=True)
class Part:
    """Some files, or one file of rows; *names* are relative to the source."""

    kind: Kind
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BulkSource:
    """*root*: a folder, or an ``s3://`` URL with its options; *only*: one name below it, or "".

    Raises UsageError when something in it cannot be read.
    """

    root: str
    only: str = ""

    @staticmethod
    def at(where: str) -> BulkSource:
        """What a person names: a file, a folder, or ``s3://bucket/prefix``.

        Raises:
            UsageError: it does not exist, or is no such URL.
        """
        if where.startswith(SCHEME):
            url, mark, options = where.partition("?")
            above, _, name = url.rstrip("/").rpartition("/")
            if _kind_of(name) != "files" and above.count("/") >= 2:
                source = BulkSource(above + mark + options, name)
            else:
                source = BulkSource(where)
            source._place()
            return source
        path = Path(where.removeprefix("file://")).expanduser().absolute()
        if path.is_dir():
            return BulkSource(str(path))
        if path.is_file():
            return BulkSource(str(path.parent), path.name)
        raise UsageError(
            f"{where}: no such file or folder",
            code="unreadable_file",
            hint="Name a folder, a JSONL or Parquet file, or s3://bucket/prefix.",
        )

    def parts(self, kind: Kind | None = None) -> Iterator[Part]:
        """All of it; *kind* None: each file by its ending. Hidden and unfinished files are left
        out."""
        some: list[str] = []
        for name in [self.only] if self.only else self._names():
            found = kind or _kind_of(name)
            if found != "files":
                yield Part(found, (name,))
                continue
            some.append(name)
            if len(some) == FILES_A_PART:
                yield Part("files", tuple(some))
                some = []
        if some:
            yield Part("files", tuple(some))

    def shown(self, name: str) -> str:
        """*name* as a person finds it again."""
        if not self._is_s3:
            return str(Path(self.root) / name)
        return f"{self._place()}/{name}"

    def open(self, name: str) -> IO[bytes]:
        """Reads on as it is asked to; close it."""
        try:
            if not self._is_s3:
                return (Path(self.root) / name).open("rb")
            import obstore

            return cast("IO[bytes]", _Remote(obstore.open_reader(self._place().open(), name)))
        except SetupError:
            raise
        except Exception as error:
            raise self._unreadable(name, error) from error

    # -- inside -----------------------------------------------------------------------------
    @property
    def _is_s3(self) -> bool:
        return self.root.startswith(SCHEME)

    def _place(self) -> S3Place:
        try:
            return S3Place.parse(self.root)
        except SetupError as error:
            raise UsageError(
                error.detail.replace("RAG_STORAGE_URL", "the source"), hint=error.hint
            ) from None

    def _names(self) -> Iterator[str]:
        if self._is_s3:
            yield from self._objects()
            return
        for place, folders, names in os.walk(self.root):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            for name in sorted(n for n in names if _wanted(n)):
                path = Path(place) / name
                if path.is_file():
                    yield str(path.relative_to(self.root))

    def _objects(self) -> Iterator[str]:
        place = self._place()
        try:
            import obstore

            for page in obstore.list(place.open()):
                for found in page:
                    name = found["path"]
                    if found["size"] and all(_wanted(n) for n in name.split("/")):
                        yield name
        except SetupError:
            raise
        except Exception as error:
            raise self._unreadable("", error) from error

    def _unreadable(self, name: str, error: Exception) -> UsageError:
        why = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        return UsageError(f"{self.shown(name)}: {why}", code="unreadable_file")


class _Remote:
    """obstore's reader with the few words that files have beside its own."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        return bytes(self._reader.read(None if size < 0 else size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def __iter__(self) -> Iterator[bytes]:
        while line := bytes(self._reader.readline()):
            yield line

    def __enter__(self) -> _Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True
        self._reader.close()


def tables_of(source: BulkSource, name: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, with those of *columns* that it has.

    Raises:
        SetupError: pyarrow is not installed. UsageError: it cannot be read.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise SetupError(
            "Parquet needs one more package", hint="Install it with: pip install 'unjam[parquet]'"
        ) from None
    parquet: Any = pq
    with source.open(name) as file:
        try:
            table = parquet.ParquetFile(file)
            there = set(table.schema_arrow.names)
            if columns[0] not in there:
                raise UsageError(
                    f"{source.shown(name)}: no column {columns[0]!r}; it has "
                    + ", ".join(sorted(there)),
                    code="unreadable_file",
                    hint="Name the column of the texts with --text-field.",
                )
            wanted = [c for c in columns if c in there]
            for batch in table.iter_batches(batch_size=500, columns=wanted):
                yield from batch.to_pylist()
        except UsageError:
            raise
        except Exception as error:
            why = str(error).partition("\n")[0][:300]
            raise UsageError(f"{source.shown(name)}: {why}", code="unreadable_file") from error


def _kind_of(name: str) -> Kind:
    return _KINDS.get(Path(name).suffix.lower(), "files")


def _wanted(name: str) -> bool:
    return not name.startswith((".", "~$")) and not name.endswith(_UNFINISHED)
