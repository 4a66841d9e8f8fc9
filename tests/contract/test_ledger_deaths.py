"""Deaths of workers: suspects at no cost, what counts against a document, what a storm costs."""

from __future__ import annotations

import json
from dataclasses import replace

import sqlalchemy as sa

from tests.fixtures.ledger import WORKER, accepted, claimed, submission
from unjam.core.backoff import DEATH_BUDGET, LONE_DEATHS, QUIET_S
from unjam.core.document import Document, State
from unjam.core.outcome import Done
from unjam.core.ports import Progress
from unjam.stores.ledger import SqlLedger
from unjam.stores.ledger.tx import Tx


async def time_passes(ledger: SqlLedger, seconds: float) -> None:
    """As if so many seconds had gone by: for waits, and for what is remembered of deaths."""

    def run(tx: Tx) -> None:
        statement = "UPDATE documents SET next_step_at = next_step_at - :s WHERE state = 'waiting'"
        tx.execute(sa.text(statement), {"s": seconds})
        noted = tx.execute(sa.text("SELECT value FROM meta WHERE key = 'deaths'")).scalar()
        older = {w: at - seconds for w, at in json.loads(noted or "{}").items()}
        statement = "UPDATE meta SET value = :v WHERE key = 'deaths'"
        tx.execute(sa.text(statement), {"v": json.dumps(older)})

    await ledger._committer.submit(run)
    await ledger.wake()


async def die_alone(
    ledger: SqlLedger,
    worker: str,
    done: int = 5,
    state: State = State.EMBEDDING,
    others: tuple[str, ...] = (),
) -> Document:
    """The one document is taken up alone, and its *worker* is killed together with *others*."""
    (ticket,) = await ledger.pushable(10)
    claim = await claimed(ledger, ticket, replace(WORKER, id=worker))
    await ledger.report(Progress(claim.document_id, claim.token, state, done, 100, alone=True))
    await ledger.expire([worker, *others])
    document = await ledger.get(claim.document_id)
    assert document is not None
    assert not (await ledger.settle(claim, Done(1))).moved
    return document


async def test_neighbours_of_a_death_are_suspects_at_no_cost(ledger: SqlLedger) -> None:
    await ledger.accept([submission(n) for n in range(1, 51)])
    for _ in range(5):  # a storm of kills
        tickets = await ledger.pushable(50)
        assert len(tickets) == 50
        await ledger.claim(tickets, WORKER, 50)
        assert len(await ledger.expire([WORKER.id])) == 50
    page = await ledger.list(limit=50)
    assert {(d.state, d.deaths, d.errors, d.suspect) for d in page.items} == {
        (State.RECEIVED, 0, 0, True)
    }
    assert {d.lane for d in page.items} == {"rag_large_docs"}
    assert {d.reason for d in page.items} == {"worker_died"}


async def test_deaths_alone_in_a_quiet_house_end_in_a_dead_letter(ledger: SqlLedger) -> None:
    ticket = await accepted(ledger, 1)
    await claimed(ledger, ticket, replace(WORKER, id="w0"))
    assert len(await ledger.expire(["w0"])) == 1  # with neighbours: nobody's fault, and no wait
    for n in range(1, DEATH_BUDGET):
        document = await die_alone(ledger, f"w{n}")
        # It waits out the quiet that the next death needs to count.
        assert (document.state, document.reason) == (State.WAITING, "worker_died")
        assert document.deaths == n
        await time_passes(ledger, QUIET_S + 0.1)
    document = await die_alone(ledger, f"w{DEATH_BUDGET}")
    assert (document.state, document.reason) == (State.DEAD, "kills_its_worker")
    assert document.deaths == DEATH_BUDGET
    evidence = (await ledger.events(ticket.document_id))[-1].data["evidence"]
    assert (evidence["done"], evidence["alone"], evidence["others_died"]) == (5, True, 0)


async def test_its_own_first_victims_do_not_excuse_it(ledger: SqlLedger) -> None:
    ticket = await accepted(ledger, 1)
    await claimed(ledger, ticket, replace(WORKER, id="w0"))
    await ledger.expire(["w0"])
    for n in range(1, DEATH_BUDGET + 1):  # no quiet in between, but none other died
        document = await die_alone(ledger, f"w{n}")
        await time_passes(ledger, QUIET_S / 2)
        await time_passes(ledger, QUIET_S / 2)
    assert document.state is State.DEAD


async def test_a_storm_of_kills_counts_against_nobody(ledger: SqlLedger) -> None:
    await accepted(ledger, 1)
    for n in range(LONE_DEATHS - 1):  # each time an idle process was killed, too
        document = await die_alone(ledger, f"w{n}", others=(f"idle{n}",))
        assert (document.state, document.deaths) == (State.WAITING, 0)
        await time_passes(ledger, 30.0)


