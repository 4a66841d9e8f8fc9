"""The journal of small originals: what was promised is there after a power cut."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from unjam.core.errors import DependencyDown
from unjam.stores import blob_journal as module
from unjam.stores.blob_journal import WORTH_AFTER, encoded, replay
from unjam.stores.blobs import LocalBlobs
from unjam.testing.power_cut import CannotMount, PowerCutDisk, power_cut_disk
from unjam.testing.wait import until


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerCutDisk]:
    try:
        with power_cut_disk(tmp_path / "power") as made:
            yield made
    except CannotMount as error:
        pytest.skip(f"no disk whose power can be cut: {error}")


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[LocalBlobs]:
    """A store whose journal is in use."""
    made = await opened(tmp_path / "blobs")
    await journalled(made)
    yield made
    await made.close()


async def opened(root: Path) -> LocalBlobs:
    made = LocalBlobs(root, remove_grace_s=0)
    await made.settle("ledger-1", known=False)
    return made


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def put(blobs: LocalBlobs, *contents: bytes) -> list[str]:
    writers = [await blobs.create() for _ in contents]
    for writer, data in zip(writers, contents, strict=True):
        await writer.write(data)
    await blobs.commit(writers)
    return [w.digest() for w in writers]


async def journalled(blobs: LocalBlobs) -> list[bytes]:
    """Commits until they go through the journal; what was put."""
    contents: list[bytes] = []

    async def one_more() -> bool:
        contents.append(f"to begin with {len(contents)}".encode())
        await put(blobs, contents[-1])
        return contents[-1] in kept_in(blobs.root)

    await until("the journal is in use", one_more)
    assert len(contents) > WORTH_AFTER
    return contents


def kept_in(root: Path) -> bytes:
    """Every byte of the journal."""
    return b"".join(f.read_bytes() for f in sorted((root / "journal").glob("*-*")))


def found_in(root: Path, contents: list[bytes]) -> list[bytes]:
    """Those of *contents* whose files are there and whole."""
    paths = {data: root / sha(data)[:2] / sha(data)[2:4] / sha(data) for data in contents}
    return [d for d, path in paths.items() if path.exists() and path.read_bytes() == d]


# -- power cuts ---------------------------------------------------------------------------------
async def test_what_was_promised_is_there_after_a_power_cut(disk: PowerCutDisk) -> None:
    blobs = await opened(disk.folder / "blobs")
    contents = await journalled(blobs)
    small = [os.urandom(n) for n in (0, 1, 2_000, 65_536)]
    await put(blobs, *small)
    contents += small
    after = disk.cut()
    root = after.folder / "blobs"
    assert not found_in(root, small)  # what a store that syncs nothing would be left with
    again = await opened(root)
    assert found_in(root, contents) == contents
    assert await again.present([sha(d) for d in contents]) == {sha(d) for d in contents}
    assert kept_in(root) == b""
    assert found_in(after.cut().folder / "blobs", contents) == contents  # and after the next one

    mixed = [os.urandom(n) for n in (1_999, 65_537, 300_000)]
    await put(blobs, *mixed, small[1], b"new", b"new")
    contents += [*mixed, b"new"]
    root = disk.cut().folder / "blobs"
    await opened(root)
    assert found_in(root, contents) == contents

    await put(blobs, b"last")
    await blobs.close()
    assert found_in(disk.cut().folder / "blobs", [*contents, b"last"]) == [*contents, b"last"]
    assert not kept_in(blobs.root)


async def test_a_full_journal_promises_nothing(
    disk: PowerCutDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SYNC_EVERY_S", 3600.0)
    monkeypatch.setattr(module, "SEGMENT_BYTES", 20_000)
    blobs = await opened(disk.folder / "blobs")
    contents = await journalled(blobs)
    for _ in range(10):
        contents += [os.urandom(8_000) for _ in range(3)]
        await put(blobs, *contents[-3:])
    root = disk.cut().folder / "blobs"
    await opened(root)
    assert found_in(root, contents) == contents
    await blobs.close()


async def test_a_journal_that_fills_up_meanwhile_promises_nothing(
    disk: PowerCutDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_journal: object, _originals: object) -> bool:
        return False

    blobs = await opened(disk.folder / "blobs")
    await journalled(blobs)
    monkeypatch.setattr(module.BlobJournal, "keep", full)
    await put(blobs, b"synced itself")
    assert found_in(disk.cut().folder / "blobs", [b"synced itself"])
    await blobs.close()


async def test_it_is_emptied_when_its_files_are_on_disk(
    disk: PowerCutDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SYNC_EVERY_S", 0.05)
    blobs = await opened(disk.folder / "blobs")
    contents = [f"text {n}".encode() for n in range(3 * WORTH_AFTER)]
    for data in contents:
        await put(blobs, data)

    async def empty() -> bool:
        kept = kept_in(blobs.root)
        return len(kept) == 2 * module.SEGMENT_BYTES and not any(kept)

    await until("two segments of nothing", empty)
    assert found_in(disk.cut().folder / "blobs", contents) == contents
    await blobs.close()
    assert not kept_in(blobs.root)


# -- replay -------------------------------------------------------------------------------------
async def test_damaged_files_are_made_whole(blobs: LocalBlobs, tmp_path: Path) -> None:
    contents = [b"empty", b"gone", b"other bytes", b"whole"]
    paths = [await blobs.path(h) for h in await put(blobs, *contents)]
    dead = copy_of_the_dead(blobs, tmp_path)
    paths[0].write_bytes(b"")
    paths[1].unlink()
    paths[2].write_bytes(b"OTHER BYTES")
    kept = paths[3].stat()
    dead.rename(blobs.root / "journal" / "1-dead")
    again = await opened(blobs.root)
    assert [(await again.path(sha(d))).read_bytes() for d in contents] == contents
    assert paths[3].stat().st_ino == kept.st_ino
    assert not (blobs.root / "journal" / "1-dead").exists()


def copy_of_the_dead(blobs: LocalBlobs, tmp_path: Path) -> Path:
    """The segment in use, as its process leaves it when it dies now."""
    segments = (blobs.root / "journal").glob("*-*")
    (used,) = [data for s in segments if any(data := s.read_bytes())]
    copy = tmp_path / "dead"
    copy.write_bytes(used)
    return copy


@pytest.mark.parametrize("cut", [1, 30, 60])
async def test_a_torn_record_was_never_promised(
    blobs: LocalBlobs, tmp_path: Path, cut: int
) -> None:
    await put(blobs, b"first of all")
    dead = copy_of_the_dead(blobs, tmp_path)
    torn = bytearray(dead.read_bytes())
    end = torn.rindex(b"first of all") + len(b"first of all")
    half = encoded([(hashlib.sha256(b"x" * 100).digest(), b"x" * 100)])
    torn[end : end + cut] = half[:cut]
    folder = tmp_path / "torn" / "journal"
    folder.mkdir(parents=True)
    (folder / "1-dead").write_bytes(torn)
    seen: dict[str, bytes] = {}

    def restore(name: str, data: bytes) -> bool:
        seen[name] = data
        return True

    assert replay(folder.parent, restore) == len(seen)
    assert list(seen.values())[-1] == b"first of all"


async def test_the_journal_of_a_living_process_is_left_alone(blobs: LocalBlobs) -> None:
    await put(blobs, b"mine")
    before = kept_in(blobs.root)
    other = await opened(blobs.root)
    assert kept_in(blobs.root) == before and b"mine" in before
    await other.close()


# -- what it is not for -------------------------------------------------------------------------
async def test_durable_bytes_are_not_replaced_by_unsynced_ones(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def spy(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    await put(blobs, b"again")
    monkeypatch.setattr(os, "fsync", spy)
    await put(blobs, b"never before")
    assert synced == []
    await put(blobs, b"again")
    assert any(name.startswith("up-") for name in synced)


async def test_a_disk_that_cannot_sync_keeps_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, "SYNC_EVERY_S", 3600.0)
    blobs = await opened(tmp_path / "blobs")
    contents = await journalled(blobs)
    monkeypatch.setattr(module, "sync_everything", broken)
    await blobs.close()
    assert contents[-1] in kept_in(blobs.root)
    await put(blobs, b"later")  # synced itself
    assert b"later" not in kept_in(blobs.root)


async def test_an_append_that_fails_promises_nothing(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(DependencyDown):
        await put(blobs, b"never promised")
    monkeypatch.undo()
    await put(blobs, b"never promised")
    assert (await blobs.path(sha(b"never promised"))).read_bytes() == b"never promised"


async def test_no_journal_on_a_network_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(_folder: Path) -> str:
        return "nfs4"

    monkeypatch.setattr(module, "file_system", elsewhere)
    blobs = await opened(tmp_path / "blobs")
    for n in range(3 * WORTH_AFTER):
        await put(blobs, f"text {n}".encode())
    await blobs.close()
    assert not (blobs.root / "journal").exists()
