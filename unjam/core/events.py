"""Everything that can happen to a document; the ledger appends one row per event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EventKind(StrEnum):
    ACCEPTED = "accepted"  # a new document id exists; the equation counts these
    DUPLICATE = "duplicate"  # the same bytes arrived again: name and metadata kept
    UPDATED = "updated"  # a new generation of the document
    QUEUED = "queued"  # a lane holds it (data: lane, seq)
    CLAIMED = "claimed"  # a worker leased it (data: worker, token)
    STAGE = "stage"  # parsing, chunking, embedding, storing
    SEARCHABLE = "searchable"  # the flip (data: chunks, stage_ms)
    WAITING = "waiting"  # data: reason, detail, until
    REQUEUED = "requeued"  # back to work (data: why)
    WORKER_DIED = "worker_died"  # its lease ran out or its supervisor saw it die
    DEAD = "dead"  # parked (data: reason, detail, evidence)
    RETRIED = "retried"  # a person put it back to work
    CANCELLED = "cancelled"
    DELETED = "deleted"
    INDEX_SUSPECT = "index_suspect"  # flipped although a self-check failed twice


@dataclass(frozen=True, slots=True)
class Event:
    """*seq* grows over the whole ledger; *at* is Unix seconds (UTC)."""

    seq: int
    document_id: str
    generation: int
    at: float
    kind: EventKind
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
