"""Faults on a whole house: noticed, the right cause named, repaired without a person, closed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis.asyncio as aredis

from unjam.core.incident import Incident
from unjam.observe.incidents import EXECUTED
from unjam.stores.ledger import SqlLedger
from unjam.testing.embedded_stack import EmbeddedStack
from unjam.testing.wait import until, until_ended
from unjam.watchdog.report import FIELDS, as_markdown, make_report

NOTICED_S = 5.0
SLACK_S = 3.0
"""What a machine that runs other tests beside may add."""

EACH_S = float(os.environ.get("QUIET_SECONDS") or 600)
"""Of the quiet run, and of the busy one."""

pytestmark = [pytest.mark.thorough, pytest.mark.slow]


def book(stack: EmbeddedStack) -> SqlLedger:
    ledger = stack.services.ledger
    assert isinstance(ledger, SqlLedger)
    return ledger


async def at_rest(stack: EmbeddedStack) -> None:
    """Up, with a history, and without an incident."""
    await until("all up", stack.processes_ready, deadline_s=60)
    await until_ended(stack.services.ledger, [await stack.stack.add("first", "first.txt")])
    assert (await book(stack).incidents()).items == []


async def incident_after(
    stack: EmbeddedStack, cause: str, fault: Callable[[], Awaitable[object]]
) -> tuple[float, Incident]:
    """(When the fault was, the incident that was opened first after it)."""
    known = {i.id for i in (await book(stack).incidents()).items}
    at = time.time()
    await fault()

    async def fresh() -> list[Incident]:
        items = (await book(stack).incidents()).items
        return sorted((i for i in items if i.id not in known), key=lambda i: i.id)

    first = (await until(f"an incident ({cause})", fresh, deadline_s=30))[0]
    assert first.cause == cause, first
    assert first.noticed_at - at <= NOTICED_S + SLACK_S
    assert first.started_at <= first.noticed_at and first.started_at >= at - 5
    assert first.evidence and all(s.en and s.ko for s in first.evidence)
    return at, first


async def repaired(stack: EmbeddedStack, incident: Incident, remedy: str) -> Incident:
    async def state() -> str:
        return (await book(stack).incident(incident.id)).state

    await until("closed", state, lambda s: s == "closed", deadline_s=60, every_s=0.2)
    closed = await book(stack).incident(incident.id)
    assert [(a.remedy, a.outcome) for a in closed.actions] == [(remedy, "asked"), (remedy, "done")]
    events = await book(stack).incident_events(incident.id)
    report = make_report(closed, events, time.time(), lang="ko")
    text = as_markdown(report)
    assert all(f"`{name}`" in text for name in FIELDS) and remedy in text
    return closed


async def admin(stack: EmbeddedStack, *command: str) -> None:
    client = aredis.Redis.from_url(stack.plans["valkey"].admin_url)
    try:
        await client.execute_command(*command)
    finally:
        await client.aclose()


async def test_workers_that_hang_and_a_redis_that_may_lose_jobs(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        await at_rest(stack)
        frozen = stack.supervisor.pids()["worker-1"]

        async def freeze() -> None:
            stack.hit("worker-1", signal.SIGSTOP)

        _, hung = await incident_after(stack, "workers_hung", freeze)
        added = await stack.stack.add("while it hangs", "hung.txt")
        await repaired(stack, hung, "restart_worker")
        assert stack.supervisor.pids()["worker-1"] != frozen
        await until_ended(stack.services.ledger, [added])

        for setting, unsafe, remedy in (
            ("maxmemory-policy", "allkeys-lru", "redis_noeviction"),
            ("appendonly", "no", "redis_appendonly"),
        ):
            _, found = await incident_after(
                stack,
                "redis_unsafe",
                lambda s=setting, v=unsafe: admin(stack, "CONFIG", "SET", s, v),
            )
            closed = await repaired(stack, found, remedy)
            assert unsafe in closed.actions[-1].detail.en  # the value to go back to
        counters = await book(stack).counters()
        for remedy in ("restart_worker", "redis_noeviction", "redis_appendonly"):
            assert counters[f"recovery:{remedy}:done", ""] == 1
        log = (tmp_path / "data" / "logs" / "rag-auto-recovery.log").read_text()
        assert log.count(EXECUTED) == 3 and log.count("RAG queue recovered") == 3


async def test_servers_of_ours_that_hang_are_restarted(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        await at_rest(stack)
        for name, cause, remedy in (
            ("valkey", "redis_down", "restart_redis"),
            ("chroma", "chroma_down", "restart_chroma"),
        ):
            frozen = stack.supervisor.pids()[name]

            async def freeze(which: str = name) -> None:
                stack.hit(which, signal.SIGSTOP)

            _, found = await incident_after(stack, cause, freeze)
            added = await stack.stack.add(f"while {name} hangs", f"{name}.txt")
            await repaired(stack, found, remedy)
            assert stack.supervisor.pids()[name] != frozen
            await until_ended(stack.services.ledger, [added])
        assert len((await book(stack).incidents()).items) == 2


async def test_an_endpoint_in_trouble_is_named_and_waited_for(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        await at_rest(stack)

        async def fail() -> None:
            stack.endpoint.control(fault="500")
            added.append(await stack.stack.add("while it fails", "fails.txt"))

        async def refuse() -> None:
            stack.endpoint.control(fault="401")
            added.append(await stack.stack.add("with a bad key", "key.txt"))

        added: list[str] = []
        _, down = await incident_after(stack, "embedding_down", fail)
        stack.endpoint.control(fault="")
        await until_ended(stack.services.ledger, added)

        async def state(incident: Incident = down) -> str:
            return (await book(stack).incident(incident.id)).state

        await until("closed", state, lambda s: s == "closed", deadline_s=60)
        assert (await book(stack).incident(down.id)).actions == ()
        # Nothing here makes a key good: a person is told within seconds.
        _, bad = await incident_after(stack, "embedding_key_bad", refuse)
        await until("handed over", lambda: state(bad), lambda s: s == "handed_over", deadline_s=30)


async def test_the_kill_switch_and_what_heals_by_itself(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        await at_rest(stack)
        await book(stack).pause_remedies(True, "test")

        async def freeze() -> None:
            stack.hit("worker-1", signal.SIGSTOP)

        frozen = stack.supervisor.pids()["worker-1"]
        _, hung = await incident_after(stack, "workers_hung", freeze)

        async def planned() -> list[str]:
            return [a.outcome for a in (await book(stack).incident(hung.id)).actions]

        await until("a plan", planned, lambda seen: "planned" in seen)
        assert stack.supervisor.pids()["worker-1"] == frozen
        stack.thaw()

        async def state() -> str:
            return (await book(stack).incident(hung.id)).state

        await until("healed", state, lambda s: s == "closed", deadline_s=30)
        assert await planned() == ["planned"]
        await book(stack).pause_remedies(False, "test")
        # A child that is killed is back before it is a trouble.
        for name in ("valkey", "worker-1", "chroma"):
            stack.hit(name, signal.SIGKILL)
            ids = [await stack.stack.add(f"after {name}", f"{name}.txt")]
            await until_ended(stack.services.ledger, ids)
        opened = [i.cause for i in (await book(stack).incidents()).items if i.id != hung.id]
        assert not set(opened) - {"redis_down", "chroma_down"}, opened
        assert not any(i.actions for i in (await book(stack).incidents()).items if i.id != hung.id)


@pytest.mark.soak
@pytest.mark.timeout(2 * EACH_S + 300)
async def test_ten_quiet_minutes_and_ten_busy_ones_have_no_incident(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=2) as stack:
        await at_rest(stack)
        for busy in (False, True):
            end = time.monotonic() + EACH_S
            n = 0

            async def over(until_: float = end, add: bool = busy) -> bool:
                nonlocal n
                if add and (await stack.services.ledger.backlog()).documents < 200:
                    for _ in range(20):
                        n += 1
                        await stack.stack.add(f"document {add} {n} " * 40, f"{n}.txt")
                return time.monotonic() > until_

            await until("the time is over", over, deadline_s=EACH_S + 100, every_s=0.5)
            alarms = [i for i in (await book(stack).incidents()).items if i.severity != "info"]
            assert alarms == []
