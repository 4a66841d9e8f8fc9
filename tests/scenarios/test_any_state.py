"""Cancel, retry, update, delete in any state, a real worker standing at exactly that step.

The worker runs in a thread of its own and is stopped at a step boundary while the request goes
through the real API: whatever it was about to write meets what was asked. Each pair has one clean
outcome, listed below and nowhere else.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.fixtures.outage import scene_of
from unjam.app.services import open_services
from unjam.core.chunk import chunk_ids
from unjam.core.document import RUNNING, Claim, State
from unjam.core.outcome import Dead, Done, Outcome, Snooze
from unjam.core.ports import Ledger, Queue, WorkerRef
from unjam.pipeline.inline import InlineParser
from unjam.pipeline.intake import Intake
from unjam.pipeline.run import Tools
from unjam.pipeline.sniff import sniff
from unjam.pipeline.steps import Step
from unjam.queue.lanes import DEFAULT_LANES, PROCESSING
from unjam.settings import Settings
from unjam.stores import schema
from unjam.stores.ledger.tx import Tx
from unjam.testing.stack import Stack
from unjam.testing.wait import until
from unjam.worker.identity import process_identity
from unjam.worker.worker import Worker, WorkerOptions

pytestmark = pytest.mark.thorough

DEADLINE_S = 30.0
ELSEWHERE = WorkerRef("elsewhere.1.1", "elsewhere", 1, "1", "worker")
ENDED_AT = (Step.FLIPPED, Step.FINISHED)

PLACES = ["received", "queued", *Step, "waiting", "dead", "cancelled", "searchable", "deleted"]
VERBS = ["cancel", "retry", "update", "delete"]


def text_of(version: int) -> str:
    """About ten chunks, each with its version."""
    return "\n\n".join(f"v{version} part {n}: the survey of bay {n} goes on." for n in range(14))


def outcome_of(place: str, verb: str) -> tuple[int, State, int]:
    """(HTTP status, state at the end, version that search shows; 0 = none)."""
    if place == "deleted":
        return (204 if verb == "delete" else 404), State.DELETED, 0
    if verb == "delete":
        return 204, State.DELETED, 0
    if verb == "update":
        return 202, State.SEARCHABLE, 2
    ended = place == "searchable" or place in ENDED_AT
    if verb == "cancel":
        if ended:
            return 409, State.SEARCHABLE, 1
        return (409, State.DEAD, 0) if place == "dead" else (200, State.CANCELLED, 0)
    taken = place in ("waiting", "dead", "cancelled")
    return (202 if taken else 409), State.SEARCHABLE, 1


@dataclass
class HeldWorker:
    """A worker that stands still at *step*, once, until ``let_go``. The checkpoint blocks its
    loop; its leases are kept all the same, from the keeper's thread."""

    settings: Settings
    step: Step | None
    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    def start(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="held-worker")
        self._thread.start()

    async def stop(self) -> None:
        self.go.set()
        await asyncio.to_thread(self._ready.wait, DEADLINE_S)
        self._loop.call_soon_threadsafe(self._worker.stop)
        await asyncio.to_thread(self._thread.join, DEADLINE_S)
        assert not self._thread.is_alive(), "the worker does not stop"
        if self.error is not None:
            raise self.error

    def _checkpoint(self, step: Step) -> None:
        if step is self.step and not self.reached.is_set():
            self.reached.set()
            assert self.go.wait(DEADLINE_S), "nobody let it go"

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.error = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        services = await open_services(self.settings, role="worker")
        tools, parser = services.tools()
        self._loop = asyncio.get_running_loop()
        self._worker = Worker(
            ledger=services.ledger,
            queue=services.queue,
            tools=self._with_checkpoint(tools),
            me=process_identity("worker"),
            options=WorkerOptions(lanes=DEFAULT_LANES),
            max_concurrent=lambda: 50,
            breakers=services.breakers,
        )
        self._ready.set()
        try:
            await self._worker.run()
        finally:
            await parser.close()
            await services.close()

    def _with_checkpoint(self, tools: Tools) -> Tools:
        # How bytes are parsed is of no matter here, and a parsing parent costs a second each.
        return replace(tools, checkpoint=self._checkpoint, parser=InlineParser())


