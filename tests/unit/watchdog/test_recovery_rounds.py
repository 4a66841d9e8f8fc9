"""The rounds, on a real ledger, with looks and hands of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from unjam.core.incident import Diagnosis, Incident, Saying
from unjam.core.ports import WorkerRef
from unjam.observe.incidents import DETECTED, EXECUTED, recovery_log
from unjam.stores import schema
from unjam.stores.ledger import SqlLedger
from unjam.testing.wait import until
from unjam.watchdog.acting import Case, Result
from unjam.watchdog.facts import (
    ChromaFacts,
    Facts,
    History,
    HostFacts,
    LedgerFacts,
    RedisFacts,
)
from unjam.watchdog.recovery import Recovery

DONE = Result("done", Saying("restarted", "재시작"))
ME = WorkerRef("dog", "host", 1, "0", "watchdog")


@dataclass
class Looks:
    """*now* is the time of the next look; each look is a second later."""

    now: float
    history: History = ()

    async def take(self, wrote_s: float = 0.0) -> Facts:
        self.now += 1.0
        return Facts(
            self.now,
            0.0,
            HostFacts(0.0),
            LedgerFacts(True),
            RedisFacts(True),
            ChromaFacts(True),
        )

    async def close(self) -> None: ...


@dataclass
class FakeHands:
    result: Result = DONE
    carried: list[str] = field(default_factory=list[str])
    put: list[int] = field(default_factory=list[int])

    async def carry_out(self, code: str, case: Case) -> Result:
        self.carried.append(code)
        return self.result

    async def put_back(self, incident: Incident) -> None:
        self.put.append(incident.id)


@dataclass
class Scene:
    ledger: SqlLedger
    recovery: Recovery
    hands: FakeHands
    looks: Looks
    log: Path
    found: list[Diagnosis] = field(default_factory=list[Diagnosis])

    async def rounds(self, n: int) -> None:
        for _ in range(n):
            await self.recovery.round()
            await asyncio.gather(*self.recovery._acting)

    async def only(self) -> Incident:
        (one,) = (await self.ledger.incidents()).items
        return one


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    import time

    ledger = await SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}", durable=False)
    looks, hands = Looks(time.time()), FakeHands()
    found: list[Diagnosis] = []
    recovery = Recovery(
        book=ledger,
        look=looks,
        hands=hands,  # type: ignore[arg-type]
        me=ME,
        told=recovery_log(tmp_path),
        judge_facts=lambda facts, history: list(found),
        round_s=0.01,
    )
    yield Scene(ledger, recovery, hands, looks, tmp_path / "rag-auto-recovery.log", found)
    await recovery.close()
    await ledger.close()


async def test_noticed_treated_verified_closed(scene: Scene) -> None:
    scene.found.append(Diagnosis("workers_hung", evidence=(Saying("silent", "무응답"),)))
    await scene.rounds(1)
    assert (await scene.ledger.incidents()).items == []
    await scene.rounds(1)
    one = await scene.only()
    assert (one.cause, one.state, one.severity) == ("workers_hung", "open", "critical")
    assert scene.hands.carried == ["restart_worker"]
    assert [a.outcome for a in one.actions] == ["asked", "done"] or not one.actions
    scene.found.clear()
    await scene.rounds(8)
    one = await scene.only()
    assert one.state == "closed" and scene.hands.carried == ["restart_worker"]
    kinds = [e.kind for e in await scene.ledger.incident_events(one.id) if e.kind != "sample"]
    assert kinds == ["opened", "action", "action", "closed"]
    lines = scene.log.read_text().splitlines()
    assert len(lines) == 4
    assert DETECTED in lines[0] and EXECUTED in lines[2] and "recovered" in lines[3]
    assert not any("ERROR" in line or "WARNING" in line for line in lines)
    counters = await scene.ledger.counters()
    assert counters["recovery:restart_worker:done", ""] == 1


async def test_three_that_do_not_help_then_a_person(scene: Scene) -> None:
    scene.found.append(Diagnosis("workers_hung"))
    events = schema.incident_events
    for _ in range(12):
        await scene.rounds(2)
        with scene.ledger._dialect.writer().begin() as conn:  # half a minute passes
            conn.execute(sa.update(events).values(at=events.c.at - 35.0))
    one = await scene.only()
    assert scene.hands.carried == ["restart_worker"] * 3
    assert one.state == "handed_over"
    assert "needs a person" in scene.log.read_text()


async def test_paused_looks_on_and_does_nothing(scene: Scene) -> None:
    await scene.ledger.pause_remedies(True, "kim")
    scene.found.append(Diagnosis("workers_hung"))
    await scene.rounds(6)
    one = await scene.only()
    assert one.state == "open" and scene.hands.carried == []
    assert [a.outcome for a in one.actions] == ["planned"]
    await scene.ledger.pause_remedies(False, "kim")
    await scene.rounds(1)
    assert scene.hands.carried == ["restart_worker"]


async def test_what_was_changed_is_put_back_after_the_close(scene: Scene) -> None:
    scene.found.append(Diagnosis("memory_short"))
    await scene.rounds(2)
    one = await scene.only()
    await scene.ledger.note_undo(one.id, {"knobs": {"RAG_MAX_CONCURRENT_JOBS": [50, 25]}})
    await scene.rounds(2)
    assert scene.hands.put == []
    scene.found.clear()
    await scene.rounds(6)
    assert scene.hands.put[:1] == [one.id]


async def test_a_plan_writes_and_does_nothing(scene: Scene) -> None:
    scene.found += [Diagnosis("chroma_down"), Diagnosis("too_much_work")]
    round_ = await scene.recovery.once(plan=True, by="kim")
    (plan,) = round_.plans
    assert plan.incident is None and plan.choice.verdict == "act"
    assert plan.choice.remedy is not None and plan.choice.remedy.code == "restart_chroma"
    assert (await scene.ledger.incidents()).items == [] and scene.hands.carried == []
    assert not scene.log.exists()


async def test_a_person_need_not_wait(scene: Scene) -> None:
    scene.found.append(Diagnosis("chroma_down"))
    round_ = await scene.recovery.once(plan=False, by="kim")
    assert scene.hands.carried == ["restart_chroma"]
    (one,) = round_.incidents
    assert [(a.outcome, a.by) for a in one.actions] == [("asked", "kim"), ("done", "kim")]
    again = await scene.recovery.once(plan=False, by="kim")  # still to be verified
    assert scene.hands.carried == ["restart_chroma"]
    assert again.plans[0].choice.verdict == "wait"


async def test_two_watchdogs_act_once(scene: Scene) -> None:
    scene.found.append(Diagnosis("workers_hung"))
    twin = Recovery(
        book=scene.ledger,
        look=Looks(scene.looks.now),
        hands=scene.hands,  # type: ignore[arg-type]
        me=ME,
        judge_facts=lambda facts, history: list(scene.found),
    )
    for _ in range(3):
        await asyncio.gather(scene.recovery.round(), twin.round())
    await until("acted", lambda: asyncio.sleep(0, scene.hands.carried))
    await twin.close()
    assert scene.hands.carried == ["restart_worker"]
    assert len((await scene.ledger.incidents()).items) == 1


async def test_only_the_leader_looks(scene: Scene) -> None:
    assert await scene.ledger.lead("recovery", "another", 60.0)
    before = scene.looks.now
    stopping = asyncio.Event()
    task = asyncio.create_task(scene.recovery.follow(stopping))
    await asyncio.sleep(0.1)
    stopping.set()
    await task
    assert scene.looks.now == before
