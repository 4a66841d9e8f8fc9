"""Each cause that can be brought about on a throw-away house: noticed in time, named first, closed
without a person once the fault is gone, and reported."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis.asyncio as aredis

from unjam.core.causes import CAUSES
from unjam.core.document import State
from unjam.core.incident import Incident
from unjam.core.ports import WorkerRef
from unjam.stores.ledger import SqlLedger
from unjam.testing.embedded_stack import EmbeddedStack
from unjam.testing.wait import until, until_ended
from unjam.watchdog.report import FIELDS, as_markdown, make_report

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(420)]

NOTICED_S = 5.0
STATISTICAL_S = 30.0
SLACK_S = 5.0
"""What a machine that runs other tests beside may add."""

Act = Callable[[], Awaitable[object]]


@dataclass
class Play:
    """Faults on one house, one after the other; their incidents are waited for at the end."""

    stack: EmbeddedStack
    seen: set[int]
    opened: list[Incident]
    added: list[str]

    @property
    def book(self) -> SqlLedger:
        ledger = self.stack.services.ledger
        assert isinstance(ledger, SqlLedger)
        return ledger

    async def add(self, count: int = 1, user: str = "", name: str = "txt") -> list[str]:
        made: list[str] = []
        for _ in range(count):
            n = len(self.added)
            made.append(await self.stack.stack.add(f"text {n} of {user}", f"{n}.{name}", user))
            self.added.append(made[-1])
        return made

    async def fault(
        self, cause: str, inject: Act, heal: Act | None = None, *, within_s: float = NOTICED_S
    ) -> Incident:
        """*inject*; the next new incident must be of *cause*; then *heal*."""
        await inject()
        at = time.time()

        async def fresh() -> list[Incident]:
            items = (await self.book.incidents(limit=200)).items
            return sorted((i for i in items if i.id not in self.seen), key=lambda i: i.id)

        found = await until(f"an incident: {cause}", fresh, deadline_s=within_s + 30, every_s=0.1)
        first = found[0]
        assert first.cause == cause, (cause, found)
        assert first.noticed_at - at <= within_s + SLACK_S, (cause, first.noticed_at - at)
        assert first.evidence and all(s.en and s.ko for s in first.evidence)
        self.seen |= {i.id for i in found}
        self.opened.append(first)
        if heal is not None:
            await heal()
        return first

    async def closed(self, incident: Incident) -> None:
        async def state() -> str:
            return (await self.book.incident(incident.id)).state

        await until(
            f"{incident.cause} is over", state, lambda s: s == "closed", deadline_s=90, every_s=0.2
        )

    async def all_over(self) -> None:
        """Every incident closed and reported; every document whole."""
        for incident in self.opened:
            await self.closed(incident)
            whole = await self.book.incident(incident.id)
            report = make_report(whole, await self.book.incident_events(whole.id), time.time())
            text = as_markdown(report)
            assert all(f"`{name}`" in text for name in FIELDS) and incident.cause in text
        found = await until_ended(self.book, self.added, deadline_s=120)
        assert {d.state for d in found.values()} == {State.SEARCHABLE}
        equation = await self.book.equation()
        assert equation.missing == 0

    async def redis(self, *command: str) -> object:
        client = aredis.Redis.from_url(self.stack.plans["valkey"].admin_url)
        try:
            return await client.execute_command(*command)
        finally:
            await client.aclose()

    def asking(self, fault: str = "", documents: int = 3, **behaviour: object) -> Act:
        """The endpoint behaves so, and there is work for it."""

        async def inject() -> None:
            self.stack.endpoint.control(fault=fault, **behaviour)
            await self.add(documents)

        return inject

    def answering(self, **behaviour: object) -> Act:
        async def heal() -> None:
            self.stack.endpoint.control(fault="", **behaviour)

        return heal


async def play_on(stack: EmbeddedStack) -> Play:
    await until("all up", stack.processes_ready, deadline_s=90)
    play = Play(stack, set(), [], [])
    await until_ended(play.book, await play.add(2), deadline_s=60)
    assert (await play.book.incidents()).items == []
    return play


async def test_what_the_endpoint_may_do(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        play = await play_on(stack)
        for cause, inject, heal in (
            ("embedding_down", play.asking("503"), play.answering()),
            ("embedding_throttled", play.asking("429", retry_after_s=8.0), play.answering()),
            ("embedding_dimension_changed", play.asking(dimension=128), None),
        ):
            incident = await play.fault(cause, inject, heal)
            if cause == "embedding_dimension_changed":
                stack.endpoint.control(dimension=0)
            await play.closed(incident)
        await play.all_over()


@pytest.mark.soak
async def test_what_becomes_of_keys(tmp_path: Path) -> None:
    """A long one: a key that is set aside is tried again after minutes."""
    key = ["sk-stack"]
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        play = await play_on(stack)
        for cause, inject, heal in (
            ("embedding_quota", play.asking(quota_keys=key), play.answering(quota_keys=[])),
            ("embedding_key_bad", play.asking(bad_keys=key), play.answering(bad_keys=[])),
        ):
            await play.closed(await play.fault(cause, inject, heal))
        await play.all_over()


async def test_what_redis_may_do(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        play = await play_on(stack)
        services = stack.services

        async def fill() -> None:
            info = await play.redis("INFO", "memory")
            assert isinstance(info, dict)
            await play.redis("CONFIG", "SET", "maxmemory", str(int(info["used_memory"]) + 4096))

        async def other_house() -> None:
            mapping = {**services.house().to_mapping(), "ledger_id": "another-house"}
            await services.queue.write_house(mapping)

        async def own_house() -> None:
            await services.queue.write_house(services.house().to_mapping())

        for cause, inject, heal in (
            ("redis_full", fill, lambda: play.redis("CONFIG", "SET", "maxmemory", "0")),
            ("redis_wrong_database", other_house, own_house),
            (
                "stopped_by_person",
                lambda: play.redis("SET", "rq:suspended", "1"),
                lambda: play.redis("DEL", "rq:suspended"),
            ),
            ("redis_lost_data", stack.flush_redis, None),
        ):
            incident = await play.fault(cause, inject, heal)
            await play.add(1)
            await play.closed(incident)
        await play.all_over()


async def test_what_becomes_of_workers(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=2) as stack:
        play = await play_on(stack)

        async def kill_thrice() -> None:
            for _ in range(3):
                was = stack.supervisor.pids()["worker-1"]
                stack.hit("worker-1", signal.SIGKILL)

                async def again(was: int = was) -> bool:
                    back = stack.supervisor.pids().get("worker-1", was) != was
                    return back and await stack.processes_ready()

                await until("it is back and beats", again, deadline_s=60, every_s=0.1)
                await asyncio.sleep(1.2)  # deaths of one moment are one trouble

        looping = await play.fault("workers_crash_looping", kill_thrice, within_s=20.0)
        assert "SIGKILL" in looping.evidence[0].en

        async def other_release() -> None:
            ref = WorkerRef("elsewhere.1.1", "elsewhere", 1, "0.0.9", "worker")
            await asyncio.to_thread(play.book.renew, ref, {}, [])

        await play.fault("version_mismatch", other_release)

        blobs = stack.data_dir / "blobs"
        aside = stack.data_dir / "aside"

        async def take_away() -> None:
            await play.add(1)
            blobs.rename(aside)

        async def put_back() -> None:
            if blobs.exists():
                blobs.rename(stack.data_dir / "made-meanwhile")
            aside.rename(blobs)

        await play.fault("originals_down", take_away, put_back)

        await play.all_over()


async def test_what_stands_in_line(tmp_path: Path) -> None:
    few = {"RAG_MAX_CONCURRENT_JOBS": "4"}
    async with EmbeddedStack(tmp_path / "data", workers=1, extra=few) as stack:
        play = await play_on(stack)

        async def flood() -> None:
            stack.endpoint.control(latency_ms=2000)
            await play.add(320, user="loud")
            await play.add(30, user="quiet")

        flooded = await play.fault(
            "user_flood", flood, play.answering(latency_ms=0), within_s=STATISTICAL_S
        )
        assert flooded.subject == "loud" and CAUSES["user_flood"].severity == "info"
        await until_ended(play.book, play.added, deadline_s=150)
        await play.all_over()


async def test_a_house_without_workers(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=2) as stack:
        play = await play_on(stack)

        async def nobody() -> None:
            for name in ("worker-1", "worker-2"):
                await stack.supervisor.dismiss(name, 20.0)

        gone = await play.fault("workers_none", nobody)
        await play.add(1)
        await play.closed(gone)
        whole = await play.book.incident(gone.id)
        assert [(a.remedy, a.outcome) for a in whole.actions][-1:] == [("start_worker", "done")]
        await play.all_over()
