"""Copies of what a backup holds beside the ledger: the originals and the embedding cache."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

import sqlalchemy as sa

from unjam.stores import schema
from unjam.stores.ledger.dialect import Sqlite
from unjam.stores.ledger.opening import copy_sqlite

_EVERY = 500  # files between two syncs


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
