"""Breakers: one process's view of the circuit breakers, which all processes share in the ledger.

A worker reports the trouble that its documents met, and asks before it claims. Trouble is looked
at before a breaker opens: a document whose own data a healthy server refuses must not stop the
others. While one is open, one process at a time probes; when the probe passes, everybody goes on.

The ledger's own breaker cannot live in the ledger alone: each process also keeps what it met.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping

from unjam.core import breaker
from unjam.core.breaker import LEDGER, OF_REASON, OUTBOX, Breaker
from unjam.core.document import CLAIMABLE, State
from unjam.core.errors import DependencyDown, LedgerVersionError, UnjamError, WorkerUnfit
from unjam.core.ports import Ledger

Check = Callable[[], Awaitable[object]]
"""Asks a dependency whether it works. Raises DependencyDown."""

LOOK_S = 1.0
LOOK_HELD_S = 0.25
"""How often the shared rows are read: five rows, 0.2 ms."""

WRITE_CHECK_S = 2.0
SILENT_S = 5.0
"""A ledger that has said nothing for so long is away: uploads are told so at once, and do not wait
for the connection to be given up (10 s) one after the other. A frozen writer is freed before."""

CHECK_S = 15.0
"""A dependency that has not answered by then does not work."""

STRIKES = 3
"""Troubles in a row, while the check finds nothing, that open a breaker all the same: a server
that answers pings and refuses writes."""

RETURN_SPREAD_S = 1.0
"""The processes go on at different moments of this time, so that they do not all fall upon a
server that has just come back."""

_TOLD = frozenset({"embedding_throttled", "embedding_quota", "embedding_unauthorised"})
_UNTOLD_S = 5.0  # DependencyDown's own default


class Breakers:
    """One per process; ``follow`` it to see what the others report.

    Args:
        checks: by dependency; without a check it opens at the first report.
        relieve: (blocking) called when the ledger cannot be written; True when it made room.
        changed: told of each breaker that opened or closed, as this process learns of it.
    """

    def __init__(
        self,
        ledger: Ledger,
        checks: Mapping[str, Check],
        *,
        relieve: Callable[[], bool] = lambda: False,
        changed: Callable[[Breaker], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._checks = checks
        self._relieve = relieve
        self._changed = changed
        self._rows: dict[str, Breaker] = {}
        self._own: Breaker | None = None
        self._strikes: dict[str, int] = {}
        self._checking: dict[str, asyncio.Task[DependencyDown | None]] = {}
        self._probing: Breaker | None = None
        self._since: dict[str, tuple[Breaker, float]] = {}
        self._was_held = False
        self._resume_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    # -- asking -----------------------------------------------------------------------------
    def held(self) -> Breaker | None:
        """Why no document may be claimed now; None: they may."""
        holding = (b for b in self._holding() if b.name != OUTBOX and not _of_one_lane(b))
        return min(holding, key=lambda b: b.place, default=None)

    def paused(self, lane: str) -> Breaker | None:
        """The pause of this lane, or of all: by a person."""
        return self.of(breaker.PAUSE + lane) or self.of(breaker.EVERY_LANE)

    def keeps(self, state: State, lane: str = "") -> Breaker | None:
        """What keeps a document of *lane* in *state* where it is; never stored with it."""
        if state not in CLAIMABLE:
            return None
        held = self.held()
        if held is not None and held.reason == LedgerVersionError.code:
            held = None  # only this process must not touch it
        held = held or self.paused(lane)
        return held or (self.of(OUTBOX) if state is State.RECEIVED else None)

    def of(self, name: str) -> Breaker | None:
        """The breaker of *name* when it holds."""
        return next((b for b in self._holding() if b.name == name), None)

    def states(self) -> dict[str, str]:
        """Dependency → closed, open, half_open; from memory."""
        held = {b.name: b.state for b in self._holding()}
        return {name: held.get(name, "closed") for name in breaker.DEPENDENCIES}

    def pause_s(self) -> float:
        """0.0: documents may be claimed; else ask again after so many seconds."""
        if self._own is not None or self.held() is not None:
            self._was_held = True
            return LOOK_HELD_S
        if self._was_held:
            self._was_held = False
            spread_at = time.monotonic() + random.random() * RETURN_SPREAD_S
            self._resume_at = max(self._resume_at, spread_at)
        wait_s = self._resume_at - time.monotonic()
        return max(wait_s, LOOK_HELD_S / 5 if self._checking else 0.0)

    def _holding(self) -> list[Breaker]:
        shared = [b for b in self._rows.values() if b.holds]
        return shared if self._own is None else [self._own, *shared]

    # -- reporting --------------------------------------------------------------------------
    async def report(
        self,
        reason: str,
        detail: str,
        *,
        retry_after_s: float = _UNTOLD_S,
        shared: bool = True,
    ) -> None:
        """A document or this process met trouble. Not *shared*: only its own, nobody else's."""
        if reason == WorkerUnfit.code:  # it would take others' documents only to let them wait
            self._resume_at = max(self._resume_at, time.monotonic() + retry_after_s)
        name = OF_REASON.get(reason)
        if name is None or not shared:
            return
        trouble = DependencyDown(detail, code=reason, retry_after_s=retry_after_s)
        if name == LEDGER:
            self.ledger_trouble(trouble)
            return
        told_s = _told_s(trouble)
        if self.of(name) is not None and told_s is None:
            return
        confirmed = trouble if told_s is not None else await self._confirm(name, trouble)
        if confirmed is not None and (self.of(name) is None or told_s is not None):
            await self._trip(name, confirmed, checked=confirmed is not trouble)

    def met(self, trouble: DependencyDown) -> None:
        """:meth:`report` in the background, for whoever has no time to wait for a check."""
        self._begin(self.report(trouble.code, trouble.detail))

    def succeeded(self) -> None:
        """A document went all the way: whatever was met before was not the dependencies'."""
        self._strikes.clear()

    def ledger_trouble(self, error: UnjamError | None) -> None:
        """What this process's own writes met; None: a write went through."""
        was = self._own
        if error is None:
            self._own = None
            if was is not None:
                self._changed(Breaker(LEDGER))
            return
        until = time.time() + WRITE_CHECK_S
        newer = error.code == LedgerVersionError.code
        reason = error.code if newer else "ledger_unwritable"
        self._own = Breaker(LEDGER, "open", reason, error.detail, until)
        if was is None:
            self._changed(self._own)
            if not newer:
                self._begin(self._make_room(error.detail))

    async def _make_room(self, detail: str) -> None:
        if await asyncio.to_thread(self._relieve):
            # What is held can be written now. Nobody takes on more until the reserve stands again.
            with contextlib.suppress(DependencyDown):
                await self._ledger.report_dependency(LEDGER, "ledger_unwritable", detail)

    async def _confirm(self, name: str, trouble: DependencyDown) -> DependencyDown | None:
        """The trouble as the check sees it, or as it was met when it was met too often."""
        if name not in self._checks:
            return trouble
        found = await self._check_shared(name)
        if found is not None:
            return found
        return trouble if self._strikes.get(name, 0) >= STRIKES else None

    async def _check_shared(self, name: str) -> DependencyDown | None:
        """Fifty documents that meet the same trouble are one check, and one strike."""
        task = self._checking.get(name)
        if task is None:
            task = self._checking[name] = asyncio.create_task(self._check(name))
            task.add_done_callback(lambda _: self._checking.pop(name, None))
            if await asyncio.shield(task) is None:
                self._strikes[name] = self._strikes.get(name, 0) + 1
        return await asyncio.shield(task)

    async def _check(self, name: str) -> DependencyDown | None:
        """None: it works."""
        reason = breaker.PLAINLY[name]
        try:
            async with asyncio.timeout(CHECK_S):
                await self._checks[name]()
        except DependencyDown as error:
            return error if OF_REASON.get(error.code) == name else _as(error, reason)
        except TimeoutError:
            return DependencyDown(f"{name} does not answer within {CHECK_S:g} s", code=reason)
        except UnjamError as error:
            return _as(error, reason)
        except Exception as error:  # a check that breaks is no all-clear
            return DependencyDown(f"{type(error).__name__}: {error}", code=reason)
        return None

    async def _trip(self, name: str, error: DependencyDown, *, checked: bool) -> None:
        self._strikes.pop(name, None)
        known, told_s = self._rows.get(name, Breaker(name)), _told_s(error)
        here = breaker.trip(known, error.code, error.detail, time.time(), told_s, checked=checked)
        self._see({**self._rows, name: here})
        try:
            row = await self._ledger.report_dependency(
                name, error.code, error.detail, told_s, checked=checked
            )
            self._see({**self._rows, name: row})
        except DependencyDown as away:
            self.ledger_trouble(away)

    # -- following --------------------------------------------------------------------------
    async def refresh(self) -> None:
        """Read the shared rows. Raises DependencyDown."""
        self._see(await self._ledger.dependency_states())

    def follow(self, *, probe: bool = True, write_check: bool = False) -> None:
        """In the background from now on. *probe*: this process probes, when it is its turn.
        *write_check*: nobody else in this process would notice that the ledger is unwritable."""
        self._begin(self._follow(probe))
        if write_check:
            self._begin(self._write())

    async def _follow(self, may_probe: bool) -> None:
        while True:
            with contextlib.suppress(DependencyDown):
                await self.refresh()
                if may_probe:
                    due = [b for b in self._rows.values() if self._is_due(b)]
                    await asyncio.gather(*(self._probe(b) for b in due))
            held = self.held() is not None
            await asyncio.sleep((LOOK_HELD_S if held else LOOK_S) * (0.75 + random.random() / 2))

    def _is_due(self, row: Breaker) -> bool:
        """Whether to ask the ledger, whose clock decides, if it is time to probe *row*. By this
        host's clock, or, should that be slow, by the time since the row was first seen."""
        if not row.holds or row.name not in self._checks:
            return False
        known, since = self._since.get(row.name, (row, 0.0))
        if known != row or not since:
            since = time.monotonic()
            self._since[row.name] = row, since
        wait_s = breaker.PROBING_S
        if row.state == "open":
            wait_s = (row.until or 0.0) - row.changed_at
        return breaker.probe(row, time.time()) is not None or time.monotonic() - since >= wait_s

    async def _write(self) -> None:
        while True:
            write = asyncio.ensure_future(self._ledger.lead("readiness-probe", "api", 5.0))
            try:
                await asyncio.wait({write}, timeout=SILENT_S)
                if not write.done():
                    what = f"the ledger has not answered for {SILENT_S:g} s"
                    self.ledger_trouble(DependencyDown(what, code=breaker.PLAINLY[LEDGER]))
                await write
                self.ledger_trouble(None)
            except DependencyDown as error:
                self.ledger_trouble(error)
            finally:
                write.cancel()
            await asyncio.sleep(WRITE_CHECK_S)

    async def _probe(self, row: Breaker) -> None:
        name = row.name
        if name not in self._checks or not await self._ledger.probe_dependency(name):
            return
        self._probing = row
        began = time.monotonic()
        error = await self._check(name)
        if error is None:
            await self._ledger.close_dependency(name)
        elif time.monotonic() - began < breaker.PROBING_S:  # later, another's probe decides
            await self._ledger.report_dependency(name, error.code, error.detail, _told_s(error))
        self._probing = None
        await self.refresh()

    def _see(self, rows: Mapping[str, Breaker]) -> None:
        before, self._rows = self._rows, dict(rows)
        for name, row in self._rows.items():
            was = before.get(name)
            if row.holds != (was is not None and was.holds):
                self._changed(row)

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # type: ignore[arg-type]
        task.add_done_callback(self._tasks.discard)  # type: ignore[arg-type]

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._probing is not None:  # somebody else need not wait for our answer
            row = self._probing
            with contextlib.suppress(UnjamError):
                await self._ledger.report_dependency(row.name, row.reason, row.detail)


def _of_one_lane(row: Breaker) -> bool:
    return row.name.startswith(breaker.PAUSE) and row.name != breaker.EVERY_LANE


def _told_s(error: DependencyDown) -> float | None:
    """How long the dependency itself asked to wait, seconds."""
    told = error.code in _TOLD or error.retry_after_s > _UNTOLD_S
    return error.retry_after_s if told else None


def _as(error: UnjamError, reason: str) -> DependencyDown:
    return DependencyDown(error.detail, code=reason)
