"""Acting: carries out one remedy. What only a host can do is asked of its supervisor."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

from unjam.core.errors import DependencyDown, UnjamError
from unjam.core.incident import Diagnosis, Incident, RemedyRequest, Saying
from unjam.core.ports import IncidentBook, Ledger, Queue, WorkerRef
from unjam.queue import order
from unjam.queue.lanes import DEAD, LARGE
from unjam.queue.repair import NotOurs, RedisRepair
from unjam.watchdog.facts import Facts, History

ANSWER_S = 60.0
"""A supervisor drains a worker for up to 20 s, and then kills it."""

POLL_S = 0.1

LOWERED = ("RAG_MAX_CONCURRENT_JOBS", "RAG_EMBEDDING_BATCH_SIZE", "RAG_EMBEDDING_CONCURRENCY")
"""Knobs that memory hangs on; each is halved."""

FAIR_AT_ONCE = 10_000
"""Documents a lane that are put in turn; newcomers take theirs as they come."""

STUCK_S = 20.0
"""A document that did not move in any look of this time hangs (see ``detect``)."""

Outcome = Literal["done", "failed", "refused"]
Knobs = Callable[[], Mapping[str, int]]


class Book(Ledger, IncidentBook, Protocol):
    """Ledger and book of incidents in one, as ``SqlLedger`` is."""


@dataclass(frozen=True, slots=True)
class Result:
    """*refused*: nothing here may be touched; a person has to."""

    outcome: Outcome
    detail: Saying


def done(en: str, ko: str) -> Result:
    return Result("done", Saying(en, ko))


def failed(en: str, ko: str) -> Result:
    return Result("failed", Saying(en, ko))


def refused(en: str, ko: str) -> Result:
    return Result("refused", Saying(en, ko))


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the servers are, and which of them may be restarted.

    *home* is the data folder, in which an embedded server leaves its pid file. *allowed* are the
    units and containers of ``--allow-restart``.
    """

    home: Path
    redis_url: str
    chroma_url: str  # "" when another vector store is in use
    allowed: tuple[str, ...] = ()
    redis_repair: bool = False
    vector_store: str = "Chroma"

    def named(self, name: str) -> Sequence[str]:
        """Words that an allowed unit's name has when it is the server *name*."""
        if name == "valkey":
            return ("redis", "valkey")
        return {"Chroma": ("chroma",), "pgvector": ("postgres",), "Qdrant": ("qdrant",)}.get(
            self.vector_store, ()
        )


