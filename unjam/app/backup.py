"""``unjam backup`` and ``unjam restore``: the ledger, the originals, and the embedding cache.

Originals in a bucket stay there unless they are asked for: the bucket outlives the hosts, and has
its own copies. The backup then says where they are, and a restore checks that they are.

The queue follows from the ledger, and the vectors from the originals and the cache: after a
restore each document starts over as a new generation and is searchable again once it is stored.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unjam import __version__
from unjam.app.house import found
from unjam.app.originals import absent, in_bucket, open_blobs
from unjam.app.services import ledger_url, open_ledger
from unjam.core.errors import DependencyDown, SetupError
from unjam.settings import Settings
from unjam.stores.blobs import LocalBlobs
from unjam.stores.copies import (
    blobs_of,
    copy_cache,
    copy_originals,
    fetch_originals,
    ledger_id_of,
    send_originals,
)
from unjam.stores.ledger import SqlLedger
from unjam.stores.ledger.backup import restore as restore_ledger
from unjam.worker.supervisor import LOCK_NAME, hold

if TYPE_CHECKING:
    from unjam.stores.s3_blobs import S3Blobs

FORMAT = 1
MANIFEST = "backup.json"
LEDGER, BLOBS, CACHE = "ledger.db", "blobs", "embeddings.db"
_HALF = ".restoring"
_SLICE = 200

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BackupReport:
    """*missing*: originals that the ledger refers to and the store does not have. *originals_in*:
    the bucket in which they stay; "" when they are in the backup."""

    folder: str
    ledger_id: str
    originals: int
    size_bytes: int
    cache: bool
    missing: tuple[str, ...]
    originals_in: str = ""


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """*documents*: how many start over, and are searchable again when they are stored."""

    ledger_id: str
    originals: int
    documents: int
    cache: bool
    missing: tuple[str, ...]


# -- backup ---------------------------------------------------------------------------------
async def backup(
    settings: Settings,
    folder: Path,
    *,
    with_cache: bool = True,
    with_originals: bool = False,
    say: Say = lambda _: None,
) -> BackupReport:
    """Back up the system of *settings* into *folder*, which must be empty; it may run meanwhile.

    *with_originals*: those that are in a bucket, too; those in a folder are always copied.

    Raises:
        SetupError: there is no ledger, or *folder* holds something.
        DependencyDown: ledger_unwritable, blob_store_down (no room for the copy).
    """
    settings = found(settings)
    if settings.database_url is None and not (settings.data_dir / LEDGER).is_file():
        raise SetupError(
            f"there is no ledger in {settings.data_dir}",
            hint="Name the data folder with --data-dir, or set RAG_DATA_DIR.",
        )
    if folder.exists() and any(folder.iterdir()):
        raise SetupError(f"{folder} is not empty", hint="Name a folder that does not exist yet.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    say("ledger")
    ledger = await open_ledger(settings)
    try:
        await ledger.backup(folder / LEDGER)
    finally:
        await ledger.close()
    # Originals after the ledger: every row then has its file. None goes within an hour.
    sizes = await asyncio.to_thread(blobs_of, folder / LEDGER)
    say(f"originals: {len(sizes)}")
    try:
        stay = str(settings.storage_url) if in_bucket(settings) and not with_originals else ""
        missing = await _copy_originals(settings, folder, ledger.id, sizes, stay=bool(stay))
        if with_cache:
            say("embedding cache")
        cache = with_cache and await asyncio.to_thread(
            copy_cache, settings.data_dir / CACHE, folder / CACHE
        )
        report = BackupReport(
            str(folder),
            ledger.id,
            len(sizes) - len(missing),
            sum(n for h, n in sizes.items() if h not in set(missing)),
            cache,
            tuple(missing),
            stay,
        )
        await asyncio.to_thread(_write_manifest, folder, report)
    except OSError as error:
        raise DependencyDown(
            f"the backup cannot be written: {error}",
            code="blob_store_down",
            hint="Free disk space at the target and back up again into an empty folder.",
        ) from error
    return report


async def _copy_originals(
    settings: Settings, folder: Path, ledger_id: str, sizes: Mapping[str, int], *, stay: bool
) -> list[str]:
    """What is missing."""
    blobs = open_blobs(settings)
    if isinstance(blobs, LocalBlobs):
        return await asyncio.to_thread(copy_originals, blobs.root, folder / BLOBS, sizes)
    await blobs.settle(ledger_id, known=bool(sizes))
    if stay:
        return await absent(blobs, sizes)
    return await fetch_originals(blobs, folder / BLOBS, sizes)


def _write_manifest(folder: Path, report: BackupReport) -> None:
    """Last, so that a folder with it is complete."""
    manifest = {
        "format": FORMAT,
        "unjam": __version__,
        "ledger_id": report.ledger_id,
        "made_at": time.time(),
        "originals": report.originals,
        "originals_in": report.originals_in,
        "missing": list(report.missing),
    }
    half = folder / f".{MANIFEST}"
    with half.open("w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    half.replace(folder / MANIFEST)


# -- restore --------------------------------------------------------------------------------
async def restore(settings: Settings, folder: Path, *, say: Say = lambda _: None) -> RestoreReport:
    """Put the backup in *folder* where *settings* point; nothing may be there yet.

    Raises:
        SetupError: *folder* is no complete backup, the data folder is in use or not empty.
        LedgerVersionError: the backup was made by a newer program.
        DependencyDown: ledger_unwritable, blob_store_down (no room).
    """
    _check_backup(folder)
    handle = await asyncio.to_thread(hold, settings.data_dir)
    try:
        there = sorted(p.name for p in settings.data_dir.iterdir() if p.name != LOCK_NAME)
        if there:
            raise SetupError(
                f"{settings.data_dir} is not empty ({there[0]}): a restore never writes over data",
                hint="Move it away, or name another folder with --data-dir.",
            )
        try:
            return await _restore(settings, folder, say)
        except BaseException:  # the folder was empty: what stands there now is ours
            await asyncio.to_thread(_empty, settings.data_dir)
            raise
    finally:
        os.close(handle)


def _empty(data_dir: Path) -> None:
    for path in data_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK_NAME:
            path.unlink(missing_ok=True)


def _check_backup(folder: Path) -> None:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        known = int(manifest["format"]) <= FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        raise SetupError(
            f"{folder} is no complete backup",
            hint=f"Name a folder that `unjam backup` finished: it holds {MANIFEST}.",
        ) from None
    if not known:
        raise SetupError(
            f"{folder} was made by a newer unjam ({manifest.get('unjam', '?')})",
            hint="Install that version or a newer one.",
        )


async def _restore(settings: Settings, folder: Path, say: Say) -> RestoreReport:
    source = folder / LEDGER
    ledger_id = await asyncio.to_thread(ledger_id_of, source)
    sizes = await asyncio.to_thread(blobs_of, source)
    blobs = open_blobs(settings)
    await blobs.settle(ledger_id, known=False)
    say(f"originals: {len(sizes)}")
    try:
        missing = await _put_originals(folder, blobs, sizes)
        cache = await asyncio.to_thread(copy_cache, folder / CACHE, settings.data_dir / CACHE)
    except OSError as error:
        raise DependencyDown(
            f"the originals cannot be restored: {error}",
            code="blob_store_down",
            hint="Free disk space, delete the data folder and restore again.",
        ) from error
    say("ledger")
    begun = await _restore_ledger(settings, source, say)
    return RestoreReport(ledger_id, len(sizes) - len(missing), begun, cache, tuple(sorted(missing)))


async def _put_originals(
    folder: Path, blobs: LocalBlobs | S3Blobs, sizes: Mapping[str, int]
) -> list[str]:
    """What is missing. Raises SetupError: the backup holds none, and this is not their bucket."""
    inside = folder / BLOBS
    if isinstance(blobs, LocalBlobs):
        stayed = json.loads((folder / MANIFEST).read_text()).get("originals_in", "")
        if stayed and sizes:
            raise SetupError(
                f"the originals of this backup are in {stayed}, not in {folder}",
                hint="Set RAG_STORAGE_URL to it, or back up with --with-originals.",
            )
        return await asyncio.to_thread(copy_originals, inside, blobs.root, sizes)
    if inside.is_dir():
        return await send_originals(inside, blobs, sizes)
    return await absent(blobs, sizes)


async def _restore_ledger(settings: Settings, source: Path, say: Say) -> int:
    """The file gets its name last: a restore that was cut off never looks like a ledger."""
    half = settings.data_dir / _HALF
    url = settings.database_url or f"sqlite:///{half / LEDGER}"
    await asyncio.to_thread(restore_ledger, source, url)
    ledger = await SqlLedger.open(url, gate_dir=half if settings.database_url is None else None)
    try:
        begun = await _start_over(ledger, clean=settings.vectors_url is not None, say=say)
        await ledger.note_missing(0)
    finally:
        await ledger.close()
    if settings.database_url is None:
        await asyncio.to_thread(_name, half, Path(ledger_url(settings).removeprefix("sqlite:///")))
    return begun


async def _start_over(ledger: SqlLedger, *, clean: bool, say: Say) -> int:
    begun, after = 0, ""
    while True:
        n, following = await ledger.rebuild(after, _SLICE, clean=clean)
        begun += n
        if following is None:
            say(f"documents that start over: {begun}")
            return begun
        after = following


def _name(half: Path, ledger: Path) -> None:
    left = [p for p in half.glob(f"{LEDGER}-*") if p.name.endswith("-wal") and p.stat().st_size]
    if left:
        raise SetupError(
            f"{half / LEDGER} is still in use", hint="Delete the data folder and restore again."
        )
    (half / LEDGER).replace(ledger)
    shutil.rmtree(half)
    handle = os.open(ledger.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
