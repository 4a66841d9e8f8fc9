"""Opening: fresh, older, newer, unusable; backup and restore."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.fixtures.ledger import WORKER, accepted, claimed, searchable, submission
from unjam.core.document import State
from unjam.core.errors import DependencyDown, LedgerVersionError, SetupError
from unjam.core.outcome import Done, Release
from unjam.stores import schema
from unjam.stores.ledger import SqlLedger, opening
from unjam.stores.ledger.backup import restore
from unjam.stores.ledger.dialect import dialect_of


def on(url: str, work: Callable[[sa.Connection], Any]) -> Any:
    engine = dialect_of(url).writer()
    try:
        with engine.begin() as conn:
            return work(conn)
    finally:
        engine.dispose()


def make_at(url: str, revision: str) -> None:
    """A ledger as the program of that *revision* made it."""

    def work(conn: sa.Connection) -> None:
        opening.upgrade(conn, revision)
        conn.execute(sa.insert(schema.meta), {"key": "ledger_id", "value": "old-ledger"})

    on(url, work)


def shape(conn: sa.Connection) -> Any:
    if conn.dialect.name == "sqlite":
        rows = conn.exec_driver_sql("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2")
        # Alembic makes its own table, with another type for the one column.
        return [
            (kind, name, re.sub(r"\s+", "", sql or ""))
            for kind, name, sql in rows
            if "alembic_version" not in name
        ]
    columns = conn.exec_driver_sql(
        "SELECT table_name, column_name, ordinal_position, data_type, is_nullable,"
        " column_default, collation_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1, 3"
    )
    indexes = conn.exec_driver_sql(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
        " AND tablename <> 'alembic_version' ORDER BY 1"
    )
    triggers = conn.exec_driver_sql(
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
    )
    return [[tuple(r) for r in rows] for rows in (columns, indexes, triggers)]


async def test_migrations_lead_to_the_same_as_a_fresh_ledger(
    ledger: SqlLedger, ledger_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fresh = on(ledger_url, shape)
    if ledger_url.startswith("sqlite"):
        url = f"sqlite:///{tmp_path / 'migrated.db'}"
    else:
        name = "migrated_" + ledger_url.rpartition("/")[2].partition("?")[0]
        server = request.getfixturevalue("pg_server")
        server.psql(f"CREATE DATABASE {name};")
        url = server.get_uri(database=name)
    make_at(url, "head")
    assert on(url, shape) == fresh
    tallies = sa.select(sa.func.count(), sa.func.sum(schema.tallies.c.n)).select_from(
        schema.tallies
    )

    def rows(conn: sa.Connection) -> tuple[int, int]:
        return tuple(conn.execute(tallies).one())

    assert on(url, rows) == on(ledger_url, rows)


async def test_an_older_ledger_is_migrated_after_a_copy(ledger_url: str, tmp_path: Path) -> None:
    make_at(ledger_url, "0001")
    ledger = await SqlLedger.open(ledger_url)
    try:
        assert ledger.id == "old-ledger"
        await accepted(ledger, 1)
        await ledger.set_knob("RAG_EMBEDDING_BATCH_SIZE", 16, "ann")
        assert (await ledger.equation()).queued == 1
    finally:
        await ledger.close()
    if ledger_url.startswith("sqlite"):
        (copy,) = tmp_path.glob("ledger.db.0001.*.bak")
        with sqlite3.connect(copy) as conn:
            assert conn.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
        conn.close()
    again = await SqlLedger.open(ledger_url)
    await again.close()
    assert len(list(tmp_path.glob("*.bak"))) == ledger_url.startswith("sqlite")


async def test_a_newer_ledger_is_refused_untouched(ledger_url: str) -> None:
    ledger = await SqlLedger.open(ledger_url)
    await ledger.close()
    newer = sa.update(schema.alembic_version).values(version_num="9999")
    on(ledger_url, lambda conn: conn.execute(newer))
    with pytest.raises(LedgerVersionError):
        await SqlLedger.open(ledger_url)
    query = sa.select(schema.alembic_version.c.version_num)
    assert on(ledger_url, lambda conn: conn.execute(query).scalar()) == "9999"


async def test_who_is_older_than_the_ledger_lets_go_and_takes_nothing(
    ledger: SqlLedger, ledger_url: str
) -> None:
    """A newer program migrated it while this one was at work."""
    held, given_back = [await claimed(ledger, await accepted(ledger, n)) for n in (1, 2)]
    waits = await accepted(ledger, 3)
    assert ledger.newer == ""
    newer = sa.update(schema.alembic_version).values(version_num="9999")
    on(ledger_url, lambda conn: conn.execute(newer))

    both = {c.document_id: c.token for c in (held, given_back)}
    assert await asyncio.to_thread(ledger.renew, WORKER, both, ()) == set()
    assert "9999" in ledger.newer
    assert schema.HEAD in ledger.newer
    for refused in (
        ledger.claim([waits], WORKER, 10),
        ledger.accept([submission(4)]),
        ledger.lead("watchdog", WORKER.id, 5.0),
        ledger.set_knob("RAG_EMBEDDING_BATCH_SIZE", 16, "ann"),
        ledger.expire(["worker-1"]),
    ):
        with pytest.raises(DependencyDown) as told:
            await refused
        assert told.value.code == "ledger_newer"
    assert (await ledger.settle(held, Done(3))).moved
    assert (await ledger.settle(given_back, Release())).moved
    await ledger.retire(WORKER.id)
    counts = await ledger.state_counts()
    assert counts[State.SEARCHABLE] == 1
    assert counts[State.RECEIVED] == 2
    assert sum(counts.values()) == 3


def test_opening_needs_no_alembic(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from unjam.stores.ledger import SqlLedger\n"
        "async def main():\n"
        f"    await (await SqlLedger.open('sqlite:///{tmp_path}/l.db')).close()\n"
        "asyncio.run(main())\n"
        "asyncio.run(main())\n"
        "print('alembic' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


async def test_many_open_at_once(ledger_url: str) -> None:
    code = (
        "import asyncio, sys\n"
        "from unjam.stores.ledger import SqlLedger\n"
        "async def main():\n"
        "    ledger = await SqlLedger.open(sys.argv[1])\n"
        "    print(ledger.id)\n"
        "    await ledger.close()\n"
        "asyncio.run(main())\n"
    )
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, ledger_url, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(4)
    ]
    ids = {(await asyncio.wait_for(child.communicate(), 60))[0] for child in children}
    assert len(ids) == 1
    assert ids != {b""}


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "nonsense"])
async def test_urls_that_name_no_ledger(url: str) -> None:
    with pytest.raises(SetupError):
        await SqlLedger.open(url)


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/none", "sqlite:////proc/none/ledger.db"])
async def test_unreachable_is_a_dependency_down(url: str) -> None:
    with pytest.raises(DependencyDown) as caught:
        await SqlLedger.open(url)
    assert caught.value.code == "ledger_unwritable"


async def test_a_damaged_file_is_a_dependency_down(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(os.urandom(20_000))
    with pytest.raises(DependencyDown):
        await SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}")


async def test_a_full_disk_fails_writes_but_not_reads(tmp_path: Path) -> None:
    ledger = await SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        await searchable(ledger, 1)
        conn = ledger._writer._conn
        assert conn is not None
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar()
        conn.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        conn.rollback()
        with pytest.raises(DependencyDown) as caught:
            for n in range(2, 2000):
                await ledger.accept([submission(n)])
        assert caught.value.code == "ledger_unwritable"
        assert "full" in caught.value.detail
        assert (await ledger.equation()).missing == 0
        # and by itself again: a fresh connection has no such limit
        await ledger.accept([submission(5000)])
        assert await ledger.expire() == []
    finally:
        await ledger.close()


async def test_a_locked_ledger_is_a_dependency_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unjam.stores.ledger.dialect.BUSY_TIMEOUT_MS", 50)
    ledger = await SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    foreign = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(DependencyDown):
        await ledger.accept([submission(1)])
    with pytest.raises(DependencyDown):
        ledger.renew(WORKER, {}, [])
    assert await ledger.get("d00000001") is None
    foreign.close()
    await ledger.accept([submission(1)])
    await ledger.close()


async def test_leases_do_not_outlive_a_reboot(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = await SqlLedger.open(url)
    await claimed(ledger, await accepted(ledger, 1))
    ledger.renew(WORKER, {}, [])
    await ledger.close()
    other = sa.update(schema.meta).where(schema.meta.c.key == "boot_id").values(value="before")
    on(url, lambda conn: conn.execute(other))
    ledger = await SqlLedger.open(url)
    assert await ledger.processes() == []
    assert len(await ledger.expire()) == 1
    await ledger.close()


async def test_backup_restores(ledger: SqlLedger, ledger_url: str, tmp_path: Path) -> None:
    one = await searchable(ledger, 1, metadata={"k": "값"})
    claim = await claimed(ledger, await accepted(ledger, 2))
    await accepted(ledger, 3)
    target = tmp_path / "backups" / "ledger.bak"
    await ledger.backup(target)
    await ledger.delete(one)  # after the backup: not in it
    assert [p.name for p in target.parent.iterdir()] == ["ledger.bak"]

    url = f"sqlite:///{tmp_path / 'restored' / 'ledger.db'}"
    restore(target, url)
    restored = await SqlLedger.open(url)
    try:
        assert restored.id == ledger.id
        document = await restored.get(one)
        assert document is not None
        assert (document.state, document.metadata) == (State.SEARCHABLE, {"k": "값"})
        equation = await restored.equation()
        assert (equation.accepted, equation.running, equation.missing) == (3, 1, 0)
        assert [t.document_id for t in await restored.expire()] == [claim.document_id]
        (again, _) = await restored.pushable(5)
        await restored.settle(await claimed(restored, again), Done(1))
        assert (await restored.equation()).searchable == 2
    finally:
        await restored.close()
    with pytest.raises(SetupError):
        restore(target, url)


async def test_a_backup_moves_to_postgres(pg_url: str, tmp_path: Path) -> None:
    source = await SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    await searchable(source, 1)
    await source.backup(tmp_path / "copy")
    await source.close()
    restore(tmp_path / "copy", pg_url)
    moved = await SqlLedger.open(pg_url)
    try:
        assert moved.id == source.id
        events = await moved.events(None)
        await searchable(moved, 2)
        assert [e.seq for e in await moved.events(None)][: len(events)] == [e.seq for e in events]
        assert (await moved.equation()).searchable == 2
    finally:
        await moved.close()
    with pytest.raises(SetupError):
        restore(tmp_path / "copy", pg_url)
