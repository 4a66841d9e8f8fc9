"""Group commit: the operations of a process that wait at the same time share one transaction.

``Writer`` runs a group on one connection, through the gate. ``Committer`` is the thread that
forms groups: it takes what is in line once the gate is its own. At rest an operation costs one
commit; under load groups form by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from unjam.core.document import Pin
from unjam.core.errors import DependencyDown, UnjamError
from unjam.core.lease import LEASE_S
from unjam.stores.gate import Gate, no_turn
from unjam.stores.ledger.dialect import (
    Postgres,
    Sqlite,
    as_down,
    down,
    is_lost,
    is_retriable,
    outdated,
)
from unjam.stores.ledger.doubt import Mark, happened
from unjam.stores.ledger.tx import Tx

T = TypeVar("T")
GROUP = 64
"""Documents that a group may touch (one operation may exceed it alone): a turn must stay short,
a few milliseconds, since the heartbeats of other processes stand in the same line."""
PATIENCE_S = 10.0
"""An operation that has not begun by then fails: somebody sits in the gate. A lease: whoever could
not write for so long owns nothing any more, and an upload must not hang."""
BEGUN_S = 45.0
"""One that has begun is waited for longer, as it may still happen: 30 s is the longest statement
on PostgreSQL; a disk that takes longer to sync is no disk."""
DOUBT_S = LEASE_S / 2
"""After a wait this long others may have been kept from renewing, too. They renew every 2 s, so a
lease outlives a shorter one."""
_RUNS = 6  # tries of one group when PostgreSQL reports deadlocks


@dataclass(slots=True)
class Op(Generic[T]):
    """*run* validates before it changes anything; *ids* are the documents it will look at.

    *parting*: a program that is older than the ledger may do it, too, to let go of what it holds.
    """

    run: Callable[[Tx], T]
    ids: Sequence[str] = ()
    weight: int = 1  # documents it touches, about
    parting: bool = False
    future: asyncio.Future[T] | None = None
    begun: bool = False
    result: T | None = None
    error: BaseException | None = field(default=None)

    def settle(self, result: T | None, error: BaseException | None) -> None:
        self.result, self.error = result, error


class _SpoiltError(Exception):
    """An operation failed after it had changed something: run each on its own."""


class Writer:
    """One write connection. For one thread at a time."""

    def __init__(
        self, dialect: Sqlite | Postgres, gate: Gate | None, pins: dict[str, Pin], lane: str
    ) -> None:
        self._dialect = dialect
        self._gate = gate
        self._pins = pins
        self._lane = lane
        self._engine = dialect.writer()
        self._conn: Connection | None = None
        self._committing = False
        self._mark: Mark | None = None  # of the transaction whose COMMIT is under way
        self.last_failure = float("-inf")  # time.monotonic()
        self.newer = ""  # see ``Tx``
        self.clock = (0.0, float("-inf"))  # the database's, and time.monotonic() at that moment

    def run(self, ops: Callable[[], Sequence[Op[Any]]]) -> Sequence[Op[Any]]:
        """Run the operations that *ops* yields once the gate is open; each knows its end."""
        with self._gate.hold() if self._gate else nullcontext():
            if self._gate is not None and self._gate.waited_s > DOUBT_S:
                self.last_failure = time.monotonic()
            group = ops()
            if group:
                self._run_group(group)
        return group

    def _run_group(self, group: Sequence[Op[Any]]) -> None:
        for attempt in range(_RUNS):
            kept = self._conn is not None
            try:
                self._transaction(group)
                return
            except Exception as error:
                self._rollback()
                if is_retriable(error) and attempt + 1 < _RUNS:
                    continue
                if is_lost(error) and attempt + 1 < _RUNS:
                    done = self._did_it_happen() if self._committing else False
                    if done:
                        return
                    # Another connection may do; a new one that failed at once will not.
                    if done is False and (kept or self._committing):
                        continue
                trouble = as_down(error)
                if trouble is None and len(group) > 1:
                    for op in group:
                        self._run_group([op])
                    return
                self._fail(group, error, trouble)
                return

    def _transaction(self, group: Sequence[Op[Any]]) -> None:
        self._committing = False
        if self._conn is None:
            self._conn = self._engine.connect()
        with self._conn.begin() as transaction:
            tx = Tx(self._conn, self._dialect, self._pins, self._lane)
            self.newer, self.clock = tx.newer, (tx.now, time.monotonic())
            tx.load(i for op in group for i in op.ids)
            for op in group:
                before = tx.changes
                if tx.newer and not op.parting:
                    op.settle(None, outdated(tx.newer))
                    continue
                try:
                    op.settle(op.run(tx), None)
                except UnjamError as error:
                    if tx.changes != before and len(group) > 1:
                        raise _SpoiltError from error
                    if tx.changes != before:
                        raise
                    op.settle(None, error)
            tx.finish()
            self._mark, self._committing = tx.mark(), True
            transaction.commit()

    def _did_it_happen(self) -> bool | None:
        if self._mark is None or not isinstance(self._dialect, Postgres):
            return None
        return happened(self._mark, self._engine, self._dialect)

    def _fail(
        self, group: Sequence[Op[Any]], error: Exception, trouble: DependencyDown | None
    ) -> None:
        if trouble is not None:
            self.last_failure = time.monotonic()
        for op in group:
            op.settle(None, trouble or error)

    def _rollback(self) -> None:
        """After any failure the next group starts on a fresh connection."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(Exception):
                conn.invalidate()
            with contextlib.suppress(Exception):
                conn.close()

    def no_turn(self) -> DependencyDown:
        """What those are told who waited in vain."""
        self.last_failure = time.monotonic()
        return down(no_turn(PATIENCE_S, self._gate.guard if self._gate else None))

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None
        self._engine.dispose()
        if self._gate is not None:
            self._gate.close()


