"""Each cause that can be brought about on a throw-away house: noticed in time, named first, closed
without a person once the fault is gone, and reported."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.fixtures.play import STATISTICAL_S, play_on
from unjam.core.causes import CAUSES
from unjam.core.ports import WorkerRef
from unjam.testing.embedded_stack import EmbeddedStack
from unjam.testing.wait import until, until_ended

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(420)]


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
