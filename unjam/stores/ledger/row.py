"""Row: the working copy of one document's row inside a transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from unjam.core.document import Document, State, Ticket
from unjam.stores.schema import HOT


@dataclass(slots=True)
class Row:
    """One field per column of ``documents``, in this order; see ``stores.schema``."""

    id: str
    user_id: str
    shown: int
    filename: str
    media_type: str
    size_bytes: int
    content_hash: str
    pin_id: str
    home_lane: str
    metadata: str
    created_at: float
    state: str
    lane: str
    updated_at: float
    generation: int = 1
    visible_generation: int = 0
    visible_hash: str = ""
    visible_pin: str = ""
    chunks: int = 0
    enqueue_seq: int = 1
    token: int = 0
    reason: str = ""
    detail: str = ""
    next_step_at: float | None = None
    progress_done: int = 0
    progress_total: int = 0
    errors: int = 0
    deaths: int = 0
    throttles: int = 0
    suspect: int = 0
    alone: int = 0
    death_done: int = 0
    death_step: int = 0
    worker: str = ""
    lease_until: float | None = None
    claimed_at: float | None = None
    started_generation: int = 0
    searchable_at: float | None = None
    slo_since: float | None = None

    def ticket(self) -> Ticket:
        return Ticket(self.id, self.enqueue_seq, self.lane, self.size_bytes, self.user_id)

    def values(self, id_name: str = "id") -> dict[str, Any]:
        """All columns; the id under *id_name*."""
        found = dict(zip(FIELDS, _all(self), strict=True))
        found[id_name] = found.pop("id")
        return found

    def hot_values(self) -> dict[str, Any]:
        """The columns that transitions write, and ``key``."""
        found = dict(zip(HOT, _hot(self), strict=True))
        found["key"] = self.id
        return found

    def document(self, names: tuple[str, ...] = ()) -> Document:
        """What everybody else sees."""
        return Document(
            id=self.id,
            user_id=self.user_id,
            filename=self.filename,
            media_type=self.media_type,
            size_bytes=self.size_bytes,
            content_hash=self.content_hash,
            state=State(self.state),
            generation=self.generation,
            visible_generation=self.visible_generation,
            chunks=self.chunks,
            lane=self.lane,
            enqueue_seq=self.enqueue_seq,
            reason=self.reason,
            detail=self.detail,
            next_step_at=self.next_step_at,
            progress_done=self.progress_done,
            progress_total=self.progress_total,
            errors=self.errors,
            deaths=self.deaths,
            throttles=self.throttles,
            suspect=bool(self.suspect),
            worker=self.worker,
            created_at=self.created_at,
            updated_at=self.updated_at,
            searchable_at=self.searchable_at,
            metadata=json.loads(self.metadata),
            names=names,
        )


FIELDS = tuple(Row.__dataclass_fields__)
_all = attrgetter(*FIELDS)
_hot = attrgetter(*HOT)
