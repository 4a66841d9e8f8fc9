"""The model behind ``bench.simulate``, against what queueing theory knows."""

from __future__ import annotations

import pytest

from bench.queueing import Result, Station, Visit, simulate


def one(**more: float) -> Result:
    """A single server that takes 10 ms on average, by chance."""
    stations = [Station("desk", each_s=0.01, spread=1.0)]
    return simulate(stations, {}, [Visit("desk")], documents=8000, **more)  # type: ignore[arg-type]


def test_what_waits_follows_littles_law_and_the_textbook() -> None:
    found = one(per_s=60)
    assert found.per_s == pytest.approx(60, rel=0.05)
    assert found.in_system == pytest.approx(found.per_s * found.mean_s, rel=0.05)
    assert found.mean_s == pytest.approx(0.01 / (1 - 0.6), rel=0.15)  # M/M/1
    assert found.busy["desk"] == pytest.approx(0.6, rel=0.05)


def test_a_station_gives_no_more_than_it_has() -> None:
    stations = [Station("fast", servers=8, each_s=0.001), Station("wall", each_s=0.02)]
    found = simulate(stations, {}, [Visit("fast"), Visit("wall")], documents=500, in_flight=20)
    assert found.per_s == pytest.approx(50, rel=0.01)
    assert (found.limit, found.busy["wall"]) == ("wall", pytest.approx(1.0))
    assert found.mean_s == pytest.approx(20 / 50, rel=0.05)


def test_servers_share_the_cores_that_there_are() -> None:
    stations = [Station("work", servers=4, each_s=0.01, cpu="host")]
    some = {
        cores: simulate(
            stations, {"host": cores}, [Visit("work")], documents=400, in_flight=8
        ).per_s
        for cores in (1, 2, 4, 8)
    }
    for cores, per_s in some.items():
        assert per_s == pytest.approx(100 * min(4, cores), rel=0.02)


def test_groups_share_what_is_fixed_and_a_group_is_of_one_process() -> None:
    def commits(sources: int) -> float:
        ledger = Station("ledger", fixed_s=0.01, each_s=0.001, batch=64, sources=sources)
        return simulate([ledger], {}, [Visit("ledger")], documents=4000, in_flight=40).per_s

    # The first that comes back goes at once, and the others together.
    assert commits(1) == pytest.approx(40 / (0.011 + 0.049), rel=0.05)
    assert commits(1) > 2 * commits(10) > 4 * 0.9 * commits(40)
    assert commits(40) == pytest.approx(1 / 0.011, rel=0.05)


def test_the_first_waits_for_company_until_there_is_enough() -> None:
    def desk(linger_s: float, enough: int = 0) -> Result:
        station = Station("desk", fixed_s=0.01, batch=8, linger_s=linger_s, enough=enough)
        by = [Visit("desk")]
        return simulate([station], {}, by, documents=4000, per_s=40)  # one every 25 ms on average

    assert desk(0.0).batch["desk"] < 1.5
    assert desk(0.1).batch["desk"] == pytest.approx(1 + 0.1 * 40, rel=0.1)  # those of its 100 ms
    assert desk(10.0, enough=4).batch["desk"] == pytest.approx(4, rel=0.02)
    assert desk(0.1).mean_s > 5 * desk(0.0).mean_s


def test_a_seed_gives_the_same_run() -> None:
    assert one(per_s=90, seed=7) == one(per_s=90, seed=7) != one(per_s=90, seed=8)


def test_it_is_told_how_documents_come() -> None:
    with pytest.raises(ValueError, match="either"):
        one()
