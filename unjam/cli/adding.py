"""``unjam add``: files, folders and stdin to the server, over several connections."""

from __future__ import annotations

import glob
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unjam._wire import groups_of
from unjam.cli.lang import t
from unjam.client import Client, Document
from unjam.core.errors import NotNow, UnjamError, UsageError

TRIES = 6
"""Uploads that were answered "not now" are repeated this often in all."""
_UNFINISHED = (".part", ".crdownload", ".tmp", ".swp", "~")
_POLL_AT_ONCE = 64
"""A little more than are worked on at a time."""


@dataclass(frozen=True, slots=True)
class Added:
    """One file's outcome: a document, or why there is none."""

    path: str
    document: Document | None
    error: UnjamError | None = None


@dataclass(slots=True)
class Found:
    """What the command line names."""

    files: list[str] = field(default_factory=list[str])
    folders: list[str] = field(default_factory=list[str])
    errors: list[Added] = field(default_factory=list[Added])


# -- finding ----------------------------------------------------------------------------------
def find(arguments: Iterable[str]) -> Found:
    """Files by name, by pattern (also quoted ones, ``**`` included) and in folders."""
    found = Found()
    for argument in arguments:
        if os.path.isdir(argument):  # noqa: PTH112 - names in odd bytes stay as they are
            found.folders.append(argument)
            found.files += walk(argument)
        elif os.path.lexists(argument) or not glob.has_magic(argument):
            found.files.append(argument)
        else:
            matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
            if not matches:
                found.errors.append(_failed(argument, t("matches no file", "맞는 파일이 없습니다")))
            for match in matches:
                found.files += walk(match) if os.path.isdir(match) else [match]  # noqa: PTH112
    found.files = list(dict.fromkeys(found.files))
    return found