class Committer:
    """The thread that commits. ``submit`` may be called from any event loop of this process."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._pid = os.getpid()
        self._line: deque[Op[Any]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="ledger-commit", daemon=True)
        self._thread.start()

    async def submit(
        self,
        run: Callable[[Tx], T],
        ids: Sequence[str] = (),
        weight: int = 0,
        *,
        parting: bool = False,
    ) -> T:
        """The operation's result, once it is durable. *weight*: documents, if not len(*ids*).

        Raises:
            DependencyDown: ledger_unwritable; the operation did not happen (of one that was begun
                and did not end within ``BEGUN_S``, nobody knows). ledger_newer: it is not
                *parting*, and a newer program has migrated the ledger meanwhile.
            UnjamError: whatever *run* raised.
        """
        if os.getpid() != self._pid:
            raise RuntimeError("the ledger was opened before a fork; open it in the child")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        op = Op(run, ids, weight or max(1, len(ids)), parting, future)
        self._enter(op)
        try:
            await asyncio.wait([future], timeout=PATIENCE_S)
            if not future.done() and not self._drop(op):
                await asyncio.wait([future], timeout=BEGUN_S)
        except asyncio.CancelledError:
            future.cancel()
            raise
        if future.done() and not future.cancelled():
            return future.result()
        future.cancel()
        raise self._writer.no_turn()

    def post(self, run: Callable[[Tx], object]) -> None:
        """Do it when there is a turn; nobody waits for it. From any thread."""
        with contextlib.suppress(DependencyDown):
            self._enter(Op(run))

    def _enter(self, op: Op[Any]) -> None:
        with self._wake:
            if self._closing:
                raise down("it is closed")
            self._line.append(op)
            self._wake.notify()

    def _drop(self, op: Op[Any]) -> bool:
        """Take it out of the line; False when it has begun."""
        with self._wake:
            if not op.begun and op.future is not None:
                op.future.cancel()
            return not op.begun

    def close(self) -> None:
        """Finish what is in line, then stop. Blocking, but not for longer than a turn may take: a
        thread that stands before the gate is left there, and ends with the process."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(PATIENCE_S)
        if not self._thread.is_alive():
            self._writer.close()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._line and not self._closing:
                    self._wake.wait()
                if not self._line:
                    return
            taken: list[Op[Any]] = []
            try:
                self._writer.run(lambda: self._take(taken))  # noqa: B023 - called at once
            except BaseException as error:  # the gate's folder is gone, or the like
                trouble = as_down(error) or error
                for op in taken or self._take(taken):
                    op.settle(None, trouble)
            _resolve(taken)

    def _take(self, taken: list[Op[Any]]) -> list[Op[Any]]:
        weight = 0
        with self._wake:
            while self._line and (not taken or weight + self._line[0].weight <= GROUP):
                op = self._line.popleft()
                # Nobody waits for a cancelled one any more, so it does not happen.
                if op.future is None or not op.future.cancelled():
                    op.begun = True
                    taken.append(op)
                    weight += op.weight
        return taken


def _resolve(ops: Sequence[Op[Any]]) -> None:
    """Wake the waiting coroutines, one call per event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[Op[Any]]] = {}
    for op in ops:
        if op.future is not None:
            loops.setdefault(op.future.get_loop(), []).append(op)
    for loop, several in loops.items():
        with contextlib.suppress(RuntimeError):  # its loop has ended, and nobody waits there
            loop.call_soon_threadsafe(_deliver, several)


def _deliver(ops: Sequence[Op[Any]]) -> None:
    for op in ops:
        future = op.future
        if future is None or future.done():
            continue
        if op.error is not None:
            future.set_exception(op.error)
        else:
            future.set_result(op.result)
