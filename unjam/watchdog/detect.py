"""Detect: facts → symptoms. Pure: nothing is read here, and the same facts give the same answer."""

from __future__ import annotations

from unjam.watchdog.detect_clocks import detect_clocks
from unjam.watchdog.detect_house import detect_house
from unjam.watchdog.detect_stores import detect_stores
from unjam.watchdog.detect_work import detect_work
from unjam.watchdog.detect_workers import detect_workers
from unjam.watchdog.facts import Facts, History
from unjam.watchdog.symptom import Symptom

__all__ = ["Symptom", "detect"]


def detect(facts: Facts, history: History = ()) -> list[Symptom]:
    """All symptoms of this look; *history* holds earlier looks, oldest first.

    What breaks is seen by two looks in a row, 2 s apart: within 5 s. What is a matter of degree
    (slowness, floods, blocked lines) is judged over half a minute.
    """
    return [
        *detect_house(facts),
        *detect_clocks(facts, history),
        *detect_stores(facts, history),
        *detect_workers(facts, history),
        *detect_work(facts, history),
    ]
