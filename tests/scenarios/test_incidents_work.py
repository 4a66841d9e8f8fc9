"""What may become of work and of those who do it: workers that never begin, lanes, documents."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.play import SLACK_S, STATISTICAL_S, Play, play_on
from tests.scenarios.test_doctor import doctor
from unjam.core.document import State, Ticket
from unjam.core.ports import Progress
from unjam.queue import order
from unjam.queue.lanes import LARGE, PROCESSING
from unjam.testing.embedded_stack import EmbeddedStack
from unjam.testing.wait import until, until_ended
from unjam.watchdog.detect_work import STAGNANT_S
from unjam.worker.children import Command
from unjam.worker.embedded import free_port
from unjam.worker.identity import process_identity
from unjam.worker.supervisor import ChildSpec, Tier

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(420)]

CSV = {"RAG_TYPE_QUEUES": "csv=rag_csv"}


def worker(stack: EmbeddedStack, name: str, *argv: str, **env: str) -> ChildSpec:
    every = {**stack.stack.environment(), **env}
    title = f"rq worker rag_processing (unjam {name})"
    command = Command.python("unjam.cli.main", ["worker", *argv], title=title, env=every)
    return ChildSpec(name, command, Tier.WORKER, f"{name}.log")


async def test_workers_that_never_begin_and_work_that_nobody_does(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1, extra=CSV) as stack:
        play = await play_on(stack)

        async def broken() -> None:
            await stack.supervisor.dismiss("worker-1", 20.0)
            await stack.supervisor.start([worker(stack, "broken", RAG_EMBEDDING_BATCH_SIZE="many")])

        async def mended() -> None:
            await stack.supervisor.dismiss("broken", 5.0)
            await stack.supervisor.start([worker(stack, "mended", "--queues", PROCESSING)])

        looping = await play.fault("workers_crash_looping", broken, mended)
        assert "exit code" in looping.evidence[0].en
        await play.closed(looping)

        async def unheard() -> None:
            await play.add(1, name="csv")

        unserved = await play.fault("lane_unserved", unheard)
        assert unserved.subject == "rag_csv"
        await until_ended(play.book, play.added, deadline_s=60)  # it went back to where they listen
        await play.closed(unserved)

        (held,) = await play.add(1, name="csv")
        async with doing_nothing(play, held):
            stuck = await play.fault(
                "unknown_stagnation", lambda: asyncio.sleep(0), within_s=STAGNANT_S + SLACK_S
            )
        await play.closed(stuck)
        await play.all_over()


@asynccontextmanager
async def doing_nothing(play: Play, document_id: str) -> AsyncGenerator[None]:
    """A worker of ours has the document in hand, and its heart beats; that is all."""
    me = process_identity("worker")

    queue = play.stack.services.queue

    async def taken() -> list[Ticket]:
        return await queue.take(["rag_csv"], 1, me.id)

    (ticket,) = await until("it stands in line", taken)
    assert ticket.document_id == document_id
    (answer,) = await play.book.claim([ticket], me, 50)
    assert answer.claim is not None
    token = answer.claim.token
    await play.book.report(Progress(document_id, token, State.EMBEDDING))

    async def beat() -> None:
        while True:
            await asyncio.to_thread(play.book.renew, me, {document_id: token}, ())
            await asyncio.sleep(2.0)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        await play.book.expire([me.id])
        await play.book.retire(me.id)


async def test_large_ones_before_small_ones(tmp_path: Path) -> None:
    two = {"RAG_MAX_CONCURRENT_JOBS": "2", "RAG_LARGE_DOCUMENT_MB": "1"}
    async with EmbeddedStack(tmp_path / "data", workers=1, extra=two) as stack:
        play = await play_on(stack)
        queue = stack.services.queue

        async def running() -> int:
            return (await play.book.equation()).running

        async def block() -> None:
            stack.endpoint.control(latency_ms=2000)
            await play.book.pause(LARGE, "test")
            for n in range(2):
                words = " ".join(f"word{i} of {n}" for i in range(80_000))
                play.added.append(await stack.stack.add(words, f"large-{n}.txt"))
            moved = await order.move_all(play.book, queue, LARGE, PROCESSING)
            await play.book.resume(LARGE, "test")
            assert moved == 2
            await until("both are in hand", running, lambda n: n == 2)
            await play.add(5)

        blocked = await play.fault(
            "large_documents_block", block, play.answering(latency_ms=0), within_s=STATISTICAL_S
        )
        assert blocked.subject == PROCESSING
        await play.all_over()


@pytest.mark.alone  # its one worker must be replaced before "no workers" is the truth
async def test_a_document_that_kills_whoever_works_on_it(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        play = await play_on(stack)
        stack.endpoint.control(latency_ms=5000)

        async def kill() -> None:
            while True:
                for r in (await play.book.vitals([])).running:
                    if r.document_id == poison and (r.alone or not r.suspect):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(int(r.worker.split(".")[-2]), signal.SIGKILL)
                await asyncio.sleep(0.1)

        (poison,) = await play.add(1)
        killing = asyncio.create_task(kill())
        try:
            named = await play.fault(
                "poison_document", lambda: asyncio.sleep(0), within_s=STATISTICAL_S
            )
            ended = await until_ended(play.book, [poison], deadline_s=90)
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
        assert named.subject == poison
        assert ended[poison].state is State.DEAD
        play.added.remove(poison)
        stack.endpoint.control(latency_ms=0)
        await play.add(2)
        await play.all_over()


async def test_what_only_a_look_from_outside_can_tell(tmp_path: Path) -> None:
    """This house has no API; nobody of it could say so."""
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        await play_on(stack)
        url = f"http://127.0.0.1:{free_port(0)}"
        replace(stack.services.house(), api_url=url).write(stack.data_dir)
        env = stack.stack.environment()
        assert (await doctor(env, "--json")).causes == ["api_down"]
        await stack.supervisor.dismiss("watchdog-1", 20.0)
        assert (await doctor(env, "--json")).causes == ["api_down", "watchdog_none"]
