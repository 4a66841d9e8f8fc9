"""One process's view: what opens a breaker and what does not, who probes, and who goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

import pytest

from unjam.core.breaker import CHROMA, LEDGER, OUTBOX, REDIS, Breaker
from unjam.core.document import State
from unjam.core.errors import DependencyDown, SetupError
from unjam.pipeline import breakers as module
from unjam.pipeline.breakers import STRIKES, Breakers
from unjam.stores.ledger import SqlLedger
from unjam.stores.memory import memory_ledger
from unjam.testing.wait import until


class Server:
    """A dependency; *up* False: it says so; *checks*: how often it was asked."""

    def __init__(self) -> None:
        self.up, self.checks = True, 0

    async def ping(self) -> None:
        self.checks += 1
        await asyncio.sleep(0)
        if not self.up:
            raise DependencyDown("no answer", code="vector_store_down")


@pytest.fixture
async def ledger() -> AsyncIterator[SqlLedger]:
    opened = await memory_ledger()
    yield opened
    await opened.close()


@pytest.fixture
def server() -> Server:
    return Server()


Make = Callable[[], Breakers]


@pytest.fixture
async def make(ledger: SqlLedger, server: Server) -> AsyncIterator[Make]:
    made: list[Breakers] = []

    def _make() -> Breakers:
        made.append(Breakers(ledger, {CHROMA: server.ping}))
        return made[-1]

    yield _make
    for one in made:
        await one.close()


async def test_fifty_documents_that_meet_an_outage_are_one_check(
    make: Make, server: Server, ledger: SqlLedger
) -> None:
    server.up, breakers = False, make()
    await asyncio.gather(*(breakers.report("vector_store_down", str(n)) for n in range(50)))
    held = breakers.held()
    assert held is not None
    assert (held.reason, held.detail) == ("vector_store_down", "no answer")
    assert server.checks == 1
    assert breakers.pause_s() > 0
    assert (await ledger.dependency_states())[CHROMA].holds


async def test_one_that_a_healthy_server_refuses_stops_nobody(make: Make, server: Server) -> None:
    breakers = make()
    for _ in range(10):  # others succeed in between
        await breakers.report("vector_store_down", "answered 400: strange row")
        breakers.succeeded()
    assert breakers.held() is None


async def test_a_server_that_pings_and_refuses_everything_is_down(make: Make) -> None:
    breakers = make()
    for n in range(STRIKES):
        assert breakers.held() is None, n
        await breakers.report("vector_store_down", "answered 500: disk full")
    held = breakers.held()
    assert held is not None and "disk full" in held.detail


async def test_trouble_of_ones_own_and_of_documents_is_no_outage(make: Make) -> None:
    breakers = make()
    for _ in range(STRIKES + 1):
        await breakers.report("embedding_down", "another endpoint", shared=False)
        await breakers.report("processing_error", "what?")
    assert breakers.held() is None


async def test_everybody_learns_of_it_one_probes_and_all_go_on(make: Make, server: Server) -> None:
    one, other = make(), make()
    one.follow()
    other.follow()
    server.up = False
    await one.report("vector_store_down", "away")
    reported = server.checks

    async def pauses() -> list[bool]:
        return [b.pause_s() > 0 for b in (one, other)]

    await until("both pause", pauses, all, deadline_s=5)

    async def probes() -> int:
        return server.checks - reported

    await until("two failed probes", probes, lambda n: n >= 2, deadline_s=10)
    server.up = True
    await until("both go on", pauses, lambda p: not any(p), deadline_s=5)
    assert one.held() is None and other.held() is None


async def test_a_check_that_breaks_is_no_all_clear(ledger: SqlLedger) -> None:
    async def bug() -> None:
        raise ValueError("oops")

    async def unset() -> None:
        raise SetupError("no such setting")

    breakers = Breakers(ledger, {CHROMA: bug, REDIS: unset})
    await breakers.report("vector_store_down", "away")
    await breakers.report("queue_down", "away")
    held = breakers.held()
    assert held is not None and (held.name, held.detail) == (REDIS, "no such setting")
    assert (breakers.of(CHROMA) or held).detail == "ValueError: oops"
    await breakers.close()


async def test_the_ledgers_own_trouble_is_kept_in_memory(ledger: SqlLedger) -> None:
    made_room: list[int] = []
    heard: list[Breaker] = []

    def relieve() -> bool:
        made_room.append(1)
        return True

    breakers = Breakers(ledger, {}, relieve=relieve, changed=heard.append)
    breakers.ledger_trouble(DependencyDown("disk full", code="ledger_unwritable"))
    breakers.ledger_trouble(DependencyDown("disk full", code="ledger_unwritable"))
    assert breakers.states()[LEDGER] == "open"

    async def shared() -> bool:
        return LEDGER in await ledger.dependency_states()

    await until("told to the others, since there was room", shared, deadline_s=5)
    assert made_room == [1]
    breakers.ledger_trouble(None)
    assert breakers.held() is None  # its own writes go through …
    await breakers.refresh()
    assert breakers.held() is not None  # … but the reserve has to stand again
    assert [b.holds for b in heard] == [True, False, True]
    await breakers.close()


async def test_a_shut_outbox_keeps_who_is_outside_only(ledger: SqlLedger) -> None:
    breakers = Breakers(ledger, {})
    await ledger.report_dependency(OUTBOX, "queue_full", "OOM")
    await breakers.refresh()
    assert breakers.held() is None and breakers.pause_s() == 0.0
    kept = breakers.keeps(State.RECEIVED)
    assert kept is not None and kept.reason == "queue_full"
    assert breakers.keeps(State.QUEUED) is None
    assert breakers.keeps(State.EMBEDDING) is None


async def test_the_return_is_spread(make: Make, server: Server, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(module.random, "random", lambda: 0.5)
    server.up, breakers = False, make()
    await breakers.report("vector_store_down", "away")
    assert breakers.pause_s() > 0
    breakers._rows.clear()
    assert 0.3 < breakers.pause_s() <= 0.5 * module.RETURN_SPREAD_S


async def test_a_worker_that_cannot_work_rests_and_holds_nobody_else(make: Make) -> None:
    mine, other = make(), make()
    await mine.report("worker_unfit", "no parser", retry_after_s=20.0, shared=False)
    await other.refresh()
    assert 15.0 < mine.pause_s() <= 20.0
    assert other.pause_s() == 0.0
    assert mine.held() is None


async def test_a_ledger_that_says_nothing_is_away_until_it_speaks(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over a cut cable: neither an answer nor an error comes."""
    monkeypatch.setattr(module, "SILENT_S", 0.05)
    speaks, writes = asyncio.Event(), ledger.lead

    async def lead(role: str, holder: str, ttl_s: float) -> bool:
        await speaks.wait()
        return await writes(role, holder, ttl_s)

    monkeypatch.setattr(ledger, "lead", lead)
    breakers = Breakers(ledger, {})
    breakers.follow(probe=False, write_check=True)

    async def away() -> Breaker | None:
        return breakers.of(LEDGER)

    held = await until("uploads are held", away, deadline_s=10)
    assert held is not None and held.reason == "ledger_unwritable"
    speaks.set()
    await until("uploads go on", away, lambda held: held is None, deadline_s=10)
    await breakers.close()


