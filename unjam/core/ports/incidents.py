"""The ledger's questions about incidents and remedies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from unjam.core.incident import (
    Action,
    Diagnosis,
    Incident,
    IncidentEvent,
    IncidentPage,
    RemedyRequest,
    Sample,
    Severity,
)


class IncidentBook(Protocol):
    """Incidents, remedies and their kill switch; ``SqlLedger`` is one."""

    async def open_incident(
        self,
        diagnosis: Diagnosis,
        severity: Severity,
        *,
        queue_length: int = 0,
        reopen_within_s: float = 0.0,
        noticed_at: float | None = None,
    ) -> Incident:
        """Open one, or note fresh evidence, effects and queue length of the one that is open under
        ``diagnosis.key``. One that was closed at most *reopen_within_s* ago is opened again.
        *noticed_at*: Unix seconds, for one that could not be written down then; None: now."""
        ...

    async def note_sample(self, incident_id: int, sample: Sample) -> None:
        """For the report's chart; thinned out as the incident grows old."""
        ...

    async def begin_action(
        self, incident_id: int, action: Action, *, per_hour: int, rest_s: float
    ) -> str:
        """May this remedy be carried out? "" : yes, and it is noted (outcome ``asked``).

        Else why not: ``paused`` (the kill switch), ``rate`` (*per_hour* times within an hour, all
        incidents together), ``recent`` (somebody did so less than *rest_s* ago), ``closed``.
        """
        ...

    async def note_action(self, incident_id: int, action: Action) -> None:
        """What came of it, or was planned. Counts ``recovery:<remedy>:<outcome>``."""
        ...

    async def actions_since(self, at: float) -> list[tuple[int, Action]]:
        """(Incident, action) since then, oldest first, over all incidents."""
        ...

    async def hand_over(self, incident_id: int) -> None:
        """The remedies did not help, or there is none: open → handed_over."""
        ...

    async def close_incident(self, incident_id: int) -> Incident:
        """It is over: counts whom it made late and what died meanwhile. Idempotent."""
        ...

    async def note_undo(self, incident_id: int, undo: Mapping[str, Any]) -> None:
        """What is to be put back when it is over; {}: it was."""
        ...

    async def undone(self) -> list[Incident]:
        """Closed ones with something that is still to be put back."""
        ...

    async def incident(self, incident_id: int) -> Incident:
        """Raises NotFound."""
        ...

    async def incidents(
        self, *, open_only: bool = False, cursor: str | None = None, limit: int = 50
    ) -> IncidentPage:
        """Newest first. *open_only*: those that are handed over, too."""
        ...

    async def incident_events(
        self, incident_id: int | None, after: int = 0, limit: int = 500
    ) -> list[IncidentEvent]:
        """Oldest first; of one incident or of all (samples only of one)."""
        ...

    async def last_incident_event(self) -> int:
        """Number of the newest event, to tail from; 0 when there is none."""
        ...

    async def remedies_paused(self) -> bool:
        """The kill switch: the watchdog goes on looking, and does nothing."""
        ...

    async def pause_remedies(self, paused: bool, by: str) -> None: ...

    async def ask_remedy(self, request: RemedyRequest) -> RemedyRequest:
        """Note a request for a host's supervisor (its id is given here)."""
        ...

    async def remedies_asked(self, host: str) -> list[RemedyRequest]:
        """Those of *host* that nobody has carried out yet and that are still fresh."""
        ...

    async def answer_remedy(self, request_id: int, outcome: str) -> None: ...

    async def remedy(self, request_id: int) -> RemedyRequest:
        """Raises NotFound."""
        ...
