"""When silence is a death, and when it may be an outage; and who was freed from the gate."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from unjam.core.document import Ticket
from unjam.core.lease import LEASE_S
from unjam.core.ports import WorkerRef
from unjam.stores.gate_guard import Freed, Guard
from unjam.stores.ledger import deaths
from unjam.stores.ledger.commit import DOUBT_S, Committer, Writer
from unjam.stores.ledger.dialect import Postgres, Sqlite, outdated
from unjam.stores.ledger.people import write_audit
from unjam.stores.ledger.tx import Tx

GATE = "gate"
"""Who did it, in the audit."""


class Judging:
    """Mixed into ``SqlLedger``. The promises stand in ``core.ports.Ledger``."""

    _committer: Committer
    _writer: Writer
    _keeper: Writer
    _guard: Guard
    _dialect: Sqlite | Postgres

    async def processes(self) -> builtins.list[tuple[WorkerRef, float]]:
        raise AssertionError("the ledger brings its own")

    def _begin_judging(self) -> None:
        self._asleep_s = _asleep_s()
        self._resumed = float("-inf")

    async def expire(
        self, dead_workers: Sequence[str] = (), limit: int = 500
    ) -> builtins.list[Ticket]:
        if not self._may_judge_time() and not dead_workers:
            return []
        asked = time.monotonic()

        def work(tx: Tx) -> builtins.list[Ticket]:
            # Asked again: whatever kept this from its turn kept others from renewing.
            judge = self._may_judge_time() and time.monotonic() - asked <= DOUBT_S
            return deaths.expire(tx, dead_workers, limit, judge)

        return await self._committer.submit(work)

    async def _doubt_silence(self) -> None:
        """When not one process was heard of for a lease, perhaps none could write: an outage that
        this process has not seen. Who is known to be dead is judged all the same."""
        ages = [age for _, age in await self.processes()]
        if ages and min(ages) > LEASE_S:
            self._resumed = time.monotonic()

    def _may_judge_time(self) -> bool:
        """Not within a lease of an outage or a suspend: nobody could renew meanwhile."""
        asleep_s = _asleep_s()
        if asleep_s > self._asleep_s + 1.0:
            self._asleep_s, self._resumed = asleep_s, time.monotonic()
        trouble = max(self._writer.last_failure, self._keeper.last_failure, self._resumed)
        return time.monotonic() - trouble > LEASE_S

    def now(self) -> float:
        if isinstance(self._dialect, Sqlite):
            return time.time()
        at, seen = max(self._writer.clock, self._keeper.clock, key=lambda pair: pair[1])
        return at + time.monotonic() - seen

    def _look_at_clock(self, conn: Connection) -> tuple[float, float]:
        return self._dialect.clock(conn)[0], time.monotonic()

    @property
    def newer(self) -> str:
        version = self._writer.newer or self._keeper.newer
        return outdated(version).detail if version else ""

    def in_the_way(self) -> str:
        """Who sits in the gate while this process waits there, in words; empty: nobody known."""
        return self._guard.sees

    def _note_freed(self, freed: Freed, told: Callable[[Freed], None]) -> None:
        """Said at once, written down when the gate is open again."""
        told(freed)
        action = "wake_writer" if freed.how == "woken" else "kill_writer"
        data: dict[str, object] = {
            "pid": freed.pid,
            "process": freed.title,
            "stood_s": round(freed.stood_s, 1),
        }

        def note(tx: Tx) -> None:
            write_audit(tx, GATE, action, data)
            tx.count(f"recovery:{action}:done", "")

        self._committer.post(note)


def _asleep_s() -> float:
    """Seconds that this host has been suspended since it booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
