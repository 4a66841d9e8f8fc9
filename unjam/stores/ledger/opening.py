"""Opening a ledger: create it, migrate an older one, refuse a newer one.

An up-to-date ledger is recognised by one row, without Alembic (whose import is slow).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, exc

from unjam.core.errors import LedgerVersionError
from unjam.stores import schema, triggers
from unjam.stores.gate import Gate
from unjam.stores.ledger.dialect import Postgres, Sqlite, as_down

PATIENCE_S = 60.0
"""For the gate: another process may be migrating a large ledger."""

_OPEN_LOCK = 0x6F70656E  # any constant; "open" in ASCII


def prepare(dialect: Sqlite | Postgres, gate: Gate | None) -> str:
    """Bring the ledger up to date and return its id.

    Raises:
        LedgerVersionError: it was written by a newer program.
        DependencyDown: ledger_unwritable.
    """
    engine = dialect.writer()
    try:
        with gate.hold(PATIENCE_S) if gate else nullcontext():
            if isinstance(dialect, Sqlite):
                _use_wal(dialect.path)
            _bring_up(engine, dialect)
            with engine.begin() as conn:
                if isinstance(dialect, Sqlite):
                    _notice_reboot(conn)
                query = sa.select(schema.meta.c.value).where(schema.meta.c.key == "ledger_id")
                return conn.execute(query).scalar_one()
    except (exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        trouble = as_down(error)
        if trouble is None:
            raise
        raise trouble from error
    finally:
        engine.dispose()


def _use_wal(path: Path) -> None:
    conn = sqlite3.connect(path, timeout=5)
    try:
        conn.execute("PRAGMA journal_mode=WAL")  # kept in the file; a no-op later
    except sqlite3.Error as error:
        raise exc.OperationalError("PRAGMA journal_mode=WAL", None, error) from error
    finally:
        conn.close()


def _bring_up(engine: Engine, dialect: Sqlite | Postgres) -> None:
    with engine.begin() as conn:
        dialect.lock(conn, _OPEN_LOCK)
        version = _version(conn)
        if version == schema.HEAD:
            return
        if version is None:
            _create(conn)
            return
        if version > schema.HEAD:
            raise LedgerVersionError(
                f"the ledger has version {version}, this program knows up to {schema.HEAD}",
                hint="Install the newer unjam again, or restore the backup made before its update.",
            )
    if isinstance(dialect, Sqlite):
        _keep_copy(dialect.path, version)
    with engine.begin() as conn:
        dialect.lock(conn, _OPEN_LOCK)
        if _version(conn) != schema.HEAD:
            if isinstance(dialect, Postgres):  # an index over many documents takes its time
                for bound in ("statement_timeout", "idle_in_transaction_session_timeout"):
                    conn.exec_driver_sql(f"SET LOCAL {bound} = 0")
            upgrade(conn)


def _version(conn: Connection) -> str | None:
    if not sa.inspect(conn).has_table("alembic_version"):
        return None
    return conn.execute(sa.select(schema.alembic_version.c.version_num)).scalar()


def _create(conn: Connection) -> None:
    schema.metadata.create_all(conn)
    for statement in triggers.triggers(conn.dialect.name):
        conn.exec_driver_sql(statement)
    conn.execute(sa.insert(schema.tallies), triggers.tally_rows(conn.dialect.name))
    conn.execute(sa.insert(schema.alembic_version), {"version_num": schema.HEAD})
    conn.execute(sa.insert(schema.meta), {"key": "ledger_id", "value": str(uuid.uuid4())})


def upgrade(conn: Connection, revision: str = "head") -> None:
    """Run the migrations inside the caller's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "unjam.stores:migrations")
    config.attributes["connection"] = conn
    command.upgrade(config, revision)


def _keep_copy(path: Path, version: str) -> None:
    """A consistent copy of the older ledger beside it, before anything is changed."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    copy_sqlite(path, path.with_name(f"{path.name}.{version}.{stamp}.bak"))


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a live SQLite ledger through its own backup call; on disk when this returns."""
    half = target.with_name(target.name + ".part")
    half.unlink(missing_ok=True)
    with (
        contextlib.closing(sqlite3.connect(source, timeout=5)) as old,
        contextlib.closing(sqlite3.connect(half)) as new,
    ):
        old.backup(new, pages=-1)
        # A copy is one file that stands alone, without a log beside it.
        new.execute("PRAGMA journal_mode=DELETE")
    fd = os.open(half, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    half.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _notice_reboot(conn: Connection) -> None:
    """The lease clock starts anew with the host, so leases of an earlier boot have run out."""
    table = schema.meta
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = conn.execute(sa.select(table.c.value).where(table.c.key == "boot_id")).scalar()
    if known == boot_id:
        return
    held = sa.text("UPDATE documents SET lease_until = 0 WHERE worker <> ''")
    conn.execute(held)
    conn.execute(sa.delete(schema.processes))
    conn.execute(sa.delete(schema.leaders))
    conn.execute(sa.delete(table).where(table.c.key == "boot_id"))
    conn.execute(sa.insert(table), {"key": "boot_id", "value": boot_id})