@dataclass
class Case:
    """One document, brought to a place; then the world goes on."""

    stack: Stack
    http: httpx.AsyncClient
    held: HeldWorker | None = None
    document_id: str = ""

    @property
    def ledger(self) -> Ledger:
        return self.stack.services.ledger

    @property
    def queue(self) -> Queue:
        return self.stack.services.queue

    async def bring_to(self, place: str) -> None:
        self.document_id = await self._accept()
        if place == "received":
            assert await self.state() is State.RECEIVED
            return
        await self.stack.reconcile()
        assert await self.state() is State.QUEUED
        if place in list(Step):
            await self._hold_at(Step(place))
        elif place == "searchable":
            self._work(None)
            await self._until_state(State.SEARCHABLE)
        elif place == "cancelled":
            await self.ledger.cancel(self.document_id)
        elif place == "deleted":
            await self.ledger.delete(self.document_id)
        elif place != "queued":
            outcome = Snooze("embedding_down", "as a test has it", 3600.0)
            await self._end(outcome if place == "waiting" else Dead("corrupt", "as a test has it"))

    async def ask(self, verb: str) -> int:
        path = f"/api/rag/documents/{self.document_id}"
        match verb:
            case "update":
                files = [("file", ("note.txt", text_of(2).encode()))]
                return (await self.http.put(path, files=files)).status_code
            case "delete":
                return (await self.http.delete(path)).status_code
            case _:
                return (await self.http.post(f"{path}/{verb}")).status_code

    def go_on(self) -> None:
        if self.held is None:
            self._work(None)
        else:
            self.held.go.set()

    async def settled(self, wanted: State) -> None:
        """At its end, nobody at work, nothing left in any lane."""

        async def look() -> tuple[State, int, int]:
            await self.stack.reconcile()
            running = (await self.ledger.equation()).running
            lengths = await self.queue.lengths()
            return await self.state(), running, sum(lengths[lane] for lane in DEFAULT_LANES)

        await until("settled", look, lambda s: s == (wanted, 0, 0), deadline_s=DEADLINE_S)

    async def state(self) -> State:
        document = await self.ledger.get(self.document_id)
        assert document is not None
        return document.state

    async def shown(self) -> set[int]:
        """Versions that search shows."""
        hits = await self.stack.services.retriever.search(
            "the survey of bay", k=40, filter={"document_id": self.document_id}
        )
        return {int(hit.text[1]) for hit in hits}

    async def close(self) -> None:
        if self.held is not None:
            held, self.held = self.held, None
            await held.stop()

    async def _accept(self) -> str:
        """Without a doorbell: it stays received until somebody reconciles."""
        services = self.stack.services
        intake = Intake(
            services.ledger,
            services.blobs,
            services.queue,
            sniff=sniff,
            lane_for=lambda size, kind: PROCESSING,
            current_pin=services.current_pin,
            max_upload_bytes=1 << 20,
            push=False,
        )
        staged = await intake.open("note.txt")
        await intake.write(staged, text_of(1).encode())
        receipts = await intake.accept([staged])
        await intake.close()
        return receipts[0].document_id

    def _work(self, step: Step | None) -> None:
        self.held = HeldWorker(self.stack.settings, step)
        self.held.start()

    async def _hold_at(self, step: Step) -> None:
        self._work(step)
        assert self.held is not None
        reached = await asyncio.to_thread(self.held.reached.wait, DEADLINE_S)
        assert reached, f"never at {step}: {self.held.error!r}"
        assert (await self.state() in RUNNING) is (step not in ENDED_AT)

    async def _until_state(self, wanted: State) -> None:
        await until(f"it is {wanted}", self.state, lambda s: s is wanted, deadline_s=DEADLINE_S)

    async def _end(self, outcome: Outcome) -> None:
        """As a worker elsewhere would."""
        tickets = await self.queue.take([PROCESSING], 1, ELSEWHERE.id)
        (answer,) = await self.ledger.claim(tickets, ELSEWHERE, 10)
        claim: Claim | None = answer.claim
        assert claim is not None
        assert not isinstance(outcome, Done)
        await self.ledger.settle(claim, outcome)
        await self.queue.finished(tickets, ELSEWHERE.id, ok=False)


@pytest.fixture
async def case(stack: Stack) -> AsyncIterator[Case]:
    async with scene_of(stack) as scene:
        made = Case(stack, scene.http)
        yield made
        await made.close()


def clean_again_now(tx: Tx) -> None:
    """The second cleanup is for requests that land late; no worker is left, so none can."""
    tx.execute(sa.update(schema.cleanups).values(due_at=tx.now))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("place", PLACES)
async def test_one_clean_outcome(case: Case, place: str, verb: str) -> None:
    status, state, version = outcome_of(place, verb)
    await case.bring_to(place)
    answered = await case.ask(verb)
    assert answered == status
    if answered < 400 and verb == "delete":
        assert await case.shown() == set(), "deleted, answered, and still found"
    case.go_on()
    await case.settled(state)
    await case.close()
    await case.stack.reconcile()
    assert await case.state() is state
    assert await case.shown() == ({version} if version else set())
    await _exact_chunks(case)
    equation = await case.ledger.equation()
    assert (equation.accepted, getattr(equation, state.value), equation.missing) == (1, 1, 0)
    document = await case.ledger.get(case.document_id)
    assert document is not None
    assert (document.worker, document.deaths, document.errors) == ("", 0, 0)


async def _exact_chunks(case: Case) -> None:
    """Of every generation that ever was, only the visible one's are left."""
    document = await case.ledger.get(case.document_id)
    assert document is not None
    wanted: set[str] = set()
    if document.state is State.SEARCHABLE:
        wanted = set(chunk_ids(document.id, document.visible_generation, document.chunks))
        assert len(wanted) >= 3
    await case.ledger._committer.submit(clean_again_now)  # type: ignore[attr-defined]

    async def held() -> set[str]:
        await case.stack.reconcile()
        return await case.stack.chunk_ids(case.document_id, 64)

    look: Callable[[], Awaitable[Any]] = held
    await until("exactly its chunks", look, lambda have: have == wanted, deadline_s=10.0)
