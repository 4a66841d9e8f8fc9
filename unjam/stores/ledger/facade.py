"""SqlLedger: ``core.ports.Ledger`` over one file (SQLite) or one server (PostgreSQL).

This page only says which question goes where: writes to the committer's groups (``intake``,
``claims``, ``people``, ``upkeep``), reads to a few threads with snapshots (``reads``).
"""

from __future__ import annotations

import asyncio
import builtins
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, exc

from unjam.core.breaker import Breaker
from unjam.core.document import (
    Accepted,
    Claim,
    ClaimAnswer,
    Document,
    Pin,
    State,
    Submission,
    Ticket,
)
from unjam.core.errors import DependencyDown
from unjam.core.events import Event
from unjam.core.outcome import Outcome
from unjam.core.ports import (
    Backlog,
    Cleanup,
    Equation,
    Page,
    Progress,
    Settled,
    VisibleDocument,
    WorkerRef,
)
from unjam.stores.gate import Gate
from unjam.stores.gate_guard import Freed, Guard
from unjam.stores.ledger import (
    backlog,
    claims,
    deaths,
    dependencies,
    intake,
    people,
    reads,
    upkeep,
)
from unjam.stores.ledger.backup import backup
from unjam.stores.ledger.book import DeadLetterBook
from unjam.stores.ledger.commit import PATIENCE_S, Committer, Op, Writer
from unjam.stores.ledger.dialect import READERS, Postgres, Sqlite, as_down, dialect_of
from unjam.stores.ledger.housekeeping import Housekeeping
from unjam.stores.ledger.judging import Judging
from unjam.stores.ledger.opening import prepare
from unjam.stores.ledger.vector_audit import VectorAuditLedger

T = TypeVar("T")


