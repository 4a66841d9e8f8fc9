"""Where SQLite and PostgreSQL differ: engines, clocks, locks, and what their errors mean."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from unjam import __version__
from unjam.core.errors import DependencyDown, LedgerVersionError, SetupError
from unjam.stores import schema

BUSY_TIMEOUT_MS = 5_000
FROZEN_S = 4.0
"""Between two statements of a write there are microseconds of Python."""
READERS = 4
CONNECT_S = 5
SILENT_MS = 10_000
"""A host that answers nothing is given up after this long, in the middle of a statement, too."""
_READ_ONLY = "ReadOnlySqlTransaction"  # SQLSTATE 25006
_RETRIABLE = ("DeadlockDetected", "SerializationFailure", "LockNotAvailable")


class Dialect(Protocol):
    """The seam; everything else is the same code on both databases."""

    name: str
    url: URL

    def writer(self) -> Engine: ...

    def reader(self) -> Engine:
        """Read-only connections whose transactions see one snapshot."""
        ...

    def clock(self, conn: Connection) -> tuple[float, float]:
        """(Unix seconds, lease clock in seconds)."""
        ...

    def moment(self, conn: Connection) -> tuple[float, float, str]:
        """``clock``, and the version of the ledger, in as few questions."""
        ...

    def lock(self, conn: Connection, key: int) -> None:
        """Hold *key* until the transaction ends; SQLite's writer holds everything already."""
        ...

    def locking(
        self, select: sa.Select[Any], order: sa.ColumnElement[Any], *, free: bool = False
    ) -> sa.Select[Any]:
        """*select*, with its rows locked in a fixed order against other writers; with *free*
        only those that are not locked already (SKIP LOCKED)."""
        ...


class Sqlite:
    name = "sqlite"

    def __init__(self, url: URL, *, durable: bool = True) -> None:
        self.url = url
        self._synchronous = "FULL" if durable else "OFF"

    @property
    def path(self) -> Path:
        return Path(str(self.url.database))

    def writer(self) -> Engine:
        return self._engine(f"PRAGMA synchronous={self._synchronous}", "BEGIN IMMEDIATE", 1)

    def reader(self) -> Engine:
        return self._engine("PRAGMA query_only=1", "BEGIN", READERS)

    def _engine(self, pragma: str, begin: str, size: int) -> Engine:
        engine = sa.create_engine(
            self.url,
            connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
            pool_size=size,
            max_overflow=0,
        )

        @event.listens_for(engine, "connect")
        def _connected(dbapi: Any, _record: Any) -> None:  # pyright: ignore[reportUnusedFunction]
            dbapi.isolation_level = None  # transactions are begun by us, not by the driver
            for line in (
                f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}",
                "PRAGMA foreign_keys=ON",
                "PRAGMA temp_store=MEMORY",
                "PRAGMA cache_size=-32000",  # KiB
                pragma,
            ):
                dbapi.execute(line)

        @event.listens_for(engine, "begin")
        def _begun(conn: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
            conn.exec_driver_sql(begin)

        return engine

    def clock(self, conn: Connection) -> tuple[float, float]:
        return time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)

    def moment(self, conn: Connection) -> tuple[float, float, str]:
        version = conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
        return (*self.clock(conn), version)

    def lock(self, conn: Connection, key: int) -> None:
        pass

    def locking(
        self, select: sa.Select[Any], order: sa.ColumnElement[Any], *, free: bool = False
    ) -> sa.Select[Any]:
        return select


class Postgres:
    name = "postgresql"

    def __init__(self, url: URL) -> None:
        self.url = url.set(drivername="postgresql+psycopg")

    def writer(self) -> Engine:
        # A client that froze inside a transaction must not keep its locks: the server ends its
        # session, and with it the transaction, before a lease that it holds up runs out.
        return self._engine(2, "READ COMMITTED", _idle_at_most(FROZEN_S), "read-write")

    def reader(self) -> Engine:
        # A frozen reader keeps vacuum from cleaning up, nothing worse; a backup may be slow.
        return self._engine(
            READERS,
            "REPEATABLE READ",
            f"-c default_transaction_read_only=on {_idle_at_most(60.0)}",
            "primary",  # our own read-only sessions would be no "read-write" ones
        ).execution_options(postgresql_readonly=True)

    def _engine(self, size: int, isolation: Any, options: str, wanted: str) -> Engine:
        several = len(_hosts(self.url)) > 1
        # Of several hosts the one that takes writes. With one host it is asked as it is: a
        # connection to a standby then says by itself that it cannot be written to.
        aim = {"target_session_attrs": wanted, "connect_timeout": 2} if several else {}
        return sa.create_engine(
            self.url.difference_update_query(["target_session_attrs"] if several else []),
            pool_size=size,
            max_overflow=0,
            isolation_level=isolation,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": CONNECT_S,
                "tcp_user_timeout": SILENT_MS,
                # The server's own look-out for a client whose host is gone, seconds.
                "options": f"{options} -c statement_timeout=30000 -c tcp_keepalives_idle=5"
                " -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3",
                "keepalives_idle": 10,
                "keepalives_interval": 3,
                "keepalives_count": 3,
                **aim,
            },
        )

    def clock(self, conn: Connection) -> tuple[float, float]:
        now = float(conn.exec_driver_sql(_PG_NOW).scalar_one())
        return now, now

    def moment(self, conn: Connection) -> tuple[float, float, str]:
        now, version = conn.exec_driver_sql(_PG_MOMENT).one()
        return float(now), float(now), version

    def lock(self, conn: Connection, key: int) -> None:
        conn.execute(_PG_LOCK, {"key": key})

    def locking(
        self, select: sa.Select[Any], order: sa.ColumnElement[Any], *, free: bool = False
    ) -> sa.Select[Any]:
        return select.order_by(order).with_for_update(skip_locked=free)


