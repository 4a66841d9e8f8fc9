"""Backup while it runs, restore into an empty folder, and everything is found again."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unjam.app.backup import MANIFEST, restore
from unjam.core.document import State
from unjam.core.errors import LedgerVersionError, SetupError
from unjam.settings import Settings
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until_ended
from unjam.worker.supervisor import hold

TEXTS = {
    f"note-{n}.txt": f"Entry {n}: the {word} stands behind the mill."
    for n, word in enumerate(("harbour", "lantern", "orchard", "granite", "compass"))
}


async def ends_searchable(stack: Stack, ids: list[str]) -> None:
    ended = await until_ended(stack.services.ledger, ids)
    assert {d.state for d in ended.values()} == {State.SEARCHABLE}


async def unjam(stack: Stack, *command: str, code: int = 0) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "OPENAI_"))}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "unjam.cli.main", *command],
        env={**env, **stack.environment()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


async def test_what_was_backed_up_is_found_again_and_not_paid_for_again(
    ledger_stack: Stack, tmp_path: Path, pg_server: Any, fake_openai: FakeOpenAI
) -> None:
    stack = ledger_stack
    backup, second = tmp_path / "backup", tmp_path / "second"
    stack.worker()
    stack.watchdog()
    ids = [await stack.add(text, name, user_id="ann") for name, text in TEXTS.items()]
    await ends_searchable(stack, ids)
    await stack.services.ledger.delete(ids[4])
    report = json.loads(await unjam(stack, "backup", str(backup), "--json"))
    assert report["originals"] == 4 and report["missing"] == [] and report["cache"]
    assert (backup / MANIFEST).exists()
    later = await stack.add("Added after the backup was made.", "later.txt")
    await ends_searchable(stack, [later])
    for process in stack.processes:
        await process.stop()

    # The same Chroma and Redis, as after the loss of the data folder alone.
    database = ""
    if stack.database_url:
        name = f"restored_{os.getpid()}_{tmp_path.name[-6:].replace('-', '_')}".lower()
        pg_server.psql(f"CREATE DATABASE {name};")
        database = pg_server.get_uri(database=name)
    found = Stack(
        second, stack.redis_url, stack.chroma_url, stack.openai_url, database, stack.extra
    )
    said = json.loads(await unjam(found, "restore", str(backup), "--json"))
    assert said["documents"] == 4 and said["missing"] == []
    assert not (second / ".restoring").exists()
    async with found:
        equation = await found.services.ledger.equation()
        assert (equation.accepted, equation.queued, equation.deleted) == (5, 4, 1)
        assert equation.missing == equation.searchable == 0
        paid = fake_openai.stats()["texts"]
        found.worker()
        found.watchdog()
        await ends_searchable(found, ids[:4])
        assert fake_openai.stats()["texts"] == paid
        hits = await found.services.retriever.search(TEXTS["note-2.txt"], 3, None)
        assert hits[0].document_id == ids[2] and hits[0].text == TEXTS["note-2.txt"]
        assert {h.document_id for h in hits} <= set(ids[:4])


async def test_a_backup_says_which_originals_are_gone(reconciled: Stack, tmp_path: Path) -> None:
    stack = reconciled
    document = await stack.services.ledger.get(await stack.add("one of a kind"))
    assert document is not None
    (await stack.services.blobs.path(document.content_hash)).unlink()
    said = await unjam(stack, "backup", str(tmp_path / "backup"), code=1)
    assert f"missing original {document.content_hash}" in said


async def test_a_backup_shares_originals_where_it_can(stack: Stack, tmp_path: Path) -> None:
    await stack.add("one of a kind")
    await unjam(stack, "backup", str(tmp_path / "backup"), "--no-cache")
    (original,) = [p for p in (tmp_path / "backup" / "blobs").rglob("*") if p.is_file()]
    assert original.stat().st_nlink == 2
    assert not (tmp_path / "backup" / "embeddings.db").exists()
    said = await unjam(stack, "backup", str(tmp_path / "backup"), code=2)
    assert "is not empty" in said
    said = await unjam(
        stack, "backup", str(tmp_path / "b2"), "--data-dir", str(tmp_path / "nothing"), code=2
    )
    assert "there is no ledger" in said and not (tmp_path / "b2").exists()


# -- refusals -------------------------------------------------------------------------------
@pytest.fixture
async def backed_up(stack: Stack, tmp_path: Path) -> Path:
    await stack.add("one of a kind")
    await unjam(stack, "backup", str(tmp_path / "backup"))
    return tmp_path / "backup"


def settings_for(folder: Path) -> Settings:
    return Settings.model_validate({"RAG_DATA_DIR": folder})


async def test_never_over_data(backed_up: Path, stack: Stack) -> None:
    before = (stack.data_dir / "ledger.db").read_bytes()
    with pytest.raises(SetupError, match="is not empty"):
        await restore(settings_for(stack.data_dir), backed_up)
    assert (stack.data_dir / "ledger.db").read_bytes() == before


async def test_never_while_somebody_holds_the_folder(backed_up: Path, tmp_path: Path) -> None:
    handle = hold(tmp_path / "new")
    try:
        with pytest.raises(SetupError, match="another `unjam up`"):
            await restore(settings_for(tmp_path / "new"), backed_up)
    finally:
        os.close(handle)
    report = await restore(settings_for(tmp_path / "new"), backed_up)
    assert report.documents == 1


async def test_never_from_half_a_backup(backed_up: Path, tmp_path: Path) -> None:
    (backed_up / MANIFEST).rename(backed_up / "elsewhere")
    with pytest.raises(SetupError, match="no complete backup"):
        await restore(settings_for(tmp_path / "new"), backed_up)
    (backed_up / MANIFEST).write_text('{"format": 99, "unjam": "9.9"}')
    with pytest.raises(SetupError, match="newer unjam"):
        await restore(settings_for(tmp_path / "new"), backed_up)
    assert not (tmp_path / "new" / "ledger.db").exists()


async def test_a_restore_that_fails_leaves_the_folder_empty(
    backed_up: Path, tmp_path: Path
) -> None:
    with sqlite3.connect(backed_up / "ledger.db") as conn:
        conn.execute("UPDATE alembic_version SET version_num = '9999'")
    conn.close()
    with pytest.raises(LedgerVersionError):
        await restore(settings_for(tmp_path / "new"), backed_up)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["unjam.lock"]
