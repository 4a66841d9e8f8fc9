"""LocalBlobs: the originals, content-addressed, in one folder (law 2).

``<root>/ab/cd/<sha-256>``. An upload is a file in ``<root>/tmp`` until ``commit``: fsync of the
bytes, rename, fsync of the folders; then it is there for good. A small one is made durable by the
journal (``blob_journal``), which spares it these. No name of a user ever becomes a
path. ``<root>/.canary`` holds the id of the ledger whose folder this is: without it a missing
file means that the store is away, not that the document is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from unjam.core.coalesce import Coalescer
from unjam.core.errors import DocumentRejected, SetupError, UnjamError, UsageError
from unjam.core.ports import BlobWriter
from unjam.stores.blob_journal import RECORD_BYTES, BlobJournal, Record, replay
from unjam.stores.disk import down, guarded, is_there, sync_file, sync_files

HEAD_BYTES = 65_536
BUFFER_BYTES = 262_144
"""What a writer keeps in memory before it goes to a thread to hash and write. A smaller upload
becomes a file only when it is committed: bytes that are stored already never do."""
REMOVE_GRACE_S = 60.0
"""``remove`` leaves a younger file alone: it was just uploaded again, and its new reference may
not stand in the ledger yet."""
LEFTOVER_S = 3_600.0
_DIGITS = frozenset("0123456789abcdef")


class LocalBlobs:
    """``core.ports.Blobs`` in a folder. Several processes may share it, also over a network;
    *journal* then must be off, see ``blob_journal``."""

    def __init__(
        self, root: Path, *, remove_grace_s: float = REMOVE_GRACE_S, journal: bool = True
    ) -> None:
        self.root = root
        self._tmp = root / "tmp"
        self._grace_s = remove_grace_s
        self._looks = Coalescer(self._look, max_weight=256)
        self._journal = BlobJournal(root) if journal else None

    async def settle(self, ledger_id: str, *, known: bool) -> None:
        """``claim_root`` for a new ledger; once it has originals (*known*), ``require_root``: a
        further host whose folder is not the shared one must not begin a second store. Then make
        whole what a dead machine left in the journal."""
        settle = self.require_root if known else self.claim_root
        await asyncio.to_thread(settle, ledger_id)
        await asyncio.to_thread(self._replay)

    def _replay(self) -> None:
        with guarded("its journal cannot be read"):
            replay(self.root, self._restore)

    def _restore(self, content_hash: str, data: bytes) -> bool:
        target = self._place(content_hash)
        if is_there(target) and target.read_bytes() == data:
            return False
        half = self._tmp / f"journal-{secrets.token_hex(8)}"
        half.write_bytes(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        half.replace(target)
        return True

    def claim_root(self, ledger_id: str) -> None:
        """Blocking. Mark the folder as this ledger's, or verify that it is. Call once at start.

        Raises:
            SetupError: it belongs to another ledger, or this host sees another folder.
            DependencyDown: blob_store_down.
        """
        with guarded("its folder cannot be prepared"):
            self._tmp.mkdir(parents=True, exist_ok=True)
            found = self._claim(ledger_id)
        if found != ledger_id:
            raise SetupError(
                f"{self.root} holds the originals of another ledger ({found})",
                hint="Set RAG_STORAGE_URL to this ledger's folder.",
            )

    def _claim(self, ledger_id: str) -> str:
        canary = self.root / ".canary"
        if canary.exists():
            return canary.read_text().strip()
        half = self._tmp / f"canary-{secrets.token_hex(8)}"
        half.write_text(ledger_id + "\n")
        sync_file(half)
        with contextlib.suppress(FileExistsError):  # two processes start at once: the first wins
            os.link(half, canary)
        half.unlink()
        sync_file(self.root)
        return canary.read_text().strip()

    def require_root(self, ledger_id: str) -> None:
        """Blocking. For a further host, once the ledger knows of originals: never creates.

        Raises:
            SetupError: this host sees a folder without the ledger's mark, so it is not shared.
        """
        canary = self.root / ".canary"
        if not canary.exists() or canary.read_text().strip() != ledger_id:
            raise SetupError(
                f"{self.root} on this host is not the folder that the other hosts use",
                hint="Mount the shared storage folder here, or set RAG_STORAGE_URL to it.",
            )

    async def create(self) -> LocalWriter:
        return LocalWriter(self._tmp / f"up-{os.getpid()}-{secrets.token_hex(8)}")

    async def commit(self, writers: Sequence[BlobWriter]) -> None:
        own = cast("Sequence[LocalWriter]", writers)
        if own:
            await asyncio.to_thread(self._commit, own)

    def _commit(self, writers: Sequence[LocalWriter]) -> None:
        with guarded("uploads cannot be made durable"):
            small = [(w, record) for w in writers if (record := w.record()) is not None]
            for writer in writers:
                writer.seal()
            kept = self._journalled(small) if small else set()
            self._synced([w for w in writers if w not in kept])

    def _journalled(self, small: Sequence[tuple[LocalWriter, Record]]) -> set[LocalWriter]:
        """Those that are in place now and durable, by the journal."""
        if self._journal is None or not self._journal.has_room([r for _, r in small]):
            return set()
        placed: dict[LocalWriter, tuple[Path, Record]] = {}
        with self._locked(fcntl.LOCK_SH):
            for writer, record in small:
                target = self._place(writer.digest())
                target.parent.mkdir(parents=True, exist_ok=True)
                # Not over a file that is durable perhaps: it would be replaced by one that is not.
                with contextlib.suppress(FileExistsError):
                    os.link(writer.file, target)
                    writer.file.unlink()
                    placed[writer] = target, record
        if placed and not self._journal.keep([record for _, record in placed.values()]):
            targets = [target for target, _ in placed.values()]
            sync_files(self.root, targets)
            self._sync_folders(targets)
        return set(placed)

    def _synced(self, writers: Sequence[LocalWriter]) -> None:
        if not writers:
            return
        sync_files(self._tmp, [w.file for w in writers])
        targets = [self._place(w.digest()) for w in writers]
        with self._locked(fcntl.LOCK_SH):
            for writer, target in zip(writers, targets, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                writer.file.replace(target)
        self._sync_folders(targets)

    def _sync_folders(self, targets: Sequence[Path]) -> None:
        """Both levels, even if they were there: who made them may not have come to it yet."""
        folders = {self.root, *(t.parent for t in targets), *(t.parent.parent for t in targets)}
        sync_files(self.root, sorted(folders, reverse=True))

    async def close(self) -> None:
        if self._journal is not None:
            await asyncio.to_thread(self._journal.close)

    async def path(self, content_hash: str) -> Path:
        target = await self._looks.put(self._place(content_hash))
        if isinstance(target, UnjamError):
            raise target
        return target

    async def _look(self, targets: Sequence[Path]) -> Sequence[Path | UnjamError]:
        """One thread for all documents that begin at the same moment."""

        def look() -> list[Path | UnjamError]:
            found: list[Path | UnjamError] = []
            for target in targets:
                try:
                    found.append(self._path(target))
                except UnjamError as error:
                    found.append(error)
            return found

        return await asyncio.to_thread(look)

    def _path(self, target: Path) -> Path:
        with guarded("an original cannot be read"):
            if is_there(target):
                return target
            if is_there(self.root / ".canary"):
                raise DocumentRejected(
                    f"the original {target.name} is gone from {self.root}",
                    code="original_missing",
                )
        raise down(f"{self.root} is not the folder of the originals (not mounted?)")

    async def present(self, content_hashes: Sequence[str]) -> set[str]:
        targets = [self._place(h) for h in content_hashes]

        def look() -> set[str]:
            with guarded("originals cannot be looked up"):
                return {target.name for target in targets if is_there(target)}

        return await asyncio.to_thread(look)

    async def remove(self, content_hash: str) -> None:
        """Idempotent. A file uploaded again within the grace time stays; see REMOVE_GRACE_S."""
        await asyncio.to_thread(self._remove, self._place(content_hash))

    def _remove(self, target: Path) -> None:
        with guarded("an original cannot be removed"), self._locked(fcntl.LOCK_EX):
            try:
                age_s = time.time() - target.stat().st_ctime
            except FileNotFoundError:
                return
            if age_s >= self._grace_s:
                target.unlink()
                sync_file(target.parent)

    async def free_bytes(self) -> int:
        def ask() -> int:
            with guarded("its disk cannot be asked"):
                facts = os.statvfs(self.root)
                return facts.f_bavail * facts.f_frsize

        return await asyncio.to_thread(ask)

    async def ping(self) -> None:
        """Raises DependencyDown (blob_store_down): the folder is away, or is another one."""
        await asyncio.to_thread(self._ping)

    def _ping(self) -> None:
        with guarded("its folder cannot be read"):
            if is_there(self.root / ".canary"):
                return
        raise down(f"{self.root} is not the folder of the originals (not mounted?)")

    async def sweep(self, older_than_s: float = LEFTOVER_S) -> int:
        """Remove what killed uploads left behind; how many files that were."""
        return await asyncio.to_thread(self._sweep, older_than_s)

    def _sweep(self, older_than_s: float) -> int:
        before = time.time() - older_than_s
        swept = 0
        with guarded("leftovers cannot be swept"):
            for file in self._tmp.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if file.stat().st_mtime <= before:
                        file.unlink()
                        swept += 1
        return swept

    async def stored(self, part: int, older_than_s: float) -> dict[str, int]:
        """Part *n* is the folder of hashes that begin with *n* in hex."""
        return await asyncio.to_thread(self._stored, self.root / f"{part:02x}", older_than_s)

    def _stored(self, folder: Path, older_than_s: float) -> dict[str, int]:
        before = time.time() - older_than_s
        found: dict[str, int] = {}
        with guarded("originals cannot be listed"):
            for file in folder.glob("*/*"):
                with contextlib.suppress(FileNotFoundError):
                    facts = file.stat()
                    # An upload renews the change time of what was there already.
                    if facts.st_ctime <= before and self._is_ours(file):
                        found[file.name] = facts.st_size
        return found

    def _is_ours(self, file: Path) -> bool:
        name = file.name
        return is_digest(name) and self._place(name) == file

    def _place(self, content_hash: str) -> Path:
        if not is_digest(content_hash):
            raise UsageError(f"{content_hash!r} is no sha-256")
        return self.root / content_hash[:2] / content_hash[2:4] / content_hash

    @contextmanager
    def _locked(self, mode: int) -> Generator[None]:
        """Renames share, removals exclude: a removal never hits a file that was just renewed."""
        fd = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, mode)
            yield
        finally:
            os.close(fd)


class LocalWriter:
    """One upload; at most BUFFER_BYTES of it in memory."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._out: BinaryIO | None = None
        self._sealed = False
        self._sha = hashlib.sha256()
        self._buffer = bytearray()
        self._head = b""
        self._size = 0

    async def write(self, data: bytes) -> None:
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        self._size += len(data)
        self._buffer += data
        if len(self._buffer) >= BUFFER_BYTES:
            await asyncio.to_thread(self._drain)

    def _drain(self) -> None:
        if self._sealed:
            raise UsageError("the upload is finished already")
        block, self._buffer = self._buffer, bytearray()
        self._sha.update(block)
        view = memoryview(block)
        with guarded("an upload cannot be written"):
            if self._out is None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                self._out = self.file.open("xb", buffering=0)
            while view:
                view = view[self._out.write(view) :]

    @property
    def size_bytes(self) -> int:
        return self._size

    @property
    def head(self) -> bytes:
        return self._head

    def digest(self) -> str:
        # What is still buffered is less than BUFFER_BYTES: a millisecond.
        sha = self._sha.copy()
        sha.update(self._buffer)
        return sha.hexdigest()

    def record(self) -> Record | None:
        """All of it, while it is small and no file yet."""
        if self._sealed or self._out is not None or len(self._buffer) > RECORD_BYTES:
            return None
        return bytes.fromhex(self.digest()), bytes(self._buffer)

    def seal(self) -> None:
        """Blocking. Everything is handed to the kernel; nothing more can be written."""
        if not self._sealed and (self._buffer or self._out is None):
            self._drain()
        self._sealed = True
        self._close()

    async def abort(self) -> None:
        """Leave nothing behind. Idempotent, and harmless after ``commit``."""
        begun = self._out is not None or self._sealed
        self._sealed = True
        self._buffer.clear()
        if begun:
            await asyncio.to_thread(self._discard)

    def _discard(self) -> None:
        self._close()
        with contextlib.suppress(OSError):
            self.file.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._out is not None:
            self._out.close()
            self._out = None


def is_digest(name: str) -> bool:
    """Whether *name* is a sha-256 as ``digest`` writes it."""
    return len(name) == 64 and _DIGITS.issuperset(name)
