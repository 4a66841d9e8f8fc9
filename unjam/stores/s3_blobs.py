"""S3Blobs: the originals in a bucket, content-addressed (law 2).

``<prefix>/ab/cd/<sha-256>/<upload id>``: **each upload is an object of its own**, and an original
exists while one of its uploads does. A bucket knows no lock, and a DELETE on its way cannot be
called back; so a removal names exactly those uploads that it saw and that are older than the
grace time. It can land as late as it likes: the same content uploaded meanwhile is another
object. What is surplus goes when the reconciler walks the store (``stored``).

An upload streams into a file of this host first and goes to the bucket when its hash is known, in
one request or in parts: nothing half is ever in the bucket under a name, nothing needs to be
copied inside it (bounded at 5 GB), a part that fails is sent again without the uploader, and the
file then serves as the local copy. ``commit`` returns after the store's answer; that is durable.

Ages are by the store's clock alone, so a host whose clock is wrong removes nothing too
early. ``<prefix>/.canary`` holds the id of the ledger whose originals these are.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast
from xml.etree import ElementTree

import httpx
import uuid_utils

from unjam.core.errors import DependencyDown, DocumentRejected, SetupError, UsageError
from unjam.core.ports import BlobWriter
from unjam.stores.blobs import LEFTOVER_S, REMOVE_GRACE_S, LocalWriter, is_digest
from unjam.stores.disk import guarded
from unjam.stores.local_copies import LocalCopies
from unjam.stores.s3_bucket import PART_BYTES, PARTS_AT_ONCE, Bucket
from unjam.stores.s3_leftovers import Leftovers
from unjam.stores.s3_place import S3Place

if TYPE_CHECKING:
    from obstore import ObjectMeta

SMALL_AT_ONCE, LARGE_AT_ONCE = 8, 2
"""Uploads in flight per process: so at most 8 x 8 + 2 x 4 x 8 = 128 MiB are in memory."""
CANARY = ".canary"
PARTS_EVERY_S = 3_600.0
PARTS_LEFT_S = 86_400.0
"""By then an upload that is under way has ended: ``Bucket.put_file`` gives a minute for each
32 MiB, so 45 GiB take less than a day."""

_log = logging.getLogger("unjam.originals")


class S3Blobs:
    """``core.ports.Blobs`` in a bucket of S3 or of a compatible server.

    Args:
        folder: for uploads under way and local copies; this host's own.
        cache_bytes: bound of the local copies.

    Raises:
        SetupError: the extra ``s3`` is not installed, or the CA file cannot be read.
    """

    def __init__(
        self,
        place: S3Place,
        folder: Path,
        *,
        cache_bytes: int,
        remove_grace_s: float = REMOVE_GRACE_S,
    ) -> None:
        self.place = place
        self._bucket = Bucket(place)
        self._spool = folder / "uploads"
        self._copies = LocalCopies(folder / "copies", cache_bytes)
        self._grace_s = remove_grace_s
        self._small = asyncio.Semaphore(SMALL_AT_ONCE)
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._ledger_id = ""
        self._known = True
        self._settled = False
        self._leftovers = Leftovers(place)
        self._parts_due = 0.0

    # -- whose originals these are
    async def settle(self, ledger_id: str, *, known: bool) -> None:
        """Mark the bucket as this ledger's, or verify that it is; *known*: the ledger has
        originals already, so the mark must be there. A bucket that is away is looked at later,
        before its first use.

        Raises:
            SetupError: it is another ledger's, or not the one that holds the originals.
        """
        self._ledger_id, self._known = ledger_id, known
        try:
            found = await self._mark()
        except DependencyDown:
            return
        if found != ledger_id:
            said = f"holds the originals of another ledger ({found})" if found else "holds none"
            raise SetupError(
                f"{self.place} is not where this ledger's originals are: it {said}",
                hint="Set RAG_STORAGE_URL to this ledger's bucket and prefix.",
            )
        self._settled = self._known = True

    async def _mark(self) -> str:
        """The ledger's id in the bucket; "" when it has none, and it must not be set."""
        try:
            return (await self._bucket.read(CANARY)).decode().strip()
        except FileNotFoundError:
            if self._known:
                return ""
        await self._bucket.put_new(CANARY, f"{self._ledger_id}\n".encode())
        try:  # of two processes that start at once, the other may have been first
            return (await self._bucket.read(CANARY)).decode().strip()
        except FileNotFoundError:
            return ""

    async def ping(self) -> None:
        """Raises DependencyDown (blob_store_down): the bucket is away, or is another one."""
        found = await self._mark()
        if found and found == (self._ledger_id or found):
            self._settled = self._known = True
            return
        raise self._bucket.down(
            "holds the originals of another ledger" if found else "holds no originals (emptied?)"
        )

    async def _ready(self) -> None:
        if not self._settled:
            await self.ping()

    # -- uploads
    async def create(self) -> LocalWriter:
        return LocalWriter(self._spool / f"up-{os.getpid()}-{uuid_utils.uuid7().hex}")

    async def commit(self, writers: Sequence[BlobWriter]) -> None:
        """One object per content; each ends in the bucket or raises, none is left in flight."""
        own = {w.digest(): w for w in cast("Sequence[LocalWriter]", writers)}
        if not own:
            return
        await self._ready()
        done = await asyncio.gather(
            *(self._send(digest, writer) for digest, writer in own.items()), return_exceptions=True
        )
        for failed in done:
            if failed is not None:
                raise failed
        for writer in cast("Sequence[LocalWriter]", writers):
            if own[writer.digest()] is not writer:
                await asyncio.to_thread(self._spare, writer)

    async def _send(self, digest: str, writer: LocalWriter) -> None:
        await asyncio.to_thread(self._seal, writer)
        key = f"{_folder(digest)}/{uuid_utils.uuid7().hex}"
        if writer.size_bytes <= PART_BYTES:
            async with self._small:
                await self._bucket.put(key, await asyncio.to_thread(self._read, writer))
        else:
            async with self._large:
                await self._bucket.put_file(key, writer.file, writer.size_bytes)
        await asyncio.to_thread(self._keep, digest, writer)

    def _seal(self, writer: LocalWriter) -> None:
        with guarded("an upload cannot be written"):
            writer.seal()

    def _spare(self, writer: LocalWriter) -> None:
        """Another of the same content went; this one still knows its digest."""
        self._seal(writer)
        writer.file.unlink(missing_ok=True)

    def _read(self, writer: LocalWriter) -> bytes:
        with guarded("an upload cannot be read back"):
            return writer.file.read_bytes()

    def _keep(self, digest: str, writer: LocalWriter) -> None:
        with guarded("local copies cannot be kept"):
            self._copies.add(writer.file, digest)
            self._copies.tidy()

    # -- reading
    async def path(self, content_hash: str) -> Path:
        _check(content_hash)
        copy = await asyncio.to_thread(self._find_copy, content_hash)
        if copy is not None:
            return copy
        await self._ready()
        for _ in range(2):  # twice: the upload may go while it is read, or be cut on its way
            uploads = await self._bucket.list(_folder(content_hash))
            if not uploads:
                await self.ping()  # away, or another bucket: then it is no missing document
                raise DocumentRejected(
                    f"the original {content_hash} is gone from {self.place}",
                    code="original_missing",
                )
            fetched = await self._fetch(content_hash, uploads[-1])
            if fetched is not None:
                return fetched
        raise DocumentRejected(
            f"the original {content_hash} in {self.place} is damaged: its bytes have another hash",
            code="original_missing",
        )

    def _find_copy(self, content_hash: str) -> Path | None:
        with guarded("local copies cannot be read"):
            self._copies.tidy()
            return self._copies.find(content_hash)

    async def _fetch(self, content_hash: str, upload: ObjectMeta) -> Path | None:
        """None: the upload went meanwhile, or its bytes are not those of its name."""
        with guarded("no local copy can be made"):
            half = await asyncio.to_thread(self._copies.half)
            try:
                with half.open("xb", buffering=0) as out:
                    sha = hashlib.sha256()
                    at, size = 0, upload["size"]
                    while at < size:
                        window = min(size, at + PART_BYTES * PARTS_AT_ONCE)
                        for block in await self._bucket.read_parts(upload["path"], at, window):
                            await asyncio.to_thread(_append, out.fileno(), sha.update, block)
                        at = window
                if sha.hexdigest() == content_hash:
                    return await asyncio.to_thread(self._copies.add, half, content_hash)
                return None
            except FileNotFoundError:
                return None
            finally:
                half.unlink(missing_ok=True)

    async def present(self, content_hashes: Sequence[str]) -> set[str]:
        for content_hash in content_hashes:
            _check(content_hash)
        await self._ready()

        async def look(content_hash: str) -> bool:
            async with self._small:
                return bool(await self._bucket.list(_folder(content_hash)))

        found = await asyncio.gather(*(look(h) for h in content_hashes))
        return {h for h, there in zip(content_hashes, found, strict=True) if there}

    # -- removing
    async def remove(self, content_hash: str) -> None:
        """Idempotent. What was uploaded again within the grace time stays, see the module."""
        _check(content_hash)
        await self._ready()
        uploads = await self._bucket.list(_folder(content_hash))
        if not uploads:
            return
        before = await self._bucket.now() - self._grace_s
        old = [o for o in uploads if o["last_modified"].timestamp() <= before]
        await self._bucket.delete([o["path"] for o in old])
        if len(old) == len(uploads):
            await asyncio.to_thread(self._drop_copy, content_hash)

    def _drop_copy(self, content_hash: str) -> None:
        with guarded("a local copy cannot be removed"):
            self._copies.drop(content_hash)

    # -- upkeep
    async def free_bytes(self) -> int:
        """Of the disk that uploads stream to; a bucket has no end."""
        return await asyncio.to_thread(self._free)

    def _free(self) -> int:
        with guarded("the disk of uploads cannot be asked"):
            self._spool.mkdir(parents=True, exist_ok=True, mode=0o700)
            facts = os.statvfs(self._spool)
            return facts.f_bavail * facts.f_frsize

    async def close(self) -> None:
        return None

    async def sweep(self, older_than_s: float = LEFTOVER_S) -> int:
        """This host's leftovers of killed uploads, and once an hour the bucket's own: parts whose
        upload was begun that long ago and never ended."""
        swept = await asyncio.to_thread(self._sweep, older_than_s)
        if self._leftovers.can and time.monotonic() >= self._parts_due:
            self._parts_due = time.monotonic() + PARTS_EVERY_S
            swept += await self._sweep_parts(max(older_than_s, PARTS_LEFT_S))
        return swept

    async def _sweep_parts(self, older_than_s: float) -> int:
        """The key may not be allowed to do so, and some servers cannot: it is no outage."""
        before, swept = await self._bucket.now() - older_than_s, 0
        try:
            for one in await self._leftovers.find():
                if one.begun_at <= before and self._is_ours(one.key):
                    await self._leftovers.end(one)
                    swept += 1
        except (httpx.HTTPError, OSError, ValueError, ElementTree.ParseError) as error:
            _log.info(
                "unfinished parts in %s are left to its life-cycle rule: %s",
                self.place,
                type(error).__name__,
            )
        return swept

    def _is_ours(self, key: str) -> bool:
        prefix = f"{self.place.prefix}/" if self.place.prefix else ""
        parts = key.removeprefix(prefix).split("/")
        ours = key.startswith(prefix) and len(parts) == 4 and is_digest(parts[2])
        return ours and key.startswith(f"{prefix}{_folder(parts[2])}/")

    def _sweep(self, older_than_s: float) -> int:
        before, swept = time.time() - older_than_s, 0
        with guarded("leftovers cannot be swept"):
            self._copies.tidy(now=True)
            for file in self._spool.glob("up-*"):
                try:
                    if file.stat().st_mtime <= before:
                        file.unlink()
                        swept += 1
                except FileNotFoundError:
                    continue
        return swept

    async def stored(self, part: int, older_than_s: float) -> dict[str, int]:
        """Part *n* are the hashes that begin with *n* in hex. Of an original with several uploads
        of that age only the newest is kept from here on."""
        await self._ready()
        before = await self._bucket.now() - older_than_s
        kept: dict[str, int] = {}
        for content_hash, several in (await self._part(part)).items():
            old = [o for o in several if o["last_modified"].timestamp() <= before]
            await self._bucket.delete([o["path"] for o in old if o is not several[-1]])
            if len(old) == len(several):
                kept[content_hash] = several[-1]["size"]
        return kept

    async def sizes(self, part: int) -> dict[str, int]:
        """As ``stored``, of any age; only looks."""
        await self._ready()
        return {h: several[-1]["size"] for h, several in (await self._part(part)).items()}

    async def _part(self, part: int) -> dict[str, list[ObjectMeta]]:
        """Uploads of each original, oldest first."""
        uploads: dict[str, list[ObjectMeta]] = {}
        for found in await self._bucket.list(f"{part:02x}"):
            content_hash = found["path"].split("/")[-2]
            if is_digest(content_hash) and found["path"].startswith(_folder(content_hash)):
                uploads.setdefault(content_hash, []).append(found)
        return uploads


def _folder(content_hash: str) -> str:
    return f"{content_hash[:2]}/{content_hash[2:4]}/{content_hash}"


def _check(content_hash: str) -> None:
    if not is_digest(content_hash):
        raise UsageError(f"{content_hash!r} is no sha-256")


def _append(fd: int, hashed: Callable[[bytes], None], block: bytes) -> None:
    hashed(block)
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]
