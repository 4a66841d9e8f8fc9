"""Ports: what the rooms ask of each other. Adapters are built in ``unjam.app`` and nowhere else.

Every port has one contract suite (``tests/contract``) that runs over all of its adapters, the
in-memory double included. Methods are coroutines unless they say otherwise; times are Unix
seconds, sizes bytes.
"""

from __future__ import annotations

from unjam.core.ports.blobs import Blobs, BlobWriter
from unjam.core.ports.documents import DeadLetterBook, DocumentBook
from unjam.core.ports.embedding import Embedder, Provider, VectorCache
from unjam.core.ports.facts import (
    Backlog,
    Cleanup,
    Completed,
    Equation,
    InLine,
    Page,
    Progress,
    Settled,
    Strategy,
    VisibleDocument,
    WorkerRef,
)
from unjam.core.ports.house import BreakerBook, UpkeepBook
from unjam.core.ports.incidents import IncidentBook
from unjam.core.ports.ledger import Ledger
from unjam.core.ports.queue import LaneFacts, Parked, Queue
from unjam.core.ports.text import ParseJob, Parser
from unjam.core.ports.vectors import (
    Candidate,
    ChunkRow,
    CollectionFacts,
    Keeping,
    StoredId,
    Vectors,
    VectorStore,
    VisibleChunks,
)
from unjam.core.ports.work import ClaimBook, LaneBook, VectorAudit

__all__ = [
    "Backlog",
    "BlobWriter",
    "Blobs",
    "BreakerBook",
    "Candidate",
    "ChunkRow",
    "ClaimBook",
    "Cleanup",
    "CollectionFacts",
    "Completed",
    "DeadLetterBook",
    "DocumentBook",
    "Embedder",
    "Equation",
    "InLine",
    "IncidentBook",
    "Keeping",
    "LaneBook",
    "LaneFacts",
    "Ledger",
    "Page",
    "Parked",
    "ParseJob",
    "Parser",
    "Progress",
    "Provider",
    "Queue",
    "Settled",
    "StoredId",
    "Strategy",
    "UpkeepBook",
    "VectorAudit",
    "VectorCache",
    "VectorStore",
    "Vectors",
    "VisibleChunks",
    "VisibleDocument",
    "WorkerRef",
]
