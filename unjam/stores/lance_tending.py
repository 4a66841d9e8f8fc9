"""What keeps LanceDB tables fast: indexes, compaction, and whose they are."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from unjam.stores import lance_sync
from unjam.stores.lance_rows import ids_in

_log = logging.getLogger(__name__)

INDEX_FROM_ROWS = 50_000
"""Below it a query compares with every row."""

KEEP_OLD = timedelta(seconds=120)
"""Files of older versions stay this long: whoever reads (10 s) or writes (30 s) has ended."""


async def index_ids(table: Any) -> None:
    """So that a question for ids need not read them all."""
    from lancedb.index import BTree

    await table.create_index("id", config=BTree(), replace=True)


async def tend(path: Path, collection: str, table: Any) -> None:
    """Merge fragments, bring the indexes up to date and drop old versions; one process at a time,
    the others leave it to that one. Never raises for what the table or the disk does."""
    try:
        with _alone(path) as mine:
            if mine:
                began = lance_sync.now()
                await _index(table)
                await table.optimize()
                await asyncio.to_thread(lance_sync.sync_since, path / f"{collection}.lance", began)
                await table.optimize(cleanup_older_than=KEEP_OLD)  # only now what it replaced
    except (RuntimeError, OSError, ValueError) as error:
        # A writer was faster, as a rule; the next round meets what stays.
        _log.info("LanceDB table %s was not tidied: %s", collection, str(error)[:300])


async def once_each(path: Path, table: Any, ids: Sequence[str]) -> None:
    """Remove all rows but one of each of *ids*: of two inserts at the same moment both succeed.

    Nobody tidies meanwhile, since that gives rows other addresses. Raises what LanceDB raises.
    """
    clause = ids_in(ids)
    if await table.count_rows(clause) <= len(ids):
        return
    while True:
        with _alone(path) as mine:
            if mine:
                query = table.query().where(clause).with_row_id().select(["id"])
                rows = (await query.to_arrow()).to_pylist()
                keep = {row["id"]: row["_rowid"] for row in rows}
                over = [str(r["_rowid"]) for r in rows if keep[r["id"]] != r["_rowid"]]
                if over:
                    await table.delete(f"_rowid IN ({', '.join(over)})")
                return
        await asyncio.sleep(0.01)


async def _index(table: Any) -> None:
    from lancedb.index import IvfSq

    there = {column for index in await table.list_indices() for column in index.columns}
    if "id" not in there:  # whoever made the table died before it had one
        await index_ids(table)
    if "vector" not in there and await table.count_rows() >= INDEX_FROM_ROWS:
        await table.create_index("vector", config=IvfSq(distance_type="cosine"))


@contextmanager
def _alone(path: Path) -> Generator[bool]:
    handle = os.open(path / "unjam-tending.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


class Owners:
    """Ledgers behind a table: an empty file each, under the table's identity. Blocking."""

    def __init__(self, path: Path) -> None:
        self._root = path / "unjam-owners"

    def of(self, identity: str) -> list[str]:
        try:
            return [p.name for p in (self._root / identity).iterdir()]
        except FileNotFoundError:
            return []

    def add(self, identity: str, owner: str) -> None:
        """Raises OSError."""
        place = self._root / identity
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        (place / owner).touch(mode=0o600)
