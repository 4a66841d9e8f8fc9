"""Copies of what a backup holds beside the ledger: the originals and the embedding cache."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

import sqlalchemy as sa

from unjam.core.errors import DocumentRejected
from unjam.core.ports import Blobs
from unjam.stores import schema
from unjam.stores.ledger.dialect import Sqlite
from unjam.stores.ledger.opening import copy_sqlite

_EVERY = 500  # files between two syncs
_BLOCK = 1_048_576


def blobs_of(copy: Path) -> dict[str, int]:
    """Hash → bytes of every original that the ledger in the file *copy* refers to."""
    engine = Sqlite(sa.URL.create("sqlite", database=str(copy))).reader()
    table = schema.blobs
    query = sa.select(table.c.content_hash, table.c.size_bytes)
    try:
        with engine.connect() as conn:
            kept = conn.execute(query.where(table.c.unreferenced_since.is_(None)))
            return dict(kept.tuples().all())
    finally:
        engine.dispose()


def ledger_id_of(copy: Path) -> str:
    """Id of the ledger in the file *copy*."""
    with contextlib.closing(sqlite3.connect(copy)) as conn:
        found = conn.execute("SELECT value FROM meta WHERE key = 'ledger_id'").fetchone()
    return str(found[0])


def copy_originals(source: Path, target: Path, sizes: Mapping[str, int]) -> list[str]:
    """Blocking. Put the originals under *target*, laid out as under *source*: hard links where
    both are on one file system (an original is never changed in place), else copies. On disk when
    this returns; the hashes that are not there, or not whole, come back. Raises OSError."""
    missing: list[str] = []
    done: list[Path] = []
    for content_hash, size in sorted(sizes.items()):
        place = Path(content_hash[:2], content_hash[2:4], content_hash)
        old, new = source / place, target / place
        try:
            if old.stat().st_size != size:
                missing.append(content_hash)
                continue
        except FileNotFoundError:
            missing.append(content_hash)
            continue
        new.parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(old, new)
        done.append(new)
        if len(done) >= _EVERY:
            _sync(done)
            done.clear()
    _sync(done)
    return missing


async def fetch_originals(source: Blobs, target: Path, sizes: Mapping[str, int]) -> list[str]:
    """As :func:`copy_originals`, from a store that is no folder. Raises DependencyDown, OSError."""
    missing: list[str] = []
    for content_hash in sorted(sizes):
        place = target / content_hash[:2] / content_hash[2:4] / content_hash
        try:
            file = await source.path(content_hash)
        except DocumentRejected:
            missing.append(content_hash)
            continue
        await asyncio.to_thread(_settle, file, place)
    return missing


def _settle(file: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    _link_or_copy(file, place)
    _sync((place,))


async def send_originals(source: Path, target: Blobs, sizes: Mapping[str, int]) -> list[str]:
    """Put the originals of the folder *source* into a store that is none; what is there already
    stays. The hashes that are not in the folder, or not whole, come back. Raises DependencyDown,
    OSError."""
    hashes = sorted(sizes)
    there: set[str] = set()
    for at in range(0, len(hashes), _EVERY):
        there |= await target.present(hashes[at : at + _EVERY])
    missing: list[str] = []
    for content_hash in (h for h in hashes if h not in there):
        file = source / content_hash[:2] / content_hash[2:4] / content_hash
        if not await _send(file, content_hash, target):
            missing.append(content_hash)
    return missing


async def _send(file: Path, content_hash: str, target: Blobs) -> bool:
    """Whether it was there and whole."""
    writer = await target.create()
    try:
        with file.open("rb") as source:
            while block := await asyncio.to_thread(source.read, _BLOCK):
                await writer.write(block)
        if writer.digest() != content_hash:
            return False
        await target.commit([writer])
        return True
    except FileNotFoundError:
        return False
    finally:
        await writer.abort()


def _link_or_copy(old: Path, new: Path) -> None:
    if new.exists():
        return
    try:
        os.link(old, new)
    except OSError:  # another file system, or one without links
        half = new.with_name(new.name + ".part")
        shutil.copyfile(old, half)
        half.replace(new)


def _sync(files: Iterable[Path]) -> None:
    folders = {f.parent for f in files} | {f.parent.parent for f in files}
    for path in (*files, *folders):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def copy_cache(source: Path, target: Path) -> bool:
    """Blocking. A consistent copy of the embedding cache, in use or not; False: there is none."""
    if not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_sqlite(source, target)
    return True