def _hosts(url: URL) -> tuple[str, ...]:
    named = url.query.get("host", ())
    return (named,) if isinstance(named, str) else named


def several_hosts(url: str) -> str:
    """``//user@h1:5432,h2/db``, as libpq has it, in SQLAlchemy's form (``?host=…&host=…``)."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    user, at, hosts = place.rpartition("@")
    if "," not in hosts:
        return url
    path, _, query = path.partition("?")
    named = "&".join([f"host={host}" for host in hosts.split(",")] + ([query] if query else []))
    return f"{scheme}://{user}{at}{slash}{path}?{named}"


def _idle_at_most(seconds: float) -> str:
    return f"-c idle_in_transaction_session_timeout={round(seconds * 1000)}"


_PG_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"
_PG_MOMENT = f"{_PG_NOW}, (SELECT version_num FROM alembic_version)"
_PG_LOCK = sa.text("SELECT pg_advisory_xact_lock(:key)")


def dialect_of(url: str, *, durable: bool = True) -> Sqlite | Postgres:
    """The seam for *url* (``sqlite:////path``, or ``postgresql://…`` with one host or several).

    Raises:
        SetupError: another scheme, or SQLite without a file.
    """
    try:
        parsed = make_url(several_hosts(url))
    except (exc.ArgumentError, ValueError) as error:
        raise SetupError(f"RAG_DATABASE_URL cannot be read: {error}", hint=_URL_HINT) from error
    backend = parsed.drivername.partition("+")[0]
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return Sqlite(parsed.set(drivername="sqlite"), durable=durable)
    if backend in ("postgresql", "postgres"):
        return Postgres(parsed)
    raise SetupError(f"a ledger cannot live in {parsed.drivername!r}", hint=_URL_HINT)


_URL_HINT = "Use sqlite:////absolute/path/ledger.db or postgresql://user@host/database."


def is_retriable(error: BaseException) -> bool:
    """Whether the same transaction may simply be run again (PostgreSQL's deadlocks)."""
    return isinstance(error, DBAPIError) and type(error.orig).__name__ in _RETRIABLE


def is_lost(error: BaseException) -> bool:
    """Whether the connection is of no use any more: gone, or to a server that became read-only."""
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or type(error.orig).__name__ == _READ_ONLY


def outdated(version: str) -> DependencyDown:
    """What a program is told whose ledger was brought to *version* by a newer one."""
    return DependencyDown(
        f"a newer unjam brought the ledger to version {version} while this one "
        f"({__version__}) ran, which knows up to {schema.HEAD}",
        code=LedgerVersionError.code,
        hint="Install that unjam on this host and restart it; the other hosts go on.",
        shared=False,
    )


def as_down(error: BaseException) -> DependencyDown | None:
    """DependencyDown when *error* means that the database is away, full, locked or read-only."""
    if isinstance(error, DBAPIError):
        trouble = (OperationalError, InterfaceError)
        if isinstance(error, trouble) or error.connection_invalidated or _is_damage(error):
            return down(str(error.orig))
    if isinstance(error, (OSError, exc.TimeoutError)):
        return down(str(error))
    return None


def _is_damage(error: DBAPIError) -> bool:
    # sqlite3 raises a bare DatabaseError for a damaged file.
    return type(error.orig).__name__ in ("DatabaseError", "InternalError", _READ_ONLY)


def down(detail: str) -> DependencyDown:
    first = detail.strip().partition("\n")[0]
    return DependencyDown(
        f"the ledger cannot be used: {first}",
        code="ledger_unwritable",
        hint="Free disk space, or check the database server; work goes on by itself.",
    )