@pytest.mark.parametrize("wrong_s", [-300.0, 300.0])
async def test_a_clock_that_is_minutes_off_delays_no_probe(
    make: Make, server: Server, monkeypatch: pytest.MonkeyPatch, wrong_s: float
) -> None:
    """On many hosts the times of a breaker are the database's."""
    server.up, breakers = False, make()
    await breakers.report("vector_store_down", "away")
    real = time.time
    clock = SimpleNamespace(monotonic=time.monotonic, time=lambda: real() + wrong_s)
    monkeypatch.setattr(module, "time", clock)
    server.up = True
    breakers.follow()

    async def held() -> Breaker | None:
        return breakers.held()

    await until("it is probed and closed", held, lambda b: b is None, deadline_s=10)


async def test_a_prober_that_is_cut_off_holds_nobody_up(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One host no longer reaches the server, and its probe hangs; another host's passes."""
    monkeypatch.setattr(module.breaker, "PROBING_S", 0.2)
    asked, cut = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        asked.set()
        await cut.wait()
        raise DependencyDown("no route", code="vector_store_down")

    async def answers() -> None:
        return None

    off, well = Breakers(ledger, {CHROMA: hangs}), Breakers(ledger, {CHROMA: answers})
    await ledger.report_dependency(CHROMA, "vector_store_down", "no route")
    off.follow()
    async with asyncio.timeout(10):
        await asked.wait()
    well.follow()

    async def holds() -> bool:
        return (await ledger.dependency_states())[CHROMA].holds

    async def probing() -> Breaker | None:
        return off._probing

    await until("it is closed", holds, lambda held: not held, deadline_s=10)
    late = off._probing
    cut.set()
    await until("the late answer came", probing, lambda row: row is not late)
    assert not await holds()
    await off.close()
    await well.close()
