"""Outcome: the closed set of ways in which one attempt at a document can end.

There is no other. A lost lease is not an outcome: a zombie has no say (see ``errors.LeaseLost``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Done:
    """Every chunk is confirmed by the vector store; the flip may be tried.

    *index_suspect*: all ids are there, yet a sampled chunk did not find itself.
    """

    chunks: int
    stage_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    index_suspect: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """The document's own error; spends one of its error budget, waits *after_s*."""

    reason: str
    detail: str
    after_s: float
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Snooze:
    """A dependency's trouble; costs no attempt. *throttle* counts it as a throttle; not *shared*:
    no other document meets it."""

    reason: str
    detail: str
    after_s: float
    throttle: bool = False
    shared: bool = True


@dataclass(frozen=True, slots=True)
class Dead:
    """Parked with a reason that a person can act on."""

    reason: str
    detail: str
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Release:
    """Handed back unfinished, on request (drain, no slot): back to its lane at once, free."""

    reason: str = "handed_back"


Outcome = Done | Retry | Snooze | Dead | Release
