"""LedgerReader: a ledger opened to be looked at only. It creates, migrates and locks nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from unjam.core.errors import DependencyDown, LedgerVersionError, SetupError
from unjam.stores import schema
from unjam.stores.ledger.dialect import Postgres, Sqlite, as_down, dialect_of, down
from unjam.stores.ledger.vitals import VitalSigns

T = TypeVar("T")


class LedgerReader(VitalSigns):
    """Open it with ``await LedgerReader.open(url)`` and close it; a ``core.vitals.Patient``."""

    def __init__(self, dialect: Sqlite | Postgres) -> None:
        self._dialect = dialect
        self._engine = dialect.reader()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="ledger-look")
        self.id = ""

    @classmethod
    async def open(cls, url: str) -> LedgerReader:
        """
        Raises:
            DependencyDown: ledger_unwritable; it is not there or cannot be read.
            SetupError: the URL names no ledger. LedgerVersionError: it is newer.
        """
        dialect = dialect_of(url)
        if isinstance(dialect, Sqlite):
            if not dialect.path.is_file():
                raise DependencyDown(f"there is no ledger at {dialect.path}", code=_ABSENT)
            uri = f"file:{dialect.path}"
            # mode=ro: a file that is not there must not be created by looking for it.
            dialect = Sqlite(dialect.url.set(database=uri, query={"mode": "ro", "uri": "true"}))
        reader = cls(dialect)
        try:
            reader.id = await reader._read(_identify)
        except BaseException:
            await reader.close()
            raise
        return reader

    async def _read(self, question: Callable[..., T], *args: Any) -> T:
        def work() -> T:
            try:
                with self._engine.connect() as conn, conn.begin():
                    return question(conn, *args)
            except (exc.SQLAlchemyError, OSError) as error:
                raise as_down(error) or down(str(error)) from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._engine.dispose)


_ABSENT = "ledger_unwritable"


def _identify(conn: sa.Connection) -> str:
    version = conn.execute(sa.select(schema.alembic_version.c.version_num)).scalar() or ""
    if version > schema.HEAD:
        raise LedgerVersionError(
            f"the ledger has version {version}, this program knows up to {schema.HEAD}",
            hint="Use the newer unjam that wrote it.",
        )
    if version != schema.HEAD:
        raise SetupError(
            f"the ledger has version {version or 'none'}, this program needs {schema.HEAD}",
            hint="`unjam up` backs it up and migrates it.",
        )
    query = sa.select(schema.meta.c.value).where(schema.meta.c.key == "ledger_id")
    return conn.execute(query).scalar_one()
