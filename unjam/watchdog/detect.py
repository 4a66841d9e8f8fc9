"""Detect: facts → symptoms. Pure: nothing is read here, and the same facts give the same answer."""

from __future__ import annotations

from dataclasses import dataclass

from unjam.core.incident import Saying
from unjam.watchdog.facts import Facts, History


@dataclass(frozen=True, slots=True)
class Symptom:
    """Something that is not as it should be. *code* names the cause that it speaks for.

    *since*: Unix seconds of its first sign. *blames*: effects that it explains beyond those
    which its cause always explains.
    """

    code: str
    evidence: Saying
    subject: str = ""
    since: float = 0.0
    blames: tuple[str, ...] = ()


def detect(facts: Facts, history: History = ()) -> list[Symptom]:
    """All symptoms of this look; *history* holds earlier looks, oldest first."""
    return []
