"""What is slow is not away, though it was quick before; who never began is not missing."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.fixtures.facts import embedding, nobody, rounds, vitals
from tests.unit.watchdog.test_diagnose import found
from unjam.watchdog.facts import LOOK_S, Facts


def earlier(f: Facts, seconds: float) -> Facts:
    host = replace(f.host, boottime=f.host.boottime - seconds)
    return replace(f, at=f.at - seconds, host=host)


def late(f: Facts) -> Facts:
    """Its write came to no end within the time of a look."""
    return replace(f, ledger=replace(f.ledger, writable=False, write_s=LOOK_S, detail="late"))


def causes(looks: list[Facts]) -> list[str]:
    return [d.cause for d in found(looks)]


def test_a_ledger_that_takes_nobodys_write_is_down() -> None:
    looks = rounds(n=4)
    silent = [
        replace(late(f), processes=tuple(replace(p, age_s=30.0) for p in f.processes))
        for f in looks[2:]
    ]
    assert causes([*looks[:2], *silent])[0] == "ledger_down"


def test_a_ledger_that_takes_others_writes_meanwhile_is_slow() -> None:
    looks = rounds(n=16)
    assert causes([*looks[:6], *(late(f) for f in looks[6:])]) == ["ledger_slow"]


def test_rare_looks_at_what_is_slow_outweigh_the_many_of_before() -> None:
    quick = [earlier(f, 20.0) for f in rounds(n=15, every_s=1.0)]
    slow = rounds(n=6, every_s=3.5)
    quick = [
        replace(f, at=f.at - 20, host=replace(f.host, boottime=f.host.boottime - 20)) for f in quick
    ]
    slow = [replace(f, ledger=replace(f.ledger, write_s=1.6)) for f in slow]
    assert causes([*quick, *slow]) == ["ledger_slow"]


def test_quick_answers_of_before_do_not_hide_a_slow_endpoint() -> None:
    looks = rounds(n=10)
    before = [
        embedding(f, outcomes={"ok": 10 * n}, answered_ms=1000 * n) for n, f in enumerate(looks[:8])
    ]
    after = [embedding(f, outcomes={"ok": 73}, answered_ms=7000 + 36_000) for f in looks[8:]]
    assert causes([*before, *after]) == ["embedding_slow"]


def test_workers_that_end_before_their_first_heartbeat_crash() -> None:
    looks = [nobody(f) for f in rounds(n=8)]
    ended = {f"host.{100 + n}.1": (1.0 + n, 1) for n in range(3)}
    looks[-1] = vitals(looks[-1], ended=ended)
    assert causes([*rounds(n=1), *looks])[0] == "workers_crash_looping"
    assert "exit code 1" in found([*rounds(n=1), *looks])[0].evidence[0].en


def test_one_that_ends_at_its_start_is_awaited_and_one_that_was_asked_to_is_not() -> None:
    def house(code: int) -> list[Facts]:
        there = rounds(n=1)
        there = [
            replace(f, at=f.at - 8, host=replace(f.host, boottime=f.host.boottime - 8))
            for f in there
        ]
        gone = [nobody(f) for f in rounds(n=4)]
        return [*there, *(vitals(f, ended={"host.100.1": (1.0, code)}) for f in gone)]

    assert causes(house(1)) == []
    assert causes(house(-15)) == ["workers_none"]


def test_an_index_that_lost_rows_is_told_though_they_are_back() -> None:
    def told(f: Facts, ago_s: float) -> Facts:
        lost = {"since": f.at - ago_s, "at": f.at - ago_s, "documents": 3}
        return vitals(f, meta={"vectors_lost": json.dumps(lost)})

    assert causes([told(f, 2.0) for f in rounds()]) == ["chroma_index_short"]
    assert causes([told(f, 20.0) for f in rounds()]) == []
