"""What an upload leaves behind that dies before it is accepted goes; everything else stays."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from unjam.app.run_watchdog import reconciler_of
from unjam.stores import schema
from unjam.testing.stack import Stack
from unjam.watchdog import reconcile
from unjam.watchdog.reconcile import Reconciler


async def committed(stack: Stack, data: bytes) -> str:
    """Durable, and then the API died."""
    writer = await stack.services.blobs.create()
    await writer.write(data)
    await stack.services.blobs.commit([writer])
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def sweeper(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Reconciler:
    """An hour's grace passes at once, and so does the minute of ``remove``."""
    monkeypatch.setattr(reconcile, "BLOB_GRACE_S", 0.0)
    made = reconciler_of(stack.services)
    made.blobs._grace_s = 0.0  # type: ignore[attr-defined]
    return made


async def round_of(sweeper: Reconciler) -> None:
    """All 256 parts once; from one part to the next is a minute."""
    for _ in range(256):
        sweeper._blobs_due = 0.0
        await sweeper.sweep_blobs()


async def test_a_blob_that_was_never_accepted_goes(stack: Stack, sweeper: Reconciler) -> None:
    stray = await committed(stack, b"never accepted")
    kept = await stack.services.ledger.get(await stack.add("accepted"))
    assert kept is not None
    blobs = stack.services.blobs
    await round_of(sweeper)  # finds it; from here on it counts as unreferenced
    await asyncio.sleep(0)
    await round_of(sweeper)
    assert not await blobs.present([stray])
    assert await blobs.present([kept.content_hash])


async def test_within_its_hour_it_stays(stack: Stack) -> None:
    stray = await committed(stack, b"never accepted")
    sweeper = reconciler_of(stack.services)
    await round_of(sweeper)
    assert await stack.services.blobs.present([stray])
    assert await stack.services.ledger.unreferenced_blobs(0.0) == []  # too young to be noticed


async def test_an_hour_begins_when_it_is_noticed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = await committed(stack, b"never accepted")
    sweeper = reconciler_of(stack.services)
    stored = sweeper.blobs.stored
    monkeypatch.setattr(sweeper.blobs, "stored", lambda part, _: stored(part, 0.0))
    await round_of(sweeper)
    assert await stack.services.ledger.unreferenced_blobs(0.0) == [stray]
    await round_of(sweeper)
    assert await stack.services.blobs.present([stray])


async def test_the_same_bytes_uploaded_meanwhile_stay(stack: Stack, sweeper: Reconciler) -> None:
    stray = await committed(stack, b"twice the same")
    await round_of(sweeper)
    sweeper.blobs._grace_s = 60.0  # type: ignore[attr-defined]
    with stack.services.ledger._dialect.writer().begin() as conn:  # type: ignore[attr-defined]
        table = schema.blobs
        row = {"content_hash": stray, "size_bytes": 14, "unreferenced_since": 1.0}
        conn.execute(sa.delete(table))
        conn.execute(sa.insert(table), row)
    await stack.add(b"twice the same")
    await round_of(sweeper)
    await round_of(sweeper)
    assert await stack.services.blobs.present([stray])


async def test_unfinished_uploads_go(stack: Stack) -> None:
    tmp: Path = stack.services.blobs.root / "tmp"  # type: ignore[attr-defined]
    old, young = tmp / "up-1-old", tmp / "up-1-young"
    for file in (old, young):
        file.write_bytes(b"half")
    an_hour_ago = time.time() - 3700
    os.utime(old, (an_hour_ago, an_hour_ago))
    await reconciler_of(stack.services).sweep_blobs()
    assert not old.exists() and young.exists()


async def test_foreign_files_in_the_folder_are_left_alone(
    stack: Stack, sweeper: Reconciler
) -> None:
    root: Path = stack.services.blobs.root  # type: ignore[attr-defined]
    note, odd = root / "ab" / "cd" / "README", root / "ab" / "cd" / ("ff" * 32)
    for file in (note, odd):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("not ours")
    await round_of(sweeper)
    await round_of(sweeper)
    assert note.exists() and odd.exists()
