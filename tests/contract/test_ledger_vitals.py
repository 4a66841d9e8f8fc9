"""The watchdog's question of the ledger, on both databases, and through the read-only door."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fixtures.ledger import WORKER, accepted, claimed, searchable
from unjam.core.document import State
from unjam.core.errors import DependencyDown, SetupError
from unjam.core.outcome import Dead, Snooze
from unjam.core.vitals import Vitals
from unjam.stores.ledger import SqlLedger, deaths
from unjam.stores.ledger.reader import LedgerReader

LANES = ["rag_processing"]


async def test_a_new_ledger_has_nothing_to_tell(ledger: SqlLedger) -> None:
    vitals = await ledger.vitals(LANES)
    assert vitals.ledger_id == ledger.id
    assert sum(vitals.counts.values()) == vitals.running_count == vitals.missing == 0
    assert vitals.heads == vitals.running == vitals.deaths == vitals.dead == vitals.paid == ()
    assert abs(vitals.now - time.time()) < 5.0


async def test_one_look_shows_every_document_where_it_is(ledger: SqlLedger) -> None:
    for n in (1, 2, 3):
        await accepted(ledger, n)
    await searchable(ledger, 4)
    held = await claimed(ledger, await accepted(ledger, 5))
    parked = await claimed(ledger, await accepted(ledger, 6))
    await ledger.settle(parked, Dead("empty", "no text"))
    asleep = await claimed(ledger, await accepted(ledger, 7))
    await ledger.settle(asleep, Snooze("vector_store_down", "away", 60.0))
    ledger.renew(WORKER, {held.document_id: held.token}, ())

    vitals = await ledger.vitals(LANES)
    assert vitals.counts[State.RECEIVED] == 3
    assert vitals.counts[State.SEARCHABLE] == vitals.counts[State.DEAD] == 1
    assert [r.document_id for r in vitals.running] == [held.document_id]
    assert vitals.running_count == 1
    assert [s.document_id for s in vitals.heads] == [f"d{n:08d}" for n in (1, 2, 3)]
    assert vitals.oldest_since[vitals.heads[0].lane] == vitals.heads[0].since
    assert [(reason, document) for _, reason, document in vitals.dead] == [
        ("empty", parked.document_id)
    ]
    assert len(vitals.paid) == 1
    assert vitals.waiting_for == {"vector_store_down": 1}
    assert [(ref.id, age < 5.0) for ref, age in vitals.processes] == [(WORKER.id, True)]
    assert sum(row.jobs for row in vitals.completions) == 1


async def test_a_death_is_told_once(ledger: SqlLedger) -> None:
    held = await claimed(ledger, await accepted(ledger, 1))
    ledger.renew(WORKER, {held.document_id: held.token}, ())
    before = await ledger.vitals(LANES)
    await ledger.expire([WORKER.id])
    vitals = await ledger.vitals(LANES, before.last_event)
    assert [d.document_id for d in vitals.deaths] == [held.document_id]
    assert vitals.deaths[0].evidence["worker"] == WORKER.id
    assert set(vitals.died) == {WORKER.id}
    assert (await ledger.vitals(LANES, vitals.last_event)).deaths == ()


def test_a_death_is_forgotten_though_nobody_died_since() -> None:
    noted = '{"before the boot": 2000.0, "long ago": 985.0, "now": 995.0}'
    assert deaths.lately(noted, 1000.0) == {"now": 5.0}
    assert deaths.lately(None, 1000.0) == {}


async def test_a_redis_that_lost_its_data_is_remembered(ledger: SqlLedger) -> None:
    first = await ledger.bump_epoch(0)
    assert "redis_lost_at" not in (await ledger.vitals(LANES)).meta
    again = await ledger.bump_epoch(first)  # restarted, and nothing was lost
    assert "redis_lost_at" not in (await ledger.vitals(LANES)).meta
    await ledger.bump_epoch(0)
    vitals = await ledger.vitals(LANES)
    assert vitals.epoch == again + 1
    assert vitals.now - float(vitals.meta["redis_lost_at"]) < 5.0


async def test_glimpse_shows_what_stands_in_line(ledger: SqlLedger) -> None:
    await accepted(ledger, 1)
    await searchable(ledger, 2)
    found = await ledger.glimpse(["d00000001", "d00000002", "nobody"])
    assert [s.document_id for s in found] == ["d00000001"]


async def test_the_read_only_door_tells_the_same(ledger: SqlLedger, ledger_url: str) -> None:
    await accepted(ledger, 1)
    reader = await LedgerReader.open(ledger_url)
    try:
        assert reader.id == ledger.id
        seen, known = await reader.vitals(LANES), await ledger.vitals(LANES)
        assert _still(seen) == _still(known)
    finally:
        await reader.close()


def _still(vitals: Vitals) -> tuple[object, ...]:
    return (vitals.ledger_id, vitals.counts, vitals.heads, vitals.last_event, vitals.epoch)


async def test_looking_for_a_ledger_makes_none(tmp_path: Path) -> None:
    with pytest.raises(DependencyDown):
        await LedgerReader.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_is_no_ledger_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database, but long enough to be looked at" * 99)
    with pytest.raises((DependencyDown, SetupError)):
        await LedgerReader.open(f"sqlite:///{tmp_path / 'ledger.db'}")
