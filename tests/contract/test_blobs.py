"""Blobs: durable, content-addressed, idempotent; one suite over the folder and the double."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from unjam.core.errors import DependencyDown, DocumentRejected, SetupError, UsageError
from unjam.core.ports import Blobs
from unjam.stores import blobs as module
from unjam.stores.blobs import BUFFER_BYTES, LocalBlobs
from unjam.stores.memory import MemoryBlobs


@pytest.fixture
def local(tmp_path: Path) -> LocalBlobs:
    blobs = LocalBlobs(tmp_path / "blobs", remove_grace_s=0)
    blobs.claim_root("ledger-1")
    return blobs


@pytest.fixture(params=["local", "memory"])
def blobs(request: pytest.FixtureRequest) -> Blobs:
    return MemoryBlobs() if request.param == "memory" else request.getfixturevalue("local")


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


async def test_remove_is_idempotent(blobs: Blobs) -> None:
    (content_hash,) = await put(blobs, b"a")
    await blobs.remove(content_hash)
    await blobs.remove(content_hash)
    assert not await blobs.present([content_hash])
    with pytest.raises(DocumentRejected) as caught:
        await blobs.path(content_hash)
    assert caught.value.code == "original_missing"


async def test_abort_leaves_nothing(local: LocalBlobs) -> None:
    writer = await local.create()
    await writer.write(b"x" * 2_000_000)
    await writer.abort()
    await writer.abort()
    assert list((local.root / "tmp").iterdir()) == []


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


# -- the folder ------------------------------------------------------------------------------
async def test_names_never_become_paths(local: LocalBlobs) -> None:
    for name in ("../../etc/passwd", "a" * 63, "A" * 64, "", "/" * 64):
        with pytest.raises(UsageError):
            await local.present([name])


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


async def test_a_missing_store_is_not_a_missing_document(tmp_path: Path) -> None:
    away = LocalBlobs(tmp_path / "not-mounted")
    with pytest.raises(DependencyDown) as caught:
        await away.path("0" * 64)
    assert caught.value.code == "blob_store_down"


async def test_full_disk(local: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = await local.create()
    await writer.write(b"a")
    monkeypatch.setattr(module, "_sync_file", full)
    with pytest.raises(DependencyDown) as caught:
        await local.commit([writer])
    assert caught.value.code == "blob_store_down"
    assert not await local.present([sha(b"a")])


async def test_a_folder_belongs_to_one_ledger(local: LocalBlobs, tmp_path: Path) -> None:
    local.claim_root("ledger-1")
    local.require_root("ledger-1")
    with pytest.raises(SetupError):
        local.claim_root("ledger-2")
    with pytest.raises(SetupError):
        LocalBlobs(tmp_path / "elsewhere").require_root("ledger-1")


async def test_a_file_uploaded_again_just_now_stays(local: LocalBlobs) -> None:
    careful = LocalBlobs(local.root)
    (content_hash,) = await put(local, b"a")
    await careful.remove(content_hash)
    assert await careful.present([content_hash])


async def test_sweep_takes_old_leftovers_only(local: LocalBlobs) -> None:
    old, young = await local.create(), await local.create()
    for writer in (old, young):
        await writer.write(b"x" * BUFFER_BYTES)
    hour_ago = time.time() - 4_000
    os.utime(old.file, (hour_ago, hour_ago))
    assert await local.sweep() == 1
    assert not old.file.exists()
    assert young.file.exists()
    await young.abort()


async def test_ping_tells_a_folder_that_is_away(blobs: Blobs, local: LocalBlobs) -> None:
    await blobs.ping()
    (local.root / ".canary").unlink()
    with pytest.raises(DependencyDown) as caught:
        await local.ping()
    assert caught.value.code == "blob_store_down"
