"""Blobs: durable, content-addressed, idempotent; one suite over folder, bucket and double."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.s3 import S3Server
from unjam.core.errors import DependencyDown, DocumentRejected, SetupError, UsageError
from unjam.core.ports import Blobs
from unjam.stores import disk
from unjam.stores.blobs import BUFFER_BYTES, LocalBlobs
from unjam.stores.memory import MemoryBlobs
from unjam.stores.s3_blobs import S3Blobs
from unjam.stores.s3_place import S3Place


@dataclass
class Place:
    """A store of originals that lasts, as several processes open it."""

    opened: Callable[[float], LocalBlobs | S3Blobs]
    elsewhere: Callable[[], LocalBlobs | S3Blobs]
    lose: Callable[[], None]
    uploads: Path
    """Where the first that is opened keeps uploads under way."""

    async def open(self, grace_s: float = 0.0) -> LocalBlobs | S3Blobs:
        made = self.opened(grace_s)
        await made.settle("ledger-1", known=False)
        return made


def in_folder(tmp_path: Path) -> Place:
    root = tmp_path / "blobs"
    return Place(
        lambda grace_s: LocalBlobs(root, remove_grace_s=grace_s),
        lambda: LocalBlobs(tmp_path / "elsewhere"),
        lambda: (root / ".canary").unlink(),
        root / "tmp",
    )


def in_bucket(tmp_path: Path, server: S3Server) -> Place:
    url, hosts = server.url(), itertools.count()

    def opened(grace_s: float, url: str = url) -> S3Blobs:
        """Each as on a host of its own: no local copy of another's upload."""
        folder = tmp_path / f"host-{next(hosts)}"
        return S3Blobs(S3Place.parse(url), folder, cache_bytes=1 << 30, remove_grace_s=grace_s)

    return Place(
        opened,
        lambda: opened(0.0, server.url()),
        lambda: (server.objects(url) / ".canary").unlink(),
        tmp_path / "host-0" / "uploads",
    )


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return in_folder(tmp_path)
    return in_bucket(tmp_path, request.getfixturevalue("s3_server"))


