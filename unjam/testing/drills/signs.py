"""Signs: the first moments at which the system itself tells of a trouble, wherever it tells it.

Looked at are the operators' incidents, circuit breakers, the documents' events, what the
supervisor reports, and lines of WARNING or ERROR in the processes' logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from unjam.core.errors import UnjamError
from unjam.core.events import EventKind
from unjam.testing.embedded_stack import EmbeddedStack

LOOK_S = 0.05
LOOK_FOR_INCIDENTS_S = 0.25

TELLING = frozenset({EventKind.WORKER_DIED, EventKind.WAITING, EventKind.REQUEUED, EventKind.DEAD})
_TROUBLE = re.compile(r"\b(WARNING|ERROR)\b[: ]+(.*)")


@dataclass(frozen=True, slots=True)
class Sign:
    """*at*: monotonic seconds. *what* begins with its kind: incident, breaker, event, log,
    supervisor."""

    at: float
    what: str


@dataclass
class Signs:
    """``async with``: watches until the block ends. *supervisor* entries are given to ``add``."""

    stack: EmbeddedStack
    http: httpx.AsyncClient
    token: str
    found: list[Sign] = field(default_factory=list[Sign])
    _known: set[str] = field(default_factory=set[str])
    _read: dict[str, int] = field(default_factory=dict[str, int])
    _incidents_due: float = 0.0
    _no_incidents: bool = False

    async def __aenter__(self) -> Signs:
        self._after = await self.stack.services.ledger.last_event()
        await self._look()  # what is there already tells of nothing new
        self.found.clear()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def add(self, what: str) -> None:
        """A sign, unless the same was seen before."""
        if what not in self._known:
            self._known.add(what)
            self.found.append(Sign(time.monotonic(), what))

    def since(self, began: float, wanted: Sequence[str] = ()) -> Sign | None:
        """The first one after *began* that contains one of *wanted* (any, when none is named)."""
        for sign in self.found:
            if sign.at >= began and (not wanted or any(w in sign.what for w in wanted)):
                return sign
        return None

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(UnjamError, OSError, httpx.HTTPError):
                await self._look()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        ledger = self.stack.services.ledger
        for name, row in (await ledger.dependency_states()).items():
            if row.holds:
                self.add(f"breaker {name} open: {row.reason}")
        for event in await ledger.events(None, after=self._after, limit=1000):
            self._after = event.seq
            if event.kind in TELLING:
                why = event.data.get("reason") or event.data.get("why") or ""
                self.add(f"event {event.kind} {why}".rstrip())
        await asyncio.to_thread(self._read_logs)
        await self._ask_for_incidents()

    def _read_logs(self) -> None:
        for file in sorted((self.stack.data_dir / "logs").glob("*.log")):
            if file.stem in ("valkey", "chroma"):
                continue  # what the servers say of themselves is not our noticing
            with file.open("rb") as stream:
                stream.seek(self._read.get(file.name, 0))
                fresh = stream.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            self._read[file.name] = self._read.get(file.name, 0) + len(whole)
            for line in whole.decode(errors="replace").splitlines():
                if told := _TROUBLE.search(line):
                    self.add(f"log {told[1]}: {_sentence(told[2])}")

    async def _ask_for_incidents(self) -> None:
        now = time.monotonic()
        if self._no_incidents or now < self._incidents_due:
            return
        self._incidents_due = now + LOOK_FOR_INCIDENTS_S
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = await self.http.get("/api/rag/admin/incidents", headers=headers, timeout=2.0)
        if answer.status_code != 200:
            self._no_incidents = answer.status_code == 404
            return
        items: list[dict[str, Any]] = answer.json()["items"]
        for item in items:
            self.add(f"incident {item.get('id', '')} {item.get('cause', '')}".rstrip())


def _sentence(text: str) -> str:
    """The sentence of a log line, without its fields and without what differs each time."""
    words = re.split(r" \w+=", text)[0]
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}-\d+", "…", words)[:110].rstrip()
