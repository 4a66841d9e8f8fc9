"""From look to look: which incidents open, go on, and close. Pure: nothing is read or written here.

An outage that is over before the next look is no incident, and one that comes and goes is one
incident: it closes after a calm that grows with each return.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unjam.core.causes import CAUSES
from unjam.core.incident import Diagnosis, Incident, Severity

Key = tuple[str, str]

CONFIRM_LOOKS = 2
"""A cause is believed when it is seen in two looks, a second apart: a child that is restarted in
50 ms, or one late answer, opens nothing."""

SURE_S = 2.0
"""One whose first sign is this old was seen long enough, however many looks that took: a look at
a server that hangs takes as long as its time-out."""

FORGET_S = 10.0
"""A cause that was not seen for so long was another trouble."""

CALM_S = 4.0
"""How long a cause must be gone before its incident closes, …"""

LONGEST_CALM_S = 300.0
"""… doubled at each return, up to this."""

REOPEN_S = 600.0
"""One that returns this soon after its close is the same incident."""

NO_INCIDENT = frozenset({"too_much_work"})
"""Nothing is wrong, so nothing is to be reported: `unjam doctor` and the page show the ETA."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What is remembered of one cause and subject between two looks."""

    diagnosis: Diagnosis
    first_at: float
    last_at: float
    looks: int


@dataclass(frozen=True, slots=True)
class Step:
    """One decision. *note*: it goes on; *incident* is None for ``open`` only."""

    kind: Literal["open", "note", "close"]
    diagnosis: Diagnosis
    incident: Incident | None = None


def severity_of(cause: str) -> Severity:
    known = CAUSES.get(cause)
    return known.severity if known is not None else "warning"


def calm_s(incident: Incident) -> float:
    """Seconds for which its cause must be gone."""
    return min(LONGEST_CALM_S, CALM_S * 2.0 ** min(incident.flaps, 16))


def step(
    memory: Mapping[Key, Sign],
    open_ones: Sequence[Incident],
    diagnoses: Sequence[Diagnosis],
    now: float,
    *,
    confirm: int = CONFIRM_LOOKS,
) -> tuple[dict[Key, Sign], list[Step]]:
    """The memory after this look, and what follows from it, root cause first.

    Args:
        memory: of the look before; {} for whoever begins to lead.
        now: Unix seconds of this look.
        confirm: looks that a cause must be seen in; 1 for a person who asks now.
    """
    known = {i.key: i for i in open_ones}
    memory = {key: _not_after(now, sign) for key, sign in memory.items()}
    signs = {key: sign for key, sign in memory.items() if now - sign.last_at <= FORGET_S}
    signs |= {key: memory[key] for key in known if key in memory}
    seen: set[Key] = set()
    steps: list[Step] = []
    for found in diagnoses:
        if found.cause in NO_INCIDENT or found.key in seen:
            continue
        seen.add(found.key)
        sign = _seen_again(signs.get(found.key), found, now)
        signs[found.key] = sign
        since = replace(found, since=_since(found, sign))
        if found.key in known:
            steps.append(Step("note", since, known[found.key]))
        elif sign.looks >= confirm or now - since.since >= SURE_S:
            steps.append(Step("open", since))
    for key, incident in known.items():
        if key in seen:
            continue
        # Whoever begins to lead has not seen it go: its calm begins now.
        sign = signs.setdefault(key, Sign(Diagnosis(*key), now, now, 0))
        if now - sign.last_at >= calm_s(incident):
            steps.append(Step("close", sign.diagnosis, incident))
            del signs[key]
    return signs, steps


def _not_after(now: float, sign: Sign) -> Sign:
    """A clock that was set back must not keep an incident open until it is as late again."""
    if sign.last_at <= now:
        return sign
    return replace(sign, first_at=min(sign.first_at, now), last_at=now)


def _seen_again(before: Sign | None, found: Diagnosis, now: float) -> Sign:
    if before is None:
        return Sign(found, now, now, 1)
    return Sign(found, before.first_at, now, before.looks + 1)


def _since(found: Diagnosis, sign: Sign) -> float:
    """Its first sign: as the facts date it, or our first look at it."""
    return min(found.since, sign.first_at) if found.since > 0 else sign.first_at
