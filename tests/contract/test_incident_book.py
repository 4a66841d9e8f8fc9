"""The book of incidents, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import time

import pytest
import sqlalchemy as sa

from tests.fixtures.ledger import accepted, claimed, searchable
from unjam.core.errors import NotFound, UsageError
from unjam.core.incident import Action, Diagnosis, RemedyRequest, Sample, Saying
from unjam.core.outcome import Dead
from unjam.stores import schema
from unjam.stores.ledger import SqlLedger

DOWN = Diagnosis("redis_down", "", (Saying("no answer", "응답 없음"),), ("workers_hung",))


def action(remedy: str = "restart_worker", outcome: str = "asked", by: str = "watchdog") -> Action:
    return Action(0.0, remedy, outcome, Saying("w1", "w1"), by)  # type: ignore[arg-type]


def shift(ledger: SqlLedger, table: sa.Table, **seconds: float) -> None:
    """Move the times of every row into the past."""
    with ledger._dialect.writer().begin() as conn:
        conn.execute(sa.update(table).values({k: table.c[k] - s for k, s in seconds.items()}))


async def test_one_incident_a_cause_and_subject(ledger: SqlLedger) -> None:
    began = time.time() - 30
    first = await ledger.open_incident(
        Diagnosis("redis_down", since=began), "critical", queue_length=7
    )
    again = await ledger.open_incident(DOWN, "critical", queue_length=3)
    other = await ledger.open_incident(Diagnosis("lane_unserved", "rag_pdf"), "warning")
    assert again.id == first.id != other.id
    assert again.evidence == DOWN.evidence and again.effects == ("workers_hung",)
    assert again.started_at == pytest.approx(began) and again.noticed_at >= began + 29
    assert again.max_queue_length == 7 and again.state == "open" and again.severity == "critical"
    page = await ledger.incidents()
    assert [i.id for i in page.items] == [other.id, first.id] and page.next_cursor is None
    kinds = [(e.incident_id, e.kind) for e in await ledger.incident_events(None)]
    assert kinds == [(first.id, "opened"), (other.id, "opened")]


async def test_opened_from_many_sides_at_once_is_one(ledger: SqlLedger) -> None:
    found = await asyncio.gather(*(ledger.open_incident(DOWN, "critical") for _ in range(20)))
    assert len({i.id for i in found}) == 1
    assert len(await ledger.incident_events(None)) == 1


async def test_closing_and_coming_back(ledger: SqlLedger) -> None:
    first = await ledger.open_incident(DOWN, "critical")
    closed = await ledger.close_incident(first.id)
    assert closed.state == "closed" and closed.closed_at is not None
    assert (await ledger.close_incident(first.id)).closed_at == closed.closed_at
    assert (await ledger.incidents(open_only=True)).items == []
    back = await ledger.open_incident(DOWN, "critical", reopen_within_s=60)
    assert (back.id, back.state, back.flaps, back.closed_at) == (first.id, "open", 1, None)
    await ledger.close_incident(first.id)
    shift(ledger, schema.incidents, closed_at=61)
    fresh = await ledger.open_incident(DOWN, "critical", reopen_within_s=60)
    assert fresh.id != first.id and fresh.flaps == 0
    kinds = [e.kind for e in await ledger.incident_events(first.id)]
    assert kinds == ["opened", "closed", "reopened", "closed"]


async def test_handed_over_is_still_open_and_closes(ledger: SqlLedger) -> None:
    made = await ledger.open_incident(DOWN, "critical")
    await ledger.hand_over(made.id)
    await ledger.hand_over(made.id)
    assert (await ledger.incident(made.id)).state == "handed_over"
    assert [i.id for i in (await ledger.incidents(open_only=True)).items] == [made.id]
    await ledger.open_incident(DOWN, "critical")  # seen again: a person still has it
    assert (await ledger.incident(made.id)).state == "handed_over"
    assert (await ledger.close_incident(made.id)).state == "closed"
    kinds = [e.kind for e in await ledger.incident_events(made.id)]
    assert kinds == ["opened", "handed_over", "closed"]


async def test_an_action_is_granted_to_one_of_many(ledger: SqlLedger) -> None:
    made = await ledger.open_incident(DOWN, "critical")
    answers = await asyncio.gather(
        *(ledger.begin_action(made.id, action(), per_hour=5, rest_s=30) for _ in range(8))
    )
    assert sorted(answers) == [""] + ["recent"] * 7
    assert (await ledger.incident(made.id)).actions[0].outcome == "asked"


async def test_actions_are_rate_limited_over_all_incidents(ledger: SqlLedger) -> None:
    answers: list[str] = []
    for n in range(4):
        made = await ledger.open_incident(Diagnosis("lane_unserved", f"lane-{n}"), "warning")
        answers.append(await ledger.begin_action(made.id, action(), per_hour=3, rest_s=30))
    assert answers == ["", "", "", "rate"]
    assert await ledger.begin_action(made.id, action("audit"), per_hour=3, rest_s=30) == ""
    shift(ledger, schema.incident_events, at=3601)
    assert await ledger.begin_action(made.id, action(), per_hour=3, rest_s=30) == ""


async def test_the_kill_switch_is_audited_and_stops_every_action(ledger: SqlLedger) -> None:
    made = await ledger.open_incident(DOWN, "critical")
    assert not await ledger.remedies_paused()
    await ledger.pause_remedies(True, "kim")
    await ledger.pause_remedies(True, "kim")
    assert await ledger.remedies_paused()
    assert await ledger.begin_action(made.id, action(), per_hour=3, rest_s=30) == "paused"
    await ledger.pause_remedies(False, "lee")
    assert not await ledger.remedies_paused()
    noted = [(a["by"], a["action"]) for a in await ledger.audit()]
    assert noted == [("lee", "recover_resume"), ("kim", "recover_pause")]
    await ledger.close_incident(made.id)
    assert await ledger.begin_action(made.id, action(), per_hour=3, rest_s=30) == "closed"


async def test_what_was_done_is_counted_audited_and_told(ledger: SqlLedger) -> None:
    made = await ledger.open_incident(DOWN, "critical")
    await ledger.begin_action(made.id, action("audit"), per_hour=3, rest_s=30)
    await ledger.note_action(made.id, action("audit", "done"))
    found = (await ledger.incident(made.id)).actions
    assert [(a.remedy, a.outcome, a.by) for a in found] == [
        ("audit", "asked", "watchdog"),
        ("audit", "done", "watchdog"),
    ]
    counters = await ledger.counters()
    assert counters["recovery:audit:asked", ""] == 1 and counters["recovery:audit:done", ""] == 1
    (audited,) = await ledger.audit()
    assert (audited["action"], audited["by"]) == ("remedy:audit", "watchdog")
    since = await ledger.actions_since(made.noticed_at)
    assert [(i, a.outcome) for i, a in since] == [(made.id, "asked"), (made.id, "done")]
    assert await ledger.actions_since(time.time() + 5) == []
    events = await ledger.incident_events(made.id)
    assert events[-1].data["remedy"] == "audit" and events[-1].data["outcome"] == "done"
    assert await ledger.last_incident_event() == events[-1].seq
    assert [e.seq for e in await ledger.incident_events(None, events[0].seq)] == [
        e.seq for e in events[1:]
    ]


async def test_samples_are_thinned_and_raise_the_maximum(ledger: SqlLedger) -> None:
    made = await ledger.open_incident(DOWN, "critical", queue_length=1)
    await ledger.note_sample(made.id, Sample(5, 1, 10))
    await ledger.note_sample(made.id, Sample(9, 1, 10))  # too soon for the chart
    events = await ledger.incident_events(made.id)
    assert [e.data for e in events if e.kind == "sample"] == [
        {"queue": 5, "working": 1, "completed": 10}
    ]
    assert (await ledger.incident(made.id)).max_queue_length == 9
    assert all(e.kind != "sample" for e in await ledger.incident_events(None))
    shift(ledger, schema.incident_events, at=3)
    await ledger.note_sample(made.id, Sample(2, 0, 11))
    assert [e.kind for e in await ledger.incident_events(made.id)].count("sample") == 2


async def test_undo_outlives_the_incident_until_it_was_done(ledger: SqlLedger) -> None:
    made = await ledger.open_incident(DOWN, "critical")
    await ledger.note_undo(made.id, {"knobs": {"RAG_MAX_CONCURRENT_JOBS": [50, 25]}})
    assert await ledger.undone() == []
    await ledger.close_incident(made.id)
    (found,) = await ledger.undone()
    assert found.undo == {"knobs": {"RAG_MAX_CONCURRENT_JOBS": [50, 25]}}
    await ledger.note_undo(made.id, {})
    assert await ledger.undone() == []


async def test_requests_reach_their_host_once(ledger: SqlLedger) -> None:
    asked = await ledger.ask_remedy(
        RemedyRequest(0, None, "host-a", "restart", "worker-1", "host-a.7.9", 0.0)
    )
    assert asked.id > 0 and asked.asked_at > 0
    assert [r.id for r in await ledger.remedies_asked("host-a")] == [asked.id]
    assert await ledger.remedies_asked("host-b") == []
    await ledger.answer_remedy(asked.id, "gone")
    await ledger.answer_remedy(asked.id, "done")  # the first answer counts
    assert await ledger.remedies_asked("host-a") == []
    assert (await ledger.remedy(asked.id)).outcome == "gone"
    stale = await ledger.ask_remedy(RemedyRequest(0, None, "host-a", "start_worker", "", "", 0.0))
    shift(ledger, schema.remedies, asked_at=61)
    assert await ledger.remedies_asked("host-a") == []
    assert (await ledger.remedy(stale.id)).done_at is None


async def test_whom_it_made_late_and_what_died(ledger: SqlLedger) -> None:
    await searchable(ledger, 1, user="quick")
    made = await ledger.open_incident(DOWN, "critical")
    late = [(2, "ann"), (3, "ann"), (4, "bob"), (5, ""), (6, "")]
    for n, user in late:
        await accepted(ledger, n, user=user)
    shift(ledger, schema.generations, created_at=301)
    finished = await claimed(ledger, await accepted(ledger, 7, user="cho"))
    await ledger.settle(finished, Dead("empty", ""))
    await accepted(ledger, 8, user="fresh")
    before = await ledger.incident(made.id)
    assert (before.affected_users, before.affected_anonymous, before.failed_jobs) == (2, 2, 1)
    closed = await ledger.close_incident(made.id)
    # Document 1 became searchable before: its (shifted) lateness is not this incident's.
    assert (closed.affected_users, closed.affected_anonymous, closed.failed_jobs) == (2, 2, 1)


async def test_pages_and_unknown_ones(ledger: SqlLedger) -> None:
    for n in range(5):
        await ledger.open_incident(Diagnosis("lane_unserved", f"lane-{n}"), "warning")
    first = await ledger.incidents(limit=2)
    second = await ledger.incidents(limit=2, cursor=first.next_cursor)
    third = await ledger.incidents(limit=2, cursor=second.next_cursor)
    ids = [i.id for page in (first, second, third) for i in page.items]
    assert ids == sorted(ids, reverse=True) and len(ids) == 5 and third.next_cursor is None
    for call in (ledger.incident, ledger.close_incident, ledger.remedy):
        with pytest.raises(NotFound):
            await call(10_000)
    with pytest.raises(UsageError):
        await ledger.incidents(cursor="x")
