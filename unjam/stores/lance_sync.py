"""LanceDB tells the disk nothing: after a write its files are on their way only (no ``fsync`` in
0.40, seen with strace). A power cut could take acknowledged rows, or leave a table whose newest
manifest is empty and that cannot be opened. So what a write made is synced before it is
acknowledged.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

BEFORE_S = 2.0
"""Files this much older than the write are synced along: a manifest names what other processes
wrote a moment before, too."""

NEWEST = 16
"""Manifests to look at: names count down, so the newest sort first."""


def now() -> float:
    """To be taken before the write; the clock of files."""
    return time.time()


def sync_since(table: Path, since: float) -> None:
    """Blocking; 1–10 ms on an SSD. Raises OSError."""
    since -= BEFORE_S
    touched: set[Path] = set()
    for name in ("data", "_deletions", "_indices"):
        _sync_below(table / name, since, touched)
    versions = table / "_versions"
    for manifest in sorted(versions.glob("*.manifest"))[:NEWEST]:
        _sync(manifest)
    for folder in (*touched, versions, table, table.parent):
        _sync(folder)


def _sync_below(folder: Path, since: float, touched: set[Path]) -> None:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                _sync_below(Path(entry.path), since, touched)
            elif entry.stat(follow_symlinks=False).st_mtime >= since:
                _sync(Path(entry.path))
                touched.add(folder)
        except FileNotFoundError:  # another process tidies
            continue


def _sync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
