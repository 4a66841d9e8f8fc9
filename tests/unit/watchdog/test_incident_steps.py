"""Which incidents open, go on and close; which remedy comes next."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from unjam.core.causes import CAUSES
from unjam.core.incident import Action, Diagnosis, Incident, Saying
from unjam.watchdog import incident as judge
from unjam.watchdog.incident import Sign, step
from unjam.watchdog.remedies import (
    FIRST_AFTER_S,
    LADDERS,
    MOST_TRIES,
    PATIENCE_S,
    PATIENT,
    REMEDIES,
    choose,
)

DOWN = Diagnosis("chroma_down")


def incident(cause: str = "chroma_down", **more: object) -> Incident:
    values: dict[str, object] = {
        "id": 1,
        "cause": cause,
        "subject": "",
        "severity": judge.severity_of(cause),
        "state": "open",
        "started_at": 100.0,
        "noticed_at": 100.0,
    }
    return Incident(**{**values, **more})  # type: ignore[arg-type]


def acted(at: float, remedy: str, outcome: str) -> Action:
    return Action(at, remedy, outcome, Saying("", ""))  # type: ignore[arg-type]


class House:
    """Plays looks against ``step``, and keeps the incidents as the ledger would."""

    def __init__(self) -> None:
        self.memory: dict[tuple[str, str], Sign] = {}
        self.open: dict[tuple[str, str], Incident] = {}
        self.closed: dict[tuple[str, str], tuple[float, Incident]] = {}
        self.made = 0

    def look(self, at: float, *found: Diagnosis) -> list[str]:
        self.memory, steps = step(self.memory, list(self.open.values()), found, at)
        for s in steps:
            key = s.diagnosis.key
            if s.kind == "open":
                before = self.closed.pop(key, None)
                if before is not None and at - before[0] <= judge.REOPEN_S:
                    self.open[key] = replace(before[1], flaps=before[1].flaps + 1)
                else:
                    self.made += 1
                    self.open[key] = incident(
                        key[0], subject=key[1], id=self.made, started_at=s.diagnosis.since
                    )
            elif s.kind == "close":
                self.closed[key] = (at, self.open.pop(key))
        return [s.kind for s in steps]


def test_one_look_is_no_incident_two_are() -> None:
    house = House()
    assert house.look(10.0, DOWN) == []
    assert house.look(11.0) == []
    assert house.look(30.0, DOWN) == []  # another trouble, much later
    assert house.look(31.0, DOWN) == ["open"]
    assert house.look(32.0, DOWN) == ["note"]


def test_it_began_at_the_first_sign_not_at_its_detection() -> None:
    house = House()
    house.look(10.0, replace(DOWN, since=8.5))
    house.look(11.0, replace(DOWN, since=11.0))
    assert house.open[DOWN.key].started_at == 10.0  # our first look at it
    other = House()
    other.look(10.0, replace(DOWN, since=8.5))
    other.look(11.0, replace(DOWN, since=8.5))
    assert other.open[DOWN.key].started_at == 8.5


def test_what_the_facts_date_back_is_believed_at_once() -> None:
    house = House()
    assert house.look(10.0, replace(DOWN, since=9.5)) == []
    other = House()
    assert other.look(10.0, replace(DOWN, since=8.0)) == ["open"]


def test_a_cause_must_be_gone_for_a_while() -> None:
    house = House()
    for at in (10.0, 11.0):
        house.look(at, DOWN)
    assert house.look(12.0) == []
    assert house.look(13.0, DOWN) == ["note"]
    assert house.look(16.0) == []
    assert house.look(17.0) == ["close"]


def test_a_clock_that_is_set_back_keeps_nothing_open() -> None:
    house = House()
    for at in (10.0, 11.0, 102.0):
        house.look(at, DOWN)
    assert house.look(13.0) == []
    assert house.look(16.0) == []
    assert house.look(17.0) == ["close"]


def test_a_hundred_flaps_are_one_incident_that_stays_open_longer() -> None:
    house, at = House(), 0.0
    changes = 0
    for _ in range(100):
        for found in ([DOWN], [DOWN], [], [], [], [], [], []):
            at += 1.0
            changes += len([k for k in house.look(at, *found) if k != "note"])
    assert house.made == 1
    assert changes <= 5  # opened, closed, back – and then it stays open


def test_who_begins_to_lead_sees_the_calm_out_first() -> None:
    memory, steps = step({}, [incident()], [], 500.0)
    assert steps == []
    memory, steps = step(memory, [incident()], [], 502.0)
    assert steps == []
    _, steps = step(memory, [incident()], [], 504.5)
    assert [s.kind for s in steps] == ["close"]


def test_what_another_cause_explains_now_closes() -> None:
    hung = incident("workers_hung", id=2)
    memory, _ = step({}, [hung], [Diagnosis("workers_hung")], 100.0)
    explained = Diagnosis("chroma_down", effects=("workers_hung",))
    for at in (101.0, 102.0, 103.0):
        memory, _ = step(memory, [hung], [explained], at)
    _, steps = step(memory, [hung], [explained], 104.5)
    assert [(s.kind, s.diagnosis.cause) for s in steps] == [
        ("open", "chroma_down"),
        ("close", "workers_hung"),
    ]


def test_too_much_work_is_no_incident() -> None:
    _, steps = step({}, [], [Diagnosis("too_much_work")], 1.0, confirm=1)
    assert steps == []


@given(
    st.lists(
        st.tuples(
            st.floats(0.5, 5.0),
            st.sets(st.sampled_from(["chroma_down", "redis_down", "disk_full"])),
        ),
        max_size=60,
    )
)
def test_never_two_incidents_of_a_cause_and_never_a_close_of_what_is_there(
    looks: list[tuple[float, set[str]]],
) -> None:
    house, at = House(), 0.0
    for gap, causes in looks:
        at += gap
        before = set(house.open)
        found = [Diagnosis(c) for c in sorted(causes)]
        house.memory, steps = step(house.memory, list(house.open.values()), found, at)
        keys = [s.diagnosis.key for s in steps]
        assert len(keys) == len(set(keys))
        for s in steps:
            key = s.diagnosis.key
            if s.kind == "open":
                assert key not in before
                house.open[key] = incident(key[0])
            elif s.kind == "close":
                assert key in before and key[0] not in causes
                del house.open[key]
            else:
                assert key in before


# -- which remedy ---------------------------------------------------------------------------
def test_every_ladder_stands_on_known_causes_and_remedies() -> None:
    assert {key.partition(":")[0] for key in LADDERS} <= set(CAUSES)
    assert set(FIRST_AFTER_S) <= set(LADDERS) and set(PATIENT) <= set(CAUSES)
    for ladder in LADDERS.values():
        assert 1 <= len(ladder) <= MOST_TRIES and set(ladder) <= set(REMEDIES)
    for remedy in REMEDIES.values():
        assert remedy.title.en and remedy.title.ko and remedy.back.en and remedy.back.ko
        assert 0 < remedy.per_hour <= 6 and 5 <= remedy.verify_s <= 120


def test_it_gets_time_to_heal_then_is_treated_then_verified_then_treated_again() -> None:
    one = incident()
    first = FIRST_AFTER_S["chroma_down"]
    assert choose(one, 100.0 + first - 1).verdict == "wait"
    choice = choose(one, 100.0 + first)
    assert choice.verdict == "act" and choice.remedy is REMEDIES["restart_chroma"]
    at = 100.0 + first
    one = replace(one, actions=(acted(at, "restart_chroma", "asked"),))
    assert choose(one, at + 50).verdict == "wait"  # under way
    one = replace(one, actions=(*one.actions, acted(at + 5, "restart_chroma", "done")))
    verify_s = REMEDIES["restart_chroma"].verify_s
    assert choose(one, at + 5 + verify_s - 1).why == "to be verified"
    assert choose(one, at + 5 + verify_s).verdict == "act"


def test_after_three_that_did_not_help_a_person_is_told() -> None:
    actions: list[Action] = []
    at = 100.0
    for _ in range(3):
        one = incident("workers_hung", actions=tuple(actions))
        assert choose(one, at).verdict == "act"
        actions += [
            acted(at, "restart_worker", "asked"),
            acted(at + 1, "restart_worker", "done"),
        ]
        at += 1000
    last = incident("workers_hung", actions=tuple(actions))
    assert choose(last, at).verdict == "hand_over"
    assert choose(replace(last, state="handed_over"), at).verdict == "wait"


def test_a_failed_one_is_followed_at_once_and_a_lost_one_after_a_while() -> None:
    failed = (acted(100, "start_worker", "asked"), acted(101, "start_worker", "failed"))
    assert choose(incident("workers_none", actions=failed), 102.0).verdict == "act"
    lost = (acted(100, "start_worker", "asked"),)
    assert choose(incident("workers_none", actions=lost), 150.0).verdict == "wait"
    assert choose(incident("workers_none", actions=lost), 200.0).verdict == "act"


def test_what_may_not_be_touched_gets_patience_then_a_person() -> None:
    refused = tuple(
        a
        for at in (110.0, 120.0)
        for a in (acted(at, "restart_redis", "asked"), acted(at, "restart_redis", "refused"))
    )
    one = incident("redis_down", actions=refused)
    assert choose(one, 130.0).verdict == "wait"
    assert choose(one, 100.0 + PATIENCE_S).verdict == "hand_over"


def test_without_a_remedy_a_person_is_told_in_time_and_never_for_information() -> None:
    full = incident("disk_full")
    assert choose(full, 101.0).verdict == "wait"
    assert choose(full, 106.0).verdict == "hand_over"
    throttled = incident("embedding_throttled")
    assert choose(throttled, 100.0 + PATIENCE_S + 1).verdict == "wait"
    assert choose(incident("too_much_work"), 1e9).verdict == "wait"
