"""Scene: a throw-away system with an API, on which a drill plays its fault and tells what it saw.

Everything is the drill's own: folder, ports, servers, endpoint, environment. It cannot meet live
data, since nothing of the caller's environment reaches it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from unjam.core.document import RUNNING, Document, State
from unjam.testing.drills.report import DrillReport, Entry, Promise
from unjam.testing.drills.signs import Sign, Signs
from unjam.testing.embedded_stack import EmbeddedStack
from unjam.testing.verdict import judge
from unjam.testing.wait import TooLate, until, until_ended
from unjam.worker.children import Command
from unjam.worker.embedded import free_port
from unjam.worker.supervisor import ChildSpec, Happening, Tier

FOREIGN = ("OPENAI_", "RAG_", "SLACK_", "UNJAM_", "ADMIN_TOKEN", "USE_API_KEY")
"""Variables of the caller that could lead a drill to live data, or to a paid endpoint."""

UP_S = 60.0
SETTLE_S = 60.0
"""After a fault everything stands at its end within this time, on a busy machine, too."""

Tell = Callable[[Entry], None]


@contextmanager
def clean_environment() -> Generator[None]:
    """Without the caller's own settings; children inherit it so."""
    kept = {k: os.environ.pop(k) for k in list(os.environ) if k.startswith(FOREIGN)}
    try:
        yield
    finally:
        os.environ.update(kept)


@dataclass
class Scene:
    """See the module. *expected*: id → text of every document that must end searchable; *parked*:
    id → reason of those that must end dead."""

    stack: EmbeddedStack
    http: httpx.AsyncClient
    signs: Signs
    report: DrillReport
    tell: Tell
    began: float
    expected: dict[str, str] = field(default_factory=dict[str, str])
    parked: dict[str, str] = field(default_factory=dict[str, str])
    _fault_at: float = 0.0
    _healed_at: float = 0.0
    _number: int = 0

    # -- telling ----------------------------------------------------------------------------
    def say(self, en: str, ko: str, at: float | None = None) -> None:
        """A line of the timeline; *at*: monotonic seconds, now when not given."""
        entry = Entry((time.monotonic() if at is None else at) - self.began, en, ko)
        self.report.entries.append(entry)
        self.tell(entry)

    def promise(self, en: str, ko: str, held: object, seen: str = "") -> None:
        """One promise, and whether it was held."""
        self.report.promises.append(Promise(en, ko, bool(held), "" if held else seen))

    # -- documents --------------------------------------------------------------------------
    async def upload(self, count: int, parts: int = 6) -> list[str]:
        """*count* documents of *parts* paragraphs through the API; each has a word that is in no
        other one."""
        texts = [self._text(parts) for _ in range(count)]
        files = [("file", (f"note-{name}.txt", text.encode())) for name, text in texts]
        answer = await self.http.post("/api/rag/documents", files=files)
        if answer.status_code != 202:
            raise TooLate(f"an upload was answered {answer.status_code}: {answer.text}")
        receipts = answer.json()
        ids = [item["id"] for item in receipts.get("items", [receipts])]
        self.expected |= dict(zip(ids, (text for _, text in texts), strict=True))
        return ids

    async def try_upload(self) -> httpx.Response:
        """The answer to one upload, whatever it is; an accepted one must become searchable."""
        name, text = self._text(4)
        files = [("file", (f"note-{name}.txt", text.encode()))]
        answer = await self.http.post("/api/rag/documents", files=files)
        if answer.status_code == 202:
            self.expected[answer.json()["id"]] = text
        return answer

    def _text(self, parts: int) -> tuple[str, str]:
        self._number += 1
        name = f"{self.report.name}{self._number}".replace("-", "")
        some = "the pump of that line is looked after by its own crew, and logged. 정비 기록"
        body = "\n\n".join(f"Note {name}, part {n}: {some} {name}x{n}." for n in range(parts))
        return name, body

    async def documents(self, ids: Sequence[str] | None = None) -> dict[str, Document]:
        wanted = [*self.expected, *self.parked] if ids is None else list(ids)
        found = await self.stack.services.ledger.get_many(wanted)
        return {document.id: document for document in found}

    async def in_hand(self, count: int) -> list[Document]:
        """Those that are being worked on, once they are at least *count*."""

        async def running() -> list[Document]:
            found = await self.documents()
            return [d for d in found.values() if d.state in RUNNING]

        return await until("documents in hand", running, lambda some: len(some) >= count)

    async def all_searchable(self) -> None:
        """As it is without any trouble."""

        async def states() -> set[State]:
            return {d.state for d in (await self.documents()).values()}

        await until("all searchable", states, lambda s: s == {State.SEARCHABLE}, deadline_s=UP_S)

    # -- the fault --------------------------------------------------------------------------
    def fault(self, en: str, ko: str) -> None:
        """It happens now."""
        self._fault_at = self._healed_at = time.monotonic()
        self.say(en, ko)

    def healed(self, en: str, ko: str) -> None:
        """The cause is gone now; recovery counts from here. Without it: from the fault."""
        self._healed_at = time.monotonic()
        self.say(en, ko)

    async def noticed(self, within_s: float, *wanted: str) -> Sign:
        """The first sign of it that contains one of *wanted* (any when none is named)."""

        async def first() -> Sign | None:
            return self.signs.since(self._fault_at, wanted)

        try:
            sign = await until("the fault is noticed", first, deadline_s=within_s + 10.0)
        except TooLate:
            seen = "; ".join(s.what for s in self.signs.found if s.at >= self._fault_at)
            self.promise(*_noticing(within_s), False, f"it was not; seen: {seen or 'nothing'}")
            raise
        assert sign is not None
        took_s = max(0.0, sign.at - self._fault_at)
        self.report.noticed_s, self.report.noticed_by = took_s, sign.what
        self.say(f"noticed: {sign.what}", f"감지: {sign.what}", sign.at)
        self.promise(*_noticing(within_s), took_s <= within_s, f"after {took_s:.1f} s")
        return sign

    async def recovered(self, within_s: float) -> None:
        """Everything accepted so far comes to its end."""
        ids = [*self.expected, *self.parked]
        deadline_s = self._healed_at + within_s + SETTLE_S - time.monotonic()
        promise = (
            f"everything is at its end within {within_s:g} s of the fault's end",
            f"장애가 끝난 뒤 {within_s:g}초 안에 모든 문서가 끝에 이른다",
        )
        try:
            await until_ended(self.stack.services.ledger, ids, deadline_s=deadline_s)
        except TooLate as late:
            self.promise(*promise, False, str(late))
            raise
        took_s = time.monotonic() - self._healed_at
        self.report.recovered_s = took_s
        self.say("recovered: every document is at its end", "복구: 모든 문서가 끝에 이름")
        self.promise(*promise, took_s <= within_s, f"after {took_s:.1f} s")

    def tell_incidents(self) -> None:
        """What the watchdog made of it, with the moments at which it said so."""
        for sign in self.signs.found:
            if sign.at >= self._fault_at and sign.what.startswith("incident"):
                self.say(sign.what, sign.what.replace("incident", "인시던트", 1), sign.at)

    async def unhurt(self) -> None:
        """The trouble was not the documents': nobody spent an attempt or a death on it."""
        hurt = [
            f"{d.id}: errors {d.errors}, deaths {d.deaths}"
            for d in (await self.documents(list(self.expected))).values()
            if d.errors or d.deaths
        ]
        self.promise(
            "it cost no document an attempt",
            "어느 문서도 재시도 횟수를 잃지 않는다",
            not hurt,
            "; ".join(hurt[:3]),
        )

    # -- the end ----------------------------------------------------------------------------
    async def conclude(self) -> None:
        """Look at everything from outside: own list of ids, chunk sets, searches, the equation."""
        report = self.report
        self.tell_incidents()
        verdict = await judge(self.stack, self.expected, SETTLE_S, dead=len(self.parked))
        found = await self.documents(list(self.parked))
        wrong = [
            f"{i}: {d.state} {d.reason}" if (d := found.get(i)) else f"{i}: gone"
            for i, reason in self.parked.items()
            if i not in found or (found[i].state, found[i].reason) != (State.DEAD, reason)
        ]
        broken = {*verdict.missing_chunks, *verdict.not_found}
        broken |= {line.partition(":")[0] for line in verdict.not_searchable + wrong}
        report.documents, report.lost = len(self.expected) + len(self.parked), len(broken)
        report.story = "\n".join([*verdict.problems(), *wrong])
        self.promise(
            "no document is lost: each is searchable and found by its own text, or parked by name",
            "잃은 문서가 없다: 모두 검색되고 제 문장으로 찾아지거나, 사유와 함께 보관된다",
            not broken,
            f"{len(broken)} are",
        )
        self.promise(
            "the index holds exactly the chunks of a clean run, none twice, none foreign",
            "색인에는 장애 없는 처리와 똑같은 청크만 있다",
            not (verdict.missing_chunks or verdict.foreign_chunks or verdict.wrong_count),
            f"{len(verdict.missing_chunks)} missing, {len(verdict.foreign_chunks)} foreign",
        )
        told = (await self.http.get("/api/rag/ledger")).json()
        accepted, rest = told["accepted"], sum(n for k, n in told.items() if k != "accepted")
        self.promise(
            "the ledger equation holds",
            "원장 등식이 성립한다",
            accepted == rest == report.documents and not told["missing"] and not verdict.problems(),
            str(told),
        )
        self.say(
            f"documents: {report.documents}, lost: {report.lost}",
            f"문서: {report.documents}, 유실: {report.lost}",
        )


