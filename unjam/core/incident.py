"""Incident: one trouble of the whole system, from its first sign to its report.

The watchdog opens it from a diagnosis, notes what was done about it, and closes it when the facts
are better. The ledger keeps it, so that any host, door or command tells the same story.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["info", "warning", "critical"]

IncidentState = Literal["open", "handed_over", "closed"]
"""*handed_over*: the remedies did not help, or there is none; a person is needed."""


@dataclass(frozen=True, slots=True)
class Saying:
    """One sentence in both languages. No secrets, no text of documents."""

    en: str
    ko: str

    def said_in(self, lang: str) -> str:
        return self.ko if lang == "ko" else self.en


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A cause that the facts show, with the evidence for it.

    *cause* is a code of ``core.causes``; *subject* what it is about (a lane, a key's label, a
    document, a user), "" for the whole system. *effects* are causes that would be named, too, were
    they not explained by this one. *since*: first sign of it, Unix seconds.
    """

    cause: str
    subject: str = ""
    evidence: tuple[Saying, ...] = ()
    effects: tuple[str, ...] = ()
    since: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """One incident may be open per key."""
        return (self.cause, self.subject)


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that was done, or would be. *by*: "watchdog", or who asked for it."""

    at: float
    remedy: str  # code of the remedy
    outcome: Literal["planned", "asked", "done", "failed", "refused"]
    detail: Saying
    by: str = "watchdog"


@dataclass(frozen=True, slots=True)
class Incident:
    """Times are Unix seconds. *started_at* is the first lack of progress (or first sign),
    *noticed_at* when the watchdog opened it."""

    id: int
    cause: str
    subject: str
    severity: Severity
    state: IncidentState
    started_at: float
    noticed_at: float
    closed_at: float | None = None
    evidence: tuple[Saying, ...] = ()
    effects: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    max_queue_length: int = 0
    affected_users: int = 0  # distinct user_id that were late past the SLO
    affected_anonymous: int = 0  # late documents without a user_id
    failed_jobs: int = 0  # dead letters made while it was open
    flaps: int = 0  # times that it came back soon after it had been closed
    undo: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What is to be put back once it is over; {} when there is nothing (any more)."""

    @property
    def key(self) -> tuple[str, str]:
        return (self.cause, self.subject)


IncidentEventKind = Literal["opened", "reopened", "action", "handed_over", "closed", "sample"]


@dataclass(frozen=True, slots=True)
class IncidentEvent:
    """One line of an incident's timeline; *seq* grows over all incidents.

    *data*: of an action ``remedy, outcome, en, ko, by``; of a sample ``queue, working, completed``
    (documents in line, in work, and searchable since the ledger began).
    """

    seq: int
    incident_id: int
    at: float
    kind: IncidentEventKind
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Sample:
    """How far the house was at one moment of an incident."""

    queue: int  # documents in line
    working: int  # documents in work
    completed: int  # made searchable since the ledger began


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """Newest first."""

    items: Sequence[Incident]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class RemedyRequest:
    """Something that a host's own supervisor is asked to do (law 12).

    *target* names a child of that supervisor; *process_id* is the ``WorkerRef.id`` of the life
    that is meant, so that a successor is never hit.
    """

    id: int
    incident_id: int | None
    host: str
    action: Literal["restart", "start_worker", "stop_worker"]
    target: str
    process_id: str
    asked_at: float
    done_at: float | None = None
    outcome: str = ""  # "", done, gone, refused: why


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what, when. *data* as JSON had it."""

    id: int
    at: float
    by: str
    action: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
