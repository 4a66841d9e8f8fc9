"""What remedies may touch: ours only, and what the operator named."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aredis

from unjam.core.errors import SetupError
from unjam.core.incident import Diagnosis, Incident, RemedyRequest
from unjam.core.ports import WorkerRef
from unjam.queue.memory import MemoryQueue
from unjam.queue.repair import RedisRepair
from unjam.stores.ledger import SqlLedger
from unjam.testing.wait import until
from unjam.watchdog.acting import Case, Hands, Servers
from unjam.watchdog.facts import (
    ChromaFacts,
    Facts,
    HostFacts,
    LedgerFacts,
    Process,
    RedisFacts,
)
from unjam.worker.embedded import Server, start_valkey
from unjam.worker.remedies import Remedies
from unjam.worker.supervisor import ChildSpec, Supervisor


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A Redis of the test's own: its configuration is changed here."""
    made = await start_valkey(tmp_path / "redis", 0)
    yield made
    await made.stop()


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqlLedger]:
    opened = await SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}", durable=False)
    yield opened
    await opened.close()


def facts(*processes: Process) -> Facts:
    return Facts(
        0.0,
        0.0,
        HostFacts(0.0),
        LedgerFacts(True),
        RedisFacts(True),
        ChromaFacts(True),
        processes=processes,
    )


async def case_of(ledger: SqlLedger, cause: str, *processes: Process) -> Case:
    made = await ledger.open_incident(Diagnosis(cause), "critical")
    return Case(made, Diagnosis(cause), facts(*processes))


def hands_of(ledger: SqlLedger, home: Path, knobs: dict[str, int], **servers: Any) -> Hands:
    async def audit() -> None: ...

    places = Servers(home, **{"redis_url": "redis://r:1/5", "chroma_url": "http://c:2", **servers})
    return Hands(ledger, MemoryQueue(), places, lambda: knobs, audit)


async def value(server: Server, name: str) -> str:
    client = aredis.Redis.from_url(server.admin_url, decode_responses=True)
    try:
        return (await client.config_get(name))[name]
    finally:
        await client.aclose()


async def test_a_redis_that_others_use_is_not_configured(server: Server) -> None:
    client = aredis.Redis.from_url(server.admin_url.replace("/5", "/3"))
    await client.config_set("maxmemory-policy", "allkeys-lru")
    await client.set("somebody", "else")
    with pytest.raises(SetupError, match="db3"):
        await RedisRepair(server.admin_url).noeviction()
    assert await value(server, "maxmemory-policy") == "allkeys-lru"
    assert await RedisRepair(server.admin_url, forced=True).noeviction() == "allkeys-lru"
    assert await value(server, "maxmemory-policy") == "noeviction"
    await client.delete("somebody")
    await client.config_set("appendonly", "no")
    assert await RedisRepair(server.admin_url).appendonly() == "no"
    assert await value(server, "appendonly") == "yes"
    await client.aclose()


async def test_foreign_servers_and_workers_are_refused(ledger: SqlLedger, tmp_path: Path) -> None:
    hands = hands_of(ledger, tmp_path, {})
    for remedy, cause in (("restart_redis", "redis_down"), ("restart_chroma", "chroma_down")):
        result = await hands.carry_out(remedy, await case_of(ledger, cause))
        assert result.outcome == "refused" and "--allow-restart" in result.detail.en
    foreign = Process(WorkerRef("w", "elsewhere", 7, "0"), 60.0, None)
    stock = Process(WorkerRef("s", "here", 8, "0", "stock"), 60.0, True)
    boss = Process(WorkerRef("b", "here", 9, "0", "supervisor"), 1.0, True)
    result = await hands.carry_out(
        "restart_worker", await case_of(ledger, "workers_hung", foreign, stock, boss)
    )
    assert result.outcome == "refused" and "elsewhere" in result.detail.en
    assert await ledger.remedies_asked("here") == await ledger.remedies_asked("elsewhere") == []


async def test_load_is_lowered_twice_and_put_back_to_where_it_was(
    ledger: SqlLedger, tmp_path: Path
) -> None:
    knobs = {
        "RAG_MAX_CONCURRENT_JOBS": 50,
        "RAG_EMBEDDING_BATCH_SIZE": 32,
        "RAG_EMBEDDING_CONCURRENCY": 1,
    }
    hands = hands_of(ledger, tmp_path, knobs)
    incident: Incident | None = None
    for expected in (25, 12):
        case = await case_of(ledger, "memory_short")
        incident = case.incident
        assert (await hands.carry_out("lower_load", case)).outcome == "done"
        knobs |= await ledger.knobs()
        assert knobs["RAG_MAX_CONCURRENT_JOBS"] == expected
    assert incident is not None and knobs["RAG_EMBEDDING_CONCURRENCY"] == 1
    await ledger.set_knob("RAG_EMBEDDING_BATCH_SIZE", 64, "kim")  # a person changed it meanwhile
    knobs["RAG_EMBEDDING_BATCH_SIZE"] = 64
    await ledger.close_incident(incident.id)
    (over,) = await ledger.undone()
    await hands.put_back(over)
    now = await ledger.knobs()
    assert (now["RAG_MAX_CONCURRENT_JOBS"], now["RAG_EMBEDDING_BATCH_SIZE"]) == (50, 64)
    assert await ledger.undone() == []


async def test_a_supervisor_restarts_only_units_that_were_named(
    ledger: SqlLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("systemctl", "docker"):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n')
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")

    def none(_: int) -> ChildSpec:
        raise AssertionError("nothing is started here")

    allowed = ("redis.service", "docker:chromadb", "--root=/")
    remedies = Remedies(Supervisor(tmp_path, tmp_path), ledger, none, allowed)

    async def asked(target: str, process_id: str = "") -> str:
        return await remedies.carry_out(
            RemedyRequest(1, None, "h", "restart", target, process_id, 0.0)
        )

    assert await asked("unit:redis.service") == "done"
    assert await asked("unit:docker:chromadb") == "done"
    assert (await asked("unit:postgresql.service")).startswith("refused")
    assert (await asked("unit:--root=/")).startswith("refused")
    assert await asked("worker", "h.1.1") == "gone"
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["systemctl restart redis.service", "docker restart chromadb"]


async def test_only_workers_of_an_older_release_are_drained_whoever_leads(
    ledger: SqlLedger, tmp_path: Path
) -> None:
    """The leader may itself be the older one: it must not restart those that are ahead of it."""
    refs = [
        WorkerRef(f"{host}.{n}.1", host, n, version, kind)
        for host, version in (("a", "0.9.0"), ("b", "0.10.0"))
        for n, kind in ((1, "supervisor"), (2, "worker"))
    ]
    case = await case_of(ledger, "version_mismatch", *(Process(ref, 1.0, None) for ref in refs))
    case = replace(case, facts=replace(case.facts, version="0.9.0"))
    told = asyncio.create_task(hands_of(ledger, tmp_path, {}).carry_out("drain_old_workers", case))
    asked = await until("the older host is asked", lambda: ledger.remedies_asked("a"))
    assert [request.process_id for request in asked] == ["a.2.1"]
    await ledger.answer_remedy(asked[0].id, "done")
    assert (await told).outcome == "done"
    assert await ledger.remedies_asked("b") == []