def walk(folder: str) -> Iterator[str]:
    """Every regular file below *folder*, hidden ones and unfinished downloads left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = os.path.join(place, name)  # noqa: PTH118
            if wanted(name) and os.path.isfile(path):  # noqa: PTH113
                yield path


def wanted(name: str) -> bool:
    return not name.startswith((".", "~$")) and not name.endswith(_UNFINISHED)


def _failed(path: str, detail: str) -> Added:
    return Added(path, None, UsageError(f"{path}: {detail}", code="unreadable_file"))


# -- sending ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Sender:
    """How files go up."""

    client: Client
    user_id: str = ""
    metadata: Mapping[str, Any] | None = None
    connections: int = 8
    stop: threading.Event = field(default_factory=threading.Event)

    def send(self, files: Sequence[str], on_each: Callable[[Added], None]) -> None:
        """Upload all; *on_each* is called in this thread, in no particular order.

        Small files share requests, one connection each at a time; only a few requests are
        prepared ahead, however many files there are.

        Raises:
            DependencyDown: no server answers at all.
        """
        groups = groups_of(files)
        with ThreadPoolExecutor(self.connections) as pool:
            try:
                running = {pool.submit(self._group, g) for g in _take(groups, self.connections)}
                while running:
                    done = next(as_completed(running))
                    running.discard(done)
                    for added in done.result():
                        on_each(added)
                    running |= {pool.submit(self._group, g) for g in _take(groups, 1)}
            except BaseException:
                self.stop.set()
                raise

    def _group(self, group: Sequence[Any]) -> list[Added]:
        paths = [str(p) for p in group]
        try:
            documents = self._patiently(lambda: self._many(paths))
            return [Added(p, d) for p, d in zip(paths, documents, strict=True)]
        except NotNow:
            raise
        except UnjamError as error:
            if len(paths) == 1:
                return [Added(paths[0], None, error)]
            # One of them is unfit: send each alone, so that only that one is refused.
            return [added for p in paths for added in self._group([p])]

    def _many(self, paths: Sequence[str]) -> list[Document]:
        return self.client.add_many(paths, user_id=self.user_id, metadata=self.metadata)

    def _patiently(self, call: Callable[[], list[Document]]) -> list[Document]:
        """Repeat what was answered "not now"; uploading the same bytes twice is once."""
        for tried in range(1, TRIES + 1):
            try:
                return call()
            except NotNow as error:
                if tried == TRIES or (error.code == "api_down" and tried > 2):
                    raise
                if self.stop.wait(min(30.0, error.retry_after_s)):
                    raise
        raise AssertionError("unreachable")


def _take(groups: Iterator[list[Any]], count: int) -> list[list[Any]]:
    taken: list[list[Any]] = []
    for group in groups:
        taken.append(group)
        if len(taken) == count:
            break
    return taken


def send_stdin(sender: Sender, filename: str) -> Added:
    document = sender.client.add(
        sys.stdin.buffer, filename=filename, user_id=sender.user_id, metadata=sender.metadata
    )
    return Added(filename, document)


# -- waiting ----------------------------------------------------------------------------------
def wait_all(
    client: Client,
    document_ids: Iterable[str],
    on_end: Callable[[Document, int], None],
    *,
    timeout_s: float = float("inf"),
) -> list[str]:
    """Until all have ended; *on_end* gets each with the number of those ended so far.

    Looks at the oldest few only: documents end about in order, so the cost of waiting does not
    grow with the backlog. Survives a restart of the server. The ids still open at the end come
    back.
    """
    waiting = list(dict.fromkeys(document_ids))
    ended, pause_s, deadline = 0, 0.1, time.monotonic() + timeout_s
    while waiting and time.monotonic() < deadline:
        still: list[str] = []
        moved = False
        try:
            seen = client.get_many(waiting[:_POLL_AT_ONCE])
        except NotNow:
            seen = {}
        for document_id in waiting[:_POLL_AT_ONCE]:
            document = seen.get(document_id)
            if document is not None and document.ended:
                ended, moved = ended + 1, True
                on_end(document, ended)
            else:
                still.append(document_id)
        # Those that take long go to the back, so that a slow one does not hide the quick.
        waiting = waiting[_POLL_AT_ONCE:] + still
        pause_s = 0.1 if moved else min(1.0, pause_s * 1.5)
        if waiting and still:
            time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
    return waiting


# -- watching ---------------------------------------------------------------------------------
def watch(
    sender: Sender,
    folders: Sequence[str],
    known: dict[str, str],
    on_each: Callable[[Added], None],
) -> None:
    """Add what appears or changes in *folders*, until interrupted.

    *known* maps path → document id: a file that changed becomes a new generation of its
    document. Removed files stay searchable: a watch never deletes.
    """
    from watchfiles import Change, watch

    caught_up = False
    options: Any = {"debounce": 1000, "step": 200, "rust_timeout": 500, "yield_on_timeout": True}
    for changes in watch(*folders, raise_interrupt=True, **options):
        paths = {p for change, p in changes if change is not Change.deleted}
        if not caught_up:
            # What appeared between the first look at the folders and the start of the watch.
            caught_up = True
            paths |= {p for f in folders for p in walk(f) if os.path.realpath(p) not in known}
        for path in sorted(paths):
            if _is_ours(path, folders) and _settled(path):
                on_each(_put(sender, path, known))


def _put(sender: Sender, path: str, known: dict[str, str]) -> Added:
    document_id = known.get(os.path.realpath(path))
    try:
        if document_id is not None:
            try:
                return Added(path, sender.client.replace(document_id, path))
            except UnjamError as error:
                if error.code not in ("not_found", "conflict"):
                    raise
        added = sender.client.add(path, user_id=sender.user_id, metadata=sender.metadata)
        known[os.path.realpath(path)] = added.id
        return Added(path, added)
    except UnjamError as error:
        return Added(path, None, error)


def _is_ours(path: str, folders: Sequence[str]) -> bool:
    """A regular file, with no hidden part below the folder that is watched."""
    for folder in folders:
        try:
            below = Path(path).absolute().relative_to(Path(folder).absolute())
        except ValueError:
            continue
        return Path(path).is_file() and all(wanted(part) for part in below.parts)
    return False


def _settled(path: str, patience_s: float = 10.0) -> bool:
    """Whether the file has stopped growing: half a second without a change."""
    deadline = time.monotonic() + patience_s
    before: tuple[int, int] | None = None
    while time.monotonic() < deadline:
        try:
            status = Path(path).stat()
        except OSError:
            return False
        now = (status.st_size, status.st_mtime_ns)
        if now == before:
            return True
        before = now
        time.sleep(0.5)
    return True