def _noticing(within_s: float) -> tuple[str, str]:
    return f"it is noticed within {within_s:g} s", f"{within_s:g}초 안에 감지한다"


@asynccontextmanager
async def scene_of(
    report: DrillReport,
    folder: Path,
    tell: Tell,
    extra: Mapping[str, str],
    workers: int = 2,
) -> AsyncGenerator[Scene]:
    """A whole system under *folder*, up and ready. In the main thread.

    Raises TooLate, SetupError: it does not come up.
    """
    token, port = secrets.token_urlsafe(16), free_port(0)
    heard: list[Callable[[Happening], None]] = []

    def listen(happening: Happening) -> None:
        for listener in heard:
            listener(happening)

    stack = EmbeddedStack(folder, workers, extra=extra, listen=listen)
    async with stack, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        env = {**stack.stack.environment(), "ADMIN_TOKEN": token}
        serve = ["--port", str(port), "--dashboard-port", "0"]
        command = Command.python("unjam.web.main", serve, title="unjam api", env=env)
        await stack.supervisor.start([ChildSpec("api", command, Tier.API, "api.log")])
        await until("the system is up", stack.processes_ready, deadline_s=UP_S)
        await until("the API is ready", lambda: _ready(http), deadline_s=UP_S)
        async with Signs(stack, http, token) as signs:
            heard.append(lambda h: _hear(h, signs))
            scene = Scene(stack, http, signs, report, tell, time.monotonic())
            scene.say("the system is up", "시스템이 준비됨")
            yield scene
            heard.clear()


async def _ready(http: httpx.AsyncClient) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return (await http.get("/readyz")).status_code == 200
    return False


def _hear(happening: Happening, signs: Signs) -> None:
    if happening.what == "died":
        signs.add(f"supervisor: {happening.name} ended: {happening.how}")