async def test_a_kill_shortly_before_is_a_storm_as_well(ledger: SqlLedger) -> None:
    await accepted(ledger, 1)
    await ledger.expire(["somebody"])
    await time_passes(ledger, QUIET_S * 0.8)
    assert (await die_alone(ledger, "w1")).deaths == 0
    await time_passes(ledger, QUIET_S * 2)
    assert (await die_alone(ledger, "w2")).deaths == 1


async def test_not_even_a_storm_lets_it_kill_for_ever(ledger: SqlLedger) -> None:
    ticket = await accepted(ledger, 1)
    waits: list[float] = []
    for n in range(LONE_DEATHS):
        document = await die_alone(ledger, f"w{n}", others=(f"idle{n}",))
        if document.next_step_at is not None:
            waits.append(round(document.next_step_at - document.updated_at))
        await time_passes(ledger, 30.0)
    assert (document.state, document.reason) == (State.DEAD, "kills_its_worker")
    assert waits[:6] == [1, 2, 4, 8, 16, 16]
    assert ticket.document_id == document.id


async def test_progress_starts_the_count_again(ledger: SqlLedger) -> None:
    await accepted(ledger, 1)
    for done in range(1, LONE_DEATHS + 2):
        document = await die_alone(ledger, f"w{done}", done)
        await time_passes(ledger, QUIET_S + 0.1)
    assert (document.state, document.deaths) == (State.WAITING, 1)
    # stepping to and fro at one place is no progress
    for n, state in enumerate((State.STORING, State.EMBEDDING, State.STORING)):
        document = await die_alone(ledger, f"v{n}", LONE_DEATHS + 1, state)
        await time_passes(ledger, QUIET_S + 0.1)
    assert document.state is State.DEAD


async def test_success_clears_a_suspect(ledger: SqlLedger) -> None:
    ticket = await accepted(ledger, 1)
    await die_alone(ledger, "w1")
    await time_passes(ledger, QUIET_S + 0.1)
    (again,) = await ledger.pushable(10)
    await ledger.settle(await claimed(ledger, again), Done(3))
    document = await ledger.get(ticket.document_id)
    assert document is not None
    assert (document.suspect, document.deaths, document.lane) == (False, 0, "rag_processing")


async def two_workers_hold(ledger: SqlLedger, count: int = 4) -> list[str]:
    """Documents in the hands of two workers in turn; their ids."""
    await ledger.accept([submission(n) for n in range(1, count + 1)])
    tickets = await ledger.pushable(count)
    for n, ticket in enumerate(tickets):
        worker = replace(WORKER, id=f"w{n % 2}")
        ledger.renew(worker, {}, (), 150 << 20)
        await claimed(ledger, ticket, worker)
    return [t.document_id for t in tickets]


async def test_workers_that_die_in_one_moment_leave_no_suspects_once(ledger: SqlLedger) -> None:
    ids = await two_workers_hold(ledger)
    assert len(await ledger.expire(["w0", "w1"])) == 4
    documents = await ledger.get_many(ids)
    assert {(d.state, d.suspect, d.lane) for d in documents} == {
        (State.RECEIVED, False, "rag_processing")
    }
    # A poison document among them kills again: now all of them are suspects.
    for n, ticket in enumerate(await ledger.pushable(4)):
        ledger.renew(replace(WORKER, id=f"v{n % 2}"), {}, ())
        await claimed(ledger, ticket, replace(WORKER, id=f"v{n % 2}"))
    assert len(await ledger.expire(["v0", "v1"])) == 4
    assert {d.suspect for d in await ledger.get_many(ids)} == {True}


async def test_one_death_among_living_workers_makes_suspects(ledger: SqlLedger) -> None:
    ids = await two_workers_hold(ledger)
    await ledger.expire(["w0"])
    documents = sorted(await ledger.get_many(ids), key=lambda d: d.id)
    assert [d.suspect for d in documents] == [True, False, True, False]


async def test_a_dead_letter_tells_how_its_workers_ended(ledger: SqlLedger) -> None:
    await accepted(ledger, 1)
    for n in range(1, DEATH_BUDGET + 1):
        worker = f"w{n}"
        ledger.renew(replace(WORKER, id=worker), {}, (), n << 30)
        await ledger.note_exit(worker, -9)
        document = await die_alone(ledger, worker)
        await time_passes(ledger, QUIET_S + 0.1)
    assert document.state is State.DEAD
    assert "signal 9 (SIGKILL)" in document.detail
    evidence = (await ledger.dead_letter(document.id)).evidence
    assert evidence["how"] == "signal 9 (SIGKILL)"
    assert evidence["exit_code"] == -9
    assert evidence["worker_rss_bytes"] == DEATH_BUDGET << 30
    assert (evidence["step"], evidence["done"]) == ("embedding", 5)
    assert [d["worker"] for d in evidence["earlier_deaths"]] == ["w1", "w2"]
    assert evidence["earlier_deaths"][0]["worker_rss_bytes"] == 1 << 30