class SqlLedger(DeadLetterBook, Housekeeping, VectorAuditLedger, deaths.DeathBook, Judging):
    """Open it with ``await SqlLedger.open(url)``, after any fork. Safe from any loop or thread."""

    def __init__(
        self,
        ledger_id: str,
        dialect: Sqlite | Postgres,
        gate_dir: Path | None,
        lane: str,
        freed: Callable[[Freed], None] = lambda _: None,
    ) -> None:
        self.id = ledger_id
        self._dialect = dialect
        self._guard = Guard(lambda one: self._note_freed(one, freed))
        pins: dict[str, Pin] = {}
        self._writer = Writer(dialect, _gate(dialect, gate_dir, self._guard), pins, lane)
        self._committer = Committer(self._writer)
        self._keeper = Writer(dialect, _gate(dialect, gate_dir, self._guard), pins, lane)
        self._keeping = threading.Lock()
        self._reader = dialect.reader()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="ledger-read")
        self._begin_judging()

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        gate_dir: Path | None = None,
        suspect_lane: str = "rag_large_docs",
        durable: bool = True,
        freed: Callable[[Freed], None] = lambda _: None,
    ) -> SqlLedger:
        """Create, migrate or just open the ledger at *url*.

        *gate_dir* holds the gate's two lock files (SQLite only; default: beside the file); all
        processes must name the same. *durable* False is for throw-away ledgers. *freed* is told,
        in a thread, of a process that stood frozen in the gate and was woken or killed for it.

        Raises:
            DependencyDown: ledger_unwritable. LedgerVersionError: it is newer than this program.
            SetupError: the URL names no ledger.
        """

        def work() -> SqlLedger:
            dialect = dialect_of(url, durable=durable)
            gate = _gate(dialect, gate_dir)
            try:
                ledger_id = prepare(dialect, gate)
            finally:
                if gate is not None:
                    gate.close()
            return cls(ledger_id, dialect, gate_dir, suspect_lane, freed)

        opened = await asyncio.to_thread(work)
        await opened._doubt_silence()
        opened._writer.clock = await opened._read(opened._look_at_clock)
        return opened

    async def close(self) -> None:
        """What is in line is still committed."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._committer.close()
        if self._keeping.acquire(timeout=PATIENCE_S):  # else it stands before the gate
            self._keeper.close()
            self._keeping.release()
        self._guard.close()
        self._readers.shutdown()
        self._reader.dispose()

    async def _read(self, question: Callable[..., T], *args: Any) -> T:
        def work() -> T:
            try:
                with self._reader.connect() as conn, conn.begin():
                    return question(conn, *args)
            except (exc.SQLAlchemyError, OSError) as error:
                trouble = as_down(error)
                if trouble is None:
                    raise
                raise trouble from error

        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    # -- documents, as users see them --------------------------------------------------------
    async def accept(self, submissions: Sequence[Submission]) -> builtins.list[Accepted]:
        return await self._committer.submit(
            lambda tx: intake.accept(tx, submissions), weight=len(submissions)
        )

    async def find_live(self, user_id: str, content_hashes: Sequence[str]) -> dict[str, str]:
        return await self._read(reads.find_live, user_id, content_hashes)

    async def find_idempotent(self, user_id: str, key: str) -> tuple[str, str] | None:
        return await self._read(reads.find_idempotent, user_id, key)

    async def replace(self, document_id: str, submission: Submission) -> Accepted:
        return await self._committer.submit(
            lambda tx: intake.replace(tx, document_id, submission), [document_id]
        )

    async def get(self, document_id: str) -> Document | None:
        return await self._read(reads.get, document_id)

    async def get_many(self, document_ids: Sequence[str]) -> builtins.list[Document]:
        return await self._read(reads.get_many, document_ids)

    async def list(
        self,
        *,
        state: State | None = None,
        user_id: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        return await self._read(reads.page, state, user_id, cursor, limit)

    async def cancel(self, document_id: str) -> Document:
        return await self._committer.submit(
            lambda tx: people.cancel(tx, document_id), [document_id]
        )

    async def retry(self, document_id: str, pin: Pin | None = None) -> Ticket:
        return await self._committer.submit(
            lambda tx: people.retry(tx, document_id, pin), [document_id]
        )

    async def delete(self, document_id: str) -> None:
        await self._committer.submit(lambda tx: people.delete(tx, document_id), [document_id])

    async def events(
        self, document_id: str | None, after: int = 0, limit: int = 200
    ) -> builtins.list[Event]:
        return await self._read(reads.events, document_id, after, limit)

    async def last_event(self) -> int:
        """Number of the newest event, to tail from; 0 when there is none."""
        return await self._read(reads.last_event)

    async def equation(self) -> Equation:
        return await self._read(reads.equation)

    async def state_counts(self) -> dict[State, int]:
        return await self._read(reads.state_counts)

    async def backlog(self) -> Backlog:
        def question(conn: Connection) -> Backlog:
            return backlog.measure(conn, self._dialect.clock(conn)[0])

        return await self._read(question)

    async def counters(self) -> dict[tuple[str, str], float]:
        return await self._read(reads.counters)

    async def visible(self, document_ids: Sequence[str]) -> dict[str, VisibleDocument]:
        return await self._read(reads.visible, builtins.list(document_ids))

    async def pins_in_use(self) -> builtins.list[Pin]:
        return await self._read(reads.pins_in_use)

    async def repin(self, pin: Pin, limit: int) -> builtins.list[Ticket]:
        return await self._committer.submit(lambda tx: people.repin(tx, pin, limit))

    # -- lanes -------------------------------------------------------------------------------
    async def pushable(self, limit: int) -> builtins.list[Ticket]:
        return await self._read(reads.pushable, limit)

    async def mark_pushed(self, tickets: Sequence[Ticket]) -> None:
        if tickets:
            await self._committer.submit(lambda tx: upkeep.mark_pushed(tx, tickets), _ids(tickets))

    async def queued_slice(self, after_id: str, limit: int) -> builtins.list[Ticket]:
        return await self._read(reads.queued_slice, after_id, limit)

    async def requeue(self, tickets: Sequence[Ticket], why: str) -> builtins.list[Ticket]:
        if not tickets:
            return []
        return await self._committer.submit(
            lambda tx: upkeep.requeue(tx, tickets, why), _ids(tickets)
        )

    # -- claims ------------------------------------------------------------------------------
    async def claim(
        self, tickets: Sequence[Ticket], worker: WorkerRef, max_concurrent: int
    ) -> builtins.list[ClaimAnswer]:
        if not tickets:
            return []
        return await self._committer.submit(
            lambda tx: claims.claim(tx, tickets, worker, max_concurrent), _ids(tickets)
        )

    def renew(
        self,
        worker: WorkerRef,
        tokens: Mapping[str, int],
        progress: Sequence[Progress],
        rss_bytes: int = 0,
    ) -> set[str]:
        """Blocking, from a plain thread; on a connection of its own. Raises DependencyDown."""
        told = (worker, tokens, progress, rss_bytes)
        op = Op(lambda tx: claims.renew(tx, *told), builtins.list(tokens), parting=True)
        with self._keeping:
            try:
                self._keeper.run(lambda: [op])
            except OSError as error:  # the gate's folder is gone
                raise as_down(error) or error from error
        if op.error is not None:
            raise op.error
        assert op.result is not None
        return op.result

    async def report(self, progress: Progress) -> None:
        ids = [progress.document_id]
        await self._committer.submit(lambda tx: claims.report(tx, progress), ids, parting=True)

    async def settle(self, claim: Claim, outcome: Outcome) -> Settled:
        return await self._committer.submit(
            lambda tx: claims.settle(tx, claim, outcome), [claim.document_id], parting=True
        )

    async def retire(self, worker_id: str) -> None:
        await self._committer.submit(lambda tx: upkeep.retire(tx, worker_id), parting=True)

    # -- the reconciler's questions ----------------------------------------------------------
    async def wake(self, limit: int = 500) -> builtins.list[Ticket]:
        return await self._committer.submit(lambda tx: upkeep.wake(tx, limit))

    async def due_cleanups(self, limit: int = 100) -> builtins.list[Cleanup]:
        def question(conn: Connection) -> builtins.list[Cleanup]:
            return reads.due_cleanups(conn, self._dialect.clock(conn)[0], limit)

        return await self._read(question)

    async def finish_cleanups(self, ids: Sequence[int]) -> None:
        await self._committer.submit(lambda tx: upkeep.finish_cleanups(tx, ids))

    async def unreferenced_blobs(self, older_than_s: float, limit: int = 100) -> builtins.list[str]:
        def question(conn: Connection) -> builtins.list[str]:
            before = self._dialect.clock(conn)[0] - older_than_s
            return reads.unreferenced_blobs(conn, before, limit)

        return await self._read(question)

    async def forget_blob(self, content_hash: str) -> bool:
        return await self._committer.submit(lambda tx: upkeep.forget_blob(tx, content_hash))

    async def processes(self) -> builtins.list[tuple[WorkerRef, float]]:
        def question(conn: Connection) -> builtins.list[tuple[WorkerRef, float]]:
            return reads.processes(conn, self._dialect.clock(conn)[1])

        return await self._read(question)

    async def lead(self, role: str, holder: str, ttl_s: float) -> bool:
        return await self._committer.submit(lambda tx: upkeep.lead(tx, role, holder, ttl_s))

    # -- the house ---------------------------------------------------------------------------
    async def knobs(self) -> dict[str, int]:
        return await self._read(reads.knobs)

    async def set_knob(self, name: str, value: int, by: str) -> None:
        await self._committer.submit(lambda tx: people.set_knob(tx, name, value, by))

    async def audit(self, limit: int = 100) -> builtins.list[dict[str, Any]]:
        """Who changed what, newest first: id, at, by, action, data."""
        return await self._read(reads.audit, limit)

    async def note_audit(self, by: str, action: str, data: Mapping[str, Any]) -> None:
        await self._committer.submit(lambda tx: people.write_audit(tx, by, action, dict(data)))

    async def dependency_states(self) -> dict[str, Breaker]:
        return await self._read(dependencies.states)

    async def report_dependency(
        self,
        name: str,
        reason: str,
        detail: str = "",
        told_s: float | None = None,
        *,
        checked: bool = False,
    ) -> Breaker:
        told = (name, reason, detail, told_s, checked)
        return await self._committer.submit(lambda tx: dependencies.report(tx, *told))

    async def probe_dependency(self, name: str) -> bool:
        return await self._committer.submit(lambda tx: dependencies.probe(tx, name))

    async def close_dependency(self, name: str) -> int:
        return await self._committer.submit(lambda tx: dependencies.close(tx, name))

    async def bump_epoch(self, seen: int | None = None) -> int:
        if seen is None:
            return int(await self._read(reads.get_meta, "epoch") or 0)
        return await self._committer.submit(lambda tx: upkeep.bump_epoch(tx, seen))

    async def backup(self, target: Path) -> None:
        """A consistent copy in one SQLite file, whatever the ledger lives in."""
        await asyncio.to_thread(backup, self._dialect, self._reader, target)


def _gate(
    dialect: Sqlite | Postgres, gate_dir: Path | None, guard: Guard | None = None
) -> Gate | None:
    if not isinstance(dialect, Sqlite):
        return None
    try:
        dialect.path.parent.mkdir(parents=True, exist_ok=True)
        return Gate(gate_dir or dialect.path.parent, guard=guard)
    except OSError as error:
        trouble: DependencyDown | None = as_down(error)
        raise trouble or error from error


def _ids(tickets: Sequence[Ticket]) -> builtins.list[str]:
    return [t.document_id for t in tickets]
