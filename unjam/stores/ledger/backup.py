"""Backup to, and restore from, one SQLite file, whatever the ledger lives in."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, exc

from unjam.core.errors import SetupError
from unjam.stores import schema
from unjam.stores.ledger.dialect import Postgres, Sqlite, as_down, dialect_of
from unjam.stores.ledger.opening import copy_sqlite, prepare, sync_folder

_BLOCK = 1_000  # rows copied at a time


def backup(dialect: Sqlite | Postgres, reader: Engine, target: Path) -> None:
    """Blocking. The ledger goes on being written meanwhile; the copy is one moment of it.

    Raises:
        DependencyDown: ledger_unwritable (no room for the copy, no ledger).
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(dialect, Sqlite):
            copy_sqlite(dialect.path, target)
            return
        half = target.with_name(target.name + ".rows")
        half.unlink(missing_ok=True)
        copy = Sqlite(sa.URL.create("sqlite", database=str(half)))
        prepare(copy, None)
        _copy_rows(reader, copy.writer())
        copy_sqlite(half, target)
        half.unlink()
    except (exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise as_down(error) or error from error


def restore(source: Path, url: str) -> None:
    """Blocking. Put a backup where *url* points; nothing may be there yet.

    Leases of the backup are over: their documents are taken up again by the reconciler.

    Raises:
        SetupError: a ledger is there already, or *source* is none.
        DependencyDown: ledger_unwritable.
    """
    if not source.is_file():
        raise SetupError(f"{source} is no backup")
    dialect = dialect_of(url)
    if isinstance(dialect, Sqlite):
        if dialect.path.exists():
            raise SetupError(f"{dialect.path} exists already", hint="Move it away first.")
        dialect.path.parent.mkdir(parents=True, exist_ok=True)
        copy_sqlite(source, dialect.path)
        engine = dialect.writer()
    else:
        prepare(dialect, None)
        engine = dialect.writer()
        _copy_rows(Sqlite(sa.URL.create("sqlite", database=str(source))).reader(), engine)
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE documents SET lease_until = 0 WHERE worker <> ''"))
        conn.execute(sa.delete(schema.processes))
        conn.execute(sa.delete(schema.leaders))
        # Another boot, and a Redis that knows nothing of this ledger yet: nothing was lost there.
        conn.execute(sa.delete(schema.meta).where(schema.meta.c.key.in_(("boot_id", "epoch"))))
    engine.dispose()
    if isinstance(dialect, Sqlite):
        sync_folder(dialect.path.parent)


def _copy_rows(source: Engine, target: Engine) -> None:
    with source.connect() as old, old.begin(), target.begin() as new:
        taken = new.execute(sa.select(schema.acceptances.c.document_id).limit(1)).first()
        if taken is not None:
            raise SetupError("the ledger is not empty", hint="Restore into a fresh one.")
        skipped = (schema.alembic_version, schema.tallies)  # the latter follow from the rows
        for table in schema.metadata.sorted_tables:
            if table in skipped:
                continue
            new.execute(sa.delete(table))
            _copy_table(old, new, table)
        if new.dialect.name == "postgresql":
            for table in (schema.events, schema.cleanups, schema.audit):
                _move_sequence(new, table)
    source.dispose()
    target.dispose()


def _copy_table(old: Connection, new: Connection, table: sa.Table) -> None:
    rows = old.execution_options(yield_per=_BLOCK).execute(sa.select(table)).mappings()
    for block in rows.partitions(_BLOCK):
        new.execute(sa.insert(table), [dict(row) for row in block])


def _move_sequence(conn: Connection, table: sa.Table) -> None:
    key = next(iter(table.primary_key.columns)).name
    conn.execute(
        sa.text(
            f"SELECT setval(pg_get_serial_sequence('{table.name}', '{key}'),"
            f" (SELECT coalesce(max({key}), 0) + 1 FROM {table.name}), false)"
        )
    )
