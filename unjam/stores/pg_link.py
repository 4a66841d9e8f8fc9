"""A few PostgreSQL connections, each call bounded in time; their failures are DependencyDown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg import AsyncConnection

from unjam.core.errors import DependencyDown

T = TypeVar("T")

CODE = "vector_store_down"
CONNECT_S = 3
MOST = 8
"""Connections of a process: its one writer, and some searches beside it."""

Connection = AsyncConnection[tuple[Any, ...]]


class PgLink:
    """``run`` gives a connection in a transaction.

    *limit_s*: the server itself ends what takes longer, so that a call that was given up here
    does not land later (law 5).
    """

    def __init__(self, url: str, limit_s: float) -> None:
        self._url = url
        self._limit_s = limit_s
        self._idle: list[Connection] = []
        self._places = asyncio.Semaphore(MOST)
        self._left: set[asyncio.Task[Any]] = set()  # given up, not ended yet
        place = urlsplit(url)
        hosts = place.netloc.rpartition("@")[2] or "a socket"  # may be several
        self.shown = f"{hosts}{place.path}"

    async def run(self, work: Callable[[Connection], Awaitable[T]], within_s: float) -> T:
        """*work* in a transaction of its own; once more when a kept connection had died.

        Raises:
            DependencyDown: vector_store_down. psycopg.Error of a statement, unless it says that
                the server is going, full, or read-only.
        """
        task = asyncio.create_task(self._run(work))
        try:
            done, _ = await asyncio.wait({task}, timeout=within_s)
        except asyncio.CancelledError:
            self._leave(task)
            raise
        if not done:
            self._leave(task)
            raise self.down(f"did not answer within {within_s:g} s")
        return task.result()

    def down(self, what: str) -> DependencyDown:
        return DependencyDown(f"PostgreSQL at {self.shown} {what}", code=CODE)

    async def close(self) -> None:
        for task in self._left:
            task.cancel()
        await asyncio.gather(*self._left, return_exceptions=True)
        while self._idle:
            await self._idle.pop().close()

    def _leave(self, task: asyncio.Task[Any]) -> None:
        """psycopg waits for the server's word on a cancelled statement: not we."""
        self._left.add(task)
        task.add_done_callback(self._ended)
        task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # nobody else asks for it

    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._places:
            while True:
                kept = bool(self._idle)
                try:
                    conn = self._idle.pop() if kept else await self._connect()
                    return await self._with(conn, work)
                except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                    if kept and isinstance(error, _Lost):
                        continue
                    raise self.down(f"fails: {_first_line(error)}") from None
                except psycopg.errors.ReadOnlySqlTransaction:
                    # A replica, or a server that became one: the next call connects anew.
                    raise self.down("takes no writes (read-only)") from None

    async def _with(self, conn: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
        good = False
        try:
            async with conn.transaction():
                answer = await work(conn)
            good = True
            return answer
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise (_Lost(str(error)) if conn.closed else error) from None
        except psycopg.errors.ReadOnlySqlTransaction:
            raise
        except psycopg.Error:
            good = not conn.closed  # the statement's own fault
            raise
        finally:
            if good and not conn.closed:
                self._idle.append(conn)
            else:
                await conn.close()

    async def _connect(self) -> Connection:
        conn = await AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=CONNECT_S, prepare_threshold=None
        )
        limit_ms = str(int(self._limit_s * 1000))
        await conn.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('idle_in_transaction_session_timeout', %s, false)",
            (limit_ms, limit_ms),
        )
        return conn


class _Lost(psycopg.OperationalError):
    """The connection is gone."""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