@dataclass(slots=True)
class Hands:
    """``carry_out`` never raises: what went wrong is its result."""

    book: Book
    queue: Queue
    servers: Servers
    knobs: Knobs
    audit_all: Callable[[], Awaitable[None]]
    large_bytes: int = 10_485_760
    _by_code: dict[str, Callable[[Case], Awaitable[Result]]] = field(init=False)

    def __post_init__(self) -> None:
        self._by_code = {
            "restart_worker": self._restart_worker,
            "start_worker": self._start_worker,
            "restart_redis": lambda case: self._restart_server(case, "valkey"),
            "restart_chroma": lambda case: self._restart_server(case, "chroma"),
            "redis_noeviction": lambda _: self._configure("maxmemory-policy"),
            "redis_appendonly": lambda _: self._configure("appendonly"),
            "audit_everything": self._audit,
            "separate_large": self._separate,
            "fair_order": self._fair_order,
            "lower_load": self._lower_load,
            "drain_old_workers": self._drain_old,
        }

    async def carry_out(self, code: str, case: Case) -> Result:
        """What came of remedy *code*."""
        try:
            return await self._by_code[code](case)
        except UnjamError as error:
            return failed(str(error), str(error))
        except Exception as error:  # one remedy's fault must not end the watchdog
            return failed(f"{type(error).__name__}: {error}", f"{type(error).__name__}: {error}")

    async def put_back(self, incident: Incident) -> None:
        """Knobs return to what they were, unless somebody changed them since."""
        for name, pair in incident.undo.get("knobs", {}).items():
            before, lowered = int(pair[0]), int(pair[1])
            if self.knobs().get(name) == lowered:
                await self.book.set_knob(name, before, f"watchdog, incident {incident.id}")
        await self.book.note_undo(incident.id, {})

    # -- workers ----------------------------------------------------------------------------
    async def _restart_worker(self, case: Case) -> Result:
        named = {p.ref.id: p.ref for p in case.facts.processes if p.ref.kind == "worker"}
        hung = named.get(case.diagnosis.subject) or hung_worker(case.facts, case.history)
        if hung is None:
            return refused("no worker of ours hangs", "멈춘 워커를 찾지 못했습니다")
        return await self._restart(case, hung, f"pid {hung.pid}")

    async def _drain_old(self, case: Case) -> Result:
        seen = [p.ref for p in case.facts.processes if p.beats]
        newest = max(map(_rank, [case.facts.version, *(ref.version for ref in seen)]))
        old = [ref for ref in seen if ref.kind == "worker" and _rank(ref.version) < newest]
        if not old:
            return refused("no worker of an older version", "버전이 더 낮은 워커가 없습니다")
        results = [await self._restart(case, ref, ref.version) for ref in old[:8]]
        return min(results, key=lambda r: r.outcome == "done")  # one that failed, if any did

    async def _restart(self, case: Case, ref: WorkerRef, what: str) -> Result:
        if ref.kind != "worker" or ref.host not in supervised(case.facts):
            return refused(
                f"the worker ({what}) on {ref.host} has no supervisor of ours",
                f"{ref.host}의 워커({what})는 unjam의 관리 대상이 아닙니다",
            )
        answer = await self._ask(case, ref.host, "restart", "worker", ref.id)
        return _told(answer, f"worker {what}", f"워커 {what}")

    async def _start_worker(self, case: Case) -> Result:
        hosts = sorted(supervised(case.facts))
        if not hosts:
            return refused(
                "no `unjam up` runs that could start one", "워커를 시작할 `unjam up`이 없습니다"
            )
        answer = await self._ask(case, hosts[0], "start_worker", "worker", "")
        return _told(answer, f"a worker on {hosts[0]}", f"{hosts[0]}의 워커")

    # -- servers ----------------------------------------------------------------------------
    async def _restart_server(self, case: Case, name: Literal["valkey", "chroma"]) -> Result:
        url = self.servers.redis_url if name == "valkey" else self.servers.chroma_url
        words = self.servers.named(name)
        if not words:
            store = self.servers.vector_store
            return refused(
                f"{store} has no server that could be restarted",
                f"{store}에는 재시작할 서버가 없습니다",
            )
        entry = await asyncio.to_thread(self._embedded, name, url)
        if entry is not None:
            host, process_id = entry
            answer = await self._ask(case, host, "restart", name, process_id)
            return _told(answer, name, name)
        unit = next((a for a in self.servers.allowed if any(w in a.lower() for w in words)), None)
        hosts = sorted(supervised(case.facts))
        if unit is None or not hosts:
            return refused(
                f"{name} is not ours; name it with --allow-restart if it may be restarted",
                f"{name}은(는) unjam이 띄운 서버가 아닙니다. 재시작을 허용하려면 "
                "--allow-restart로 지정하세요",
            )
        answers = [await self._ask(case, host, "restart", f"unit:{unit}", "") for host in hosts]
        best = next((a for a in answers if a == "done"), answers[0])
        return _told(best, unit, unit)

    def _embedded(self, name: str, url: str) -> tuple[str, str] | None:
        """(Host, process id) of our own server at *url*, as its pid file has it."""
        file = "valkey/valkey.pid" if name == "valkey" else "chroma.pid"
        try:
            noted = json.loads((self.servers.home / file).read_text())
            pid, start = int(noted["pid"]), int(noted["start"])
            place = urlsplit(url)
            ours = place.hostname in ("127.0.0.1", "localhost", "::1")
            if not ours or place.port != int(noted["port"]):
                return None
            return str(noted["host"]), f"{noted['host']}.{pid}.{start}"
        except (OSError, ValueError, KeyError, TypeError):
            return None

    async def _configure(self, setting: str) -> Result:
        repair = await asyncio.to_thread(self._repair)
        try:
            if setting == "appendonly":
                before = await repair.appendonly()
            else:
                before = await repair.noeviction()
        except NotOurs as error:
            return refused(f"{error}. {error.hint}", f"{error}. {error.hint}")
        return done(f"{setting} was {before}", f"이전 {setting}: {before}")

    def _repair(self) -> RedisRepair:
        """Our embedded one is configured by its administrator; another as whoever we are there."""
        url = self.servers.redis_url
        if self._embedded("valkey", url) is not None:
            secret = (self.servers.home / "valkey" / "admin-password").read_text().strip()
            place = urlsplit(url)
            return RedisRepair(f"redis://unjam:{secret}@127.0.0.1:{place.port}/5", forced=True)
        return RedisRepair(url, forced=self.servers.redis_repair)

    # -- documents --------------------------------------------------------------------------
    async def _audit(self, case: Case) -> Result:
        del case
        await self.audit_all()
        return done("every waiting document was compared", "대기 중인 모든 문서를 대조했습니다")

    async def _separate(self, case: Case) -> Result:
        del case
        ids = await order.separate(self.book, self.queue, self.large_bytes - 1, LARGE)
        n = len(ids)
        return done(f"{n} documents moved to {LARGE}", f"{LARGE}로 {n}건을 옮겼습니다")

    async def _fair_order(self, case: Case) -> Result:
        del case
        moved = 0
        for lane, length in (await self.queue.lengths()).items():
            if lane != DEAD and length > 1:
                moved += len(await order.reorder(self.book, self.queue, lane, "fair", FAIR_AT_ONCE))
        return done(f"{moved} documents take turns", f"{moved}건을 사용자별로 번갈아 놓았습니다")

    async def _lower_load(self, case: Case) -> Result:
        now = dict(self.knobs())
        undo: dict[str, list[int]] = dict(case.incident.undo.get("knobs", {}))
        changed: list[str] = []
        for name in LOWERED:
            value = now.get(name, 1)
            half = max(1, value // 2)
            if half < value:
                undo[name] = [undo.get(name, [value])[0], half]
                changed.append(f"{name} {value} → {half}")
        if not changed:
            return refused("everything is at its lowest", "이미 모두 최소값입니다")
        # First what to put back: a fault in between must not leave a knob lowered for ever.
        await self.book.note_undo(case.incident.id, {"knobs": undo})
        for name in LOWERED:
            if name in undo:
                by = f"watchdog, incident {case.incident.id}"
                await self.book.set_knob(name, undo[name][1], by)
        return done(", ".join(changed), ", ".join(changed))

    # -- supervisors ------------------------------------------------------------------------
    async def _ask(
        self,
        case: Case,
        host: str,
        action: Literal["restart", "start_worker", "stop_worker"],
        target: str,
        process_id: str,
    ) -> str:
        """What the host's supervisor answered; "" when it did not."""
        request = RemedyRequest(0, case.incident.id, host, action, target, process_id, 0.0)
        asked = await self.book.ask_remedy(request)
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
            try:
                answer = await self.book.remedy(asked.id)
            except DependencyDown:
                continue
            if answer.done_at is not None:
                return answer.outcome
        await self.book.answer_remedy(asked.id, "too late")
        return ""


@dataclass(frozen=True, slots=True)
class Case:
    """What a remedy may look at."""

    incident: Incident
    diagnosis: Diagnosis
    facts: Facts
    history: History = ()


def _rank(version: str) -> tuple[int, ...]:
    """The order of releases, by their numbers."""
    return tuple(map(int, re.findall(r"[0-9]+", version)))


def supervised(facts: Facts) -> frozenset[str]:
    """Hosts on which a supervisor of ours reports."""
    return frozenset(p.ref.host for p in facts.processes if p.ref.kind == "supervisor" and p.beats)


def hung_worker(facts: Facts, history: History) -> WorkerRef | None:
    """The worker that hangs most: silent though its process lives, or without any progress."""
    ours = [p for p in facts.processes if p.ref.kind == "worker" and p.alive is not False]
    silent = [p for p in ours if not p.beats]
    if silent:
        return max(silent, key=lambda p: p.age_s).ref
    stuck = _stuck(facts, history)
    holders = [p.ref for p in ours if p.ref.id in stuck]
    return min(holders, key=lambda ref: stuck[ref.id], default=None)


def _stuck(facts: Facts, history: History) -> dict[str, float]:
    """Worker id → since when nothing it holds has moved, for those that hang."""
    before = [f for f in history if f.vitals is not None and facts.at - f.at >= STUCK_S]
    vitals = facts.vitals
    if vitals is None or not before or before[-1].vitals is None:
        return {}
    then = {
        (r.document_id, r.token, r.state, r.done): r.claimed_at for r in before[-1].vitals.running
    }
    held: dict[str, list[float | None]] = {}
    for r in vitals.running:
        held.setdefault(r.worker, []).append(then.get((r.document_id, r.token, r.state, r.done)))
    return {
        worker: min(m for m in marks if m is not None)
        for worker, marks in held.items()
        if all(m is not None for m in marks)
    }


def _told(answer: str, en: str, ko: str) -> Result:
    if answer == "done":
        return done(en, ko)
    if answer.startswith("refused"):
        return refused(f"{en}: {answer}", f"{ko}: {answer}")
    return failed(
        f"{en}: {answer or 'its supervisor did not answer'}",
        f"{ko}: {answer or '관리 프로세스가 응답하지 않았습니다'}",
    )