@pytest.fixture(params=["folder", "bucket", "memory"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "memory":
        return MemoryBlobs()
    if request.param == "folder":
        return await in_folder(tmp_path).open()
    return await in_bucket(tmp_path, request.getfixturevalue("s3_server")).open()


@pytest.fixture
def local(tmp_path: Path) -> LocalBlobs:
    blobs = LocalBlobs(tmp_path / "blobs", remove_grace_s=0)
    blobs.claim_root("ledger-1")
    return blobs


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def put(blobs: Blobs, *contents: bytes) -> list[str]:
    writers = []
    for data in contents:
        writer = await blobs.create()
        await writer.write(data)
        writers.append(writer)
    await blobs.commit(writers)
    return [w.digest() for w in writers]


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
async def test_what_goes_in_comes_out(blobs: Blobs, size: int) -> None:
    data = os.urandom(size)
    writer = await blobs.create()
    for start in range(0, size, 100_000):
        await writer.write(data[start : start + 100_000])
    assert writer.size_bytes == size
    assert writer.head == data[:65_536]
    assert writer.digest() == sha(data)
    assert not await blobs.present([sha(data)])
    await blobs.commit([writer])
    assert writer.digest() == sha(data)
    assert await blobs.present([sha(data)]) == {sha(data)}
    assert (await blobs.path(sha(data))).read_bytes() == data


async def test_another_process_reads_it(place: Place) -> None:
    one, other = await place.open(), await place.open()
    contents = [b"", b"short", os.urandom(200_000)]
    for content_hash, data in zip(await put(one, *contents), contents, strict=True):
        assert await other.present([content_hash])
        assert (await other.path(content_hash)).read_bytes() == data


async def test_the_same_content_twice(blobs: Blobs) -> None:
    assert await put(blobs, b"a", b"a") == [sha(b"a")] * 2
    assert await put(blobs, b"a") == [sha(b"a")]
    assert (await blobs.path(sha(b"a"))).read_bytes() == b"a"


@pytest.mark.parametrize("count", [1, 3, 20])
async def test_many_at_once(blobs: Blobs, count: int) -> None:
    contents = [f"text {n}".encode() for n in range(count)]
    hashes = await put(blobs, *contents)
    for content_hash, data in zip(hashes, contents, strict=True):
        assert (await blobs.path(content_hash)).read_bytes() == data


async def test_a_missing_one_fails_alone_among_those_asked_for_together(blobs: Blobs) -> None:
    (present,) = await put(blobs, b"here")
    absent = "f" * 64
    asked = (blobs.path(h) for h in (present, absent, present))
    first, missing, last = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(first, Path)
    assert first == last
    assert isinstance(missing, DocumentRejected)
    assert missing.code == "original_missing"


async def test_remove_is_idempotent(blobs: Blobs) -> None:
    (content_hash,) = await put(blobs, b"a")
    await blobs.remove(content_hash)
    await blobs.remove(content_hash)
    assert not await blobs.present([content_hash])
    with pytest.raises(DocumentRejected) as caught:
        await blobs.path(content_hash)
    assert caught.value.code == "original_missing"


async def test_abort_leaves_nothing(place: Place) -> None:
    blobs = await place.open()
    writer = await blobs.create()
    await writer.write(b"x" * 2_000_000)
    await writer.abort()
    await writer.abort()
    assert list(place.uploads.iterdir()) == []
    assert not await blobs.present([writer.digest()])


async def test_a_small_upload_that_is_given_up_never_was_a_file(local: LocalBlobs) -> None:
    writer = await local.create()
    await writer.write(b"known already")
    assert list(local.root.rglob("up-*")) == []
    await writer.abort()
    with pytest.raises(UsageError):
        await writer.write(b"x" * BUFFER_BYTES)
    assert list(local.root.rglob("up-*")) == []


async def test_abort_after_commit_is_harmless(blobs: Blobs) -> None:
    writer = await blobs.create()
    await writer.write(b"a")
    await blobs.commit([writer])
    await writer.abort()
    assert (await blobs.path(sha(b"a"))).exists()
    assert await blobs.free_bytes() > 0


async def test_stored_lists_one_part_by_age(place: Place) -> None:
    blobs = await place.open()
    hashes = await put(blobs, b"one", b"two!", b"one")
    parts = [await blobs.stored(int(h[:2], 16), 0.0) for h in hashes[:2]]
    assert parts[0][hashes[0]] == 3 and parts[1][hashes[1]] == 4
    assert await blobs.stored(int(hashes[0][:2], 16), 3600.0) == {}
    await blobs.remove(hashes[0])
    assert hashes[0] not in await blobs.stored(int(hashes[0][:2], 16), 0.0)


# -- what outlives a process -----------------------------------------------------------------
async def test_names_never_become_paths(place: Place) -> None:
    blobs = await place.open()
    for name in ("../../etc/passwd", "a" * 63, "A" * 64, "", "/" * 64):
        for ask in (blobs.path, blobs.remove, lambda name: blobs.present([name])):
            with pytest.raises(UsageError):
                await ask(name)


async def test_a_missing_store_is_not_a_missing_document(place: Place) -> None:
    await place.open()
    place.lose()
    again = place.opened(0.0)
    with pytest.raises(DependencyDown) as caught:
        await again.path("0" * 64)
    assert caught.value.code == "blob_store_down"


async def test_a_place_belongs_to_one_ledger(place: Place) -> None:
    await place.open()
    await place.opened(0.0).settle("ledger-1", known=True)
    with pytest.raises(SetupError):
        await place.opened(0.0).settle("ledger-2", known=False)
    with pytest.raises(SetupError):
        await place.elsewhere().settle("ledger-1", known=True)


async def test_a_file_uploaded_again_just_now_stays(place: Place) -> None:
    careful = await place.open(60.0)
    (content_hash,) = await put(careful, b"a")
    await careful.remove(content_hash)
    assert await careful.present([content_hash])


async def test_sweep_takes_old_leftovers_only(place: Place) -> None:
    blobs = await place.open()
    old, young = await blobs.create(), await blobs.create()
    for writer in (old, young):
        await writer.write(b"x" * BUFFER_BYTES)
    hour_ago = time.time() - 4_000
    os.utime(old.file, (hour_ago, hour_ago))
    assert await blobs.sweep() == 1
    assert not old.file.exists()
    assert young.file.exists()
    await young.abort()


async def test_ping_tells_a_place_that_is_away(place: Place) -> None:
    blobs = await place.open()
    await blobs.ping()
    place.lose()
    with pytest.raises(DependencyDown) as caught:
        await blobs.ping()
    assert caught.value.code == "blob_store_down"


async def test_ping_of_the_double(tmp_path: Path) -> None:
    await MemoryBlobs().ping()


# -- the folder ------------------------------------------------------------------------------
async def test_bytes_are_synced_before_they_are_named(
    local: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that makes a power cut harmless: bytes, rename, folder."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(fd: int) -> None:
        steps.append("sync " + Path(f"/proc/self/fd/{fd}").readlink().name[:2])
        fsync(fd)

    def spy_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    (content_hash,) = await put(local, b"a")
    inner, outer, root = content_hash[2:4], content_hash[:2], local.root.name[:2]
    assert steps[:2] == ["sync up", "rename"]
    assert sorted(steps[2:]) == sorted([f"sync {inner}", f"sync {outer}", f"sync {root}"])


async def test_full_disk(local: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = await local.create()
    await writer.write(b"a")
    monkeypatch.setattr(disk, "sync_file", full)
    with pytest.raises(DependencyDown) as caught:
        await local.commit([writer])
    assert caught.value.code == "blob_store_down"
    assert not await local.present([sha(b"a")])
