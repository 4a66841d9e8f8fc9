"""The sentences that operators grep for, each in one place.

The bold ones are fixed: runbooks, dashboards and alerts in the field match them literally.
Trouble that repeats (fifty documents meet one dead dependency) is said once, then at most every
:data:`REPEAT_S`, with the number of times it was left unsaid.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from unjam.observe.logs import FIELDS, TAIL

REPEAT_S = 30.0
"""A repeated trouble is said again after this many seconds."""

CONNECTION_LOST = "RQ worker connection lost"
REDIS_TIMEOUT = "Redis connection timeout in RAG worker"
RATE_LIMIT = "Embedding API rate limit exceeded"
STARTED = "RAG worker started processing job"
PROCESSING = "Processing job"
SUCCEEDED = "Successfully processed"
PROCESSING_TIME = "Processing time:"
CHROMA_FAILED = "ChromaDB connection failed"
TERMINATED = "Worker process terminated unexpectedly"

_log = logging.getLogger("unjam.worker")


def _say(level: int, sentence: str, *, tail: str = "", **fields: Any) -> None:
    _log.log(level, sentence, extra={FIELDS: {**fields, TAIL: tail}})


class _Repeats:
    """Which troubles were said lately. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}

    def admit(self, key: str) -> int | None:
        """None: keep quiet. Else how many times it was kept quiet since it was said last."""
        now = time.monotonic()
        with self._lock:
            at, unsaid = self._said.get(key, (-REPEAT_S, 0))
            if now - at < REPEAT_S:
                self._said[key] = (at, unsaid + 1)
                return None
            self._said[key] = (now, 0)
            return unsaid

    def clear(self) -> None:
        with self._lock:
            self._said.clear()


repeats = _Repeats()


def _trouble(level: int, sentence: str, key: str = "", **fields: Any) -> None:
    unsaid = repeats.admit(key or sentence)
    if unsaid is not None:
        _say(level, sentence, **fields, unsaid=unsaid or None)


# -- one document ---------------------------------------------------------------------------
def job_started(document_id: str, seq: int, filename: str = "") -> None:
    """**RAG worker started processing job <id>**, and **Processing job <id>** on the same line.

    The file name is for JSON readers of events, not for the log: it is the user's, and a name
    such as ``ERROR.pdf`` would be counted by the operators' greps.
    """
    del filename
    job = f"{document_id}-{seq}"
    _say(logging.INFO, f"{STARTED} {job} ({PROCESSING} {job})")


def job_succeeded(
    document_id: str,
    seq: int,
    chunks: int,
    took_ms: float,
    stage_ms: Mapping[str, float] | None = None,
) -> None:
    """**Successfully processed** (once a document), **finished**, **Completed**, and
    **Processing time: 1234ms** as the last two tokens."""
    stages = {f"{name}_ms": round(ms) for name, ms in (stage_ms or {}).items()}
    _say(
        logging.INFO,
        f"{SUCCEEDED} {document_id}-{seq}, finished. Completed.",
        tail=f"{PROCESSING_TIME} {round(took_ms)}ms",
        chunks=chunks,
        **stages,
    )


def job_waits(
    document_id: str, seq: int, state: str, reason: str, detail: str, after_s: float
) -> None:
    """It waits for a dependency, whose own words come first, or for its next try."""
    if reason != "processing_error":
        dependency_lost(reason, detail)
        _say(logging.INFO, f"Job {document_id}-{seq} waits", reason=reason, after_s=after_s)
        return
    _say(
        logging.WARNING,
        f"Job {document_id}-{seq} waits",
        state=str(state),
        reason=reason,
        detail=detail,
        after_s=after_s,
    )


def job_parked(document_id: str, seq: int, reason: str, detail: str) -> None:
    """A dead letter: somebody has to look at it."""
    _say(logging.ERROR, f"Job {document_id}-{seq} is parked", reason=reason, detail=detail)


def job_handed_back(document_id: str, seq: int) -> None:
    _say(logging.INFO, f"Job {document_id}-{seq} is handed back unfinished, nothing is lost")


def job_lost(document_id: str, seq: int) -> None:
    """The lease is somebody else's: this process stops and touches nothing."""
    _say(logging.WARNING, f"Job {document_id}-{seq} belongs to another worker now; stopped")


# -- dependencies ---------------------------------------------------------------------------
def redis_lost(detail: str = "") -> None:
    """**ERROR: RQ worker connection lost**, or the time-out's words when it was one."""
    if "timeout" in detail.lower() or "timed out" in detail.lower():
        redis_timeout(detail)
    else:
        redis_connection_lost(detail)


def redis_connection_lost(detail: str = "") -> None:
    """**ERROR: RQ worker connection lost**"""
    _trouble(logging.ERROR, CONNECTION_LOST, detail=detail)


def redis_timeout(detail: str = "") -> None:
    """**WARNING: Redis connection timeout in RAG worker**"""
    _trouble(logging.WARNING, REDIS_TIMEOUT, detail=detail)


def embedding_rate_limited(detail: str = "") -> None:
    """**ERROR: Embedding API rate limit exceeded**"""
    _trouble(logging.ERROR, RATE_LIMIT, detail=detail)


def chroma_failed(detail: str = "") -> None:
    """**ERROR: ChromaDB connection failed**"""
    _trouble(logging.ERROR, CHROMA_FAILED, detail=detail)


def ledger_unwritable(detail: str = "") -> None:
    _trouble(logging.ERROR, "Ledger cannot be written", detail=detail)


def ledger_newer(detail: str = "") -> None:
    """This program is too old for the ledger: it lets go of what it holds and takes no more."""
    _trouble(logging.ERROR, "Ledger is newer than this program", detail=detail)


_DEPENDENCIES = {
    "queue_down": redis_lost,
    "vector_store_down": chroma_failed,
    "embedding_throttled": embedding_rate_limited,
    "ledger_unwritable": ledger_unwritable,
    "ledger_newer": ledger_newer,
}


def dependency_lost(code: str, detail: str = "") -> None:
    """A dependency is away; *code* is a waiting reason of ``core.reasons``."""
    known = _DEPENDENCIES.get(code)
    if known is not None:
        known(detail)
    else:
        _trouble(logging.ERROR, "A dependency is away", key=code, reason=code, detail=detail)


def lane_paused(lane: str, paused: bool, detail: str = "") -> None:
    """A person stopped the lane ("*": all), or let it go on."""
    sentence = "Lane paused by a person" if paused else "Lane goes on"
    _say(logging.INFO, sentence, lane=lane, detail=detail)


def dependency_back(name: str) -> None:
    """Work that needs *name* goes on."""
    _say(logging.INFO, "A dependency is back; work goes on", dependency=name)


# -- processes ------------------------------------------------------------------------------
def worker_ready(worker_id: str, lanes: Sequence[str]) -> None:
    _say(logging.INFO, "Worker listens", worker=worker_id, lanes=",".join(lanes))


def worker_drains(in_flight: int) -> None:
    _say(logging.INFO, "Worker drains", in_flight=in_flight)


def worker_stopped(worker_id: str) -> None:
    _say(logging.INFO, "Worker stopped cleanly", worker=worker_id)


def worker_fault(document_id: str, error: BaseException) -> None:
    """A fault of this program: its lease runs out and the document is taken up again."""
    _log.error(
        f"Fault while processing {document_id}", exc_info=error, extra={FIELDS: {"fault": True}}
    )


def worker_terminated(name: str, pid: int, how: str) -> None:
    """**WARNING: Worker process terminated unexpectedly**; *how*: signal or exit code."""
    _say(logging.WARNING, TERMINATED, process_name=name, pid=pid, how=how)


def writer_freed(how: str, pid: int, name: str, stood_s: float) -> None:
    """A process stood frozen where every writer of the ledger must pass; *how*: woken, killed."""
    _say(
        logging.WARNING,
        f"A frozen process held the ledger's gate; it was {how}",
        pid=pid,
        process_name=name,
        stood_s=round(stood_s, 1),
    )


def watchdog_fault(error: BaseException) -> None:
    if repeats.admit(f"watchdog {type(error).__name__}") is not None:
        _log.error("Fault in the watchdog; its next round comes", exc_info=error)


def incident_unwritten(cause: str) -> None:
    """The ledger is away: the incident is written down when it is back."""
    _say(logging.ERROR, "An incident cannot be written down yet", cause=cause)


def unfit_worker(document_id: str, seq: int, detail: str, hint: str) -> None:
    """A stock worker cannot work for this house; the document stays queued."""
    _say(
        logging.ERROR,
        f"Job {document_id}-{seq} is left queued: this worker is not set up for it",
        detail=detail,
        hint=hint,
    )


def wrong_house(wanted: str, found: str) -> None:
    """The queue belongs to another ledger than this process was pointed at."""
    _say(
        logging.ERROR,
        "This queue belongs to another ledger; unset RAG_DATA_DIR and RAG_DATABASE_URL, or point "
        "them at the queue's own",
        queue_ledger=wanted,
        own_ledger=found,
    )


# -- recovery -------------------------------------------------------------------------------
def documents_recovered(count: int, why: str) -> None:
    """*count* documents were put back to work; *why*: worker_died, orphaned."""
    _say(logging.INFO, f"{count} documents are put back to work", why=why)


def redis_lost_data(seen: int | None, known: int) -> None:
    """Redis came back empty or older than the ledger remembers; every waiting job is checked."""
    _say(
        logging.WARNING,
        "Redis lost data; every waiting document is queued again from the ledger",
        epoch_seen=seen,
        epoch_known=known,
    )


def vectors_lost(collection: str, wanted: int, found: int) -> None:
    """The vector store holds fewer rows than search shows; every document is looked at now."""
    _say(
        logging.WARNING,
        "The vector store lost chunks; they come back from the embedding cache",
        collection=collection,
        chunks_wanted=wanted,
        rows_found=found,
    )


def foreign_chunks_removed(collection: str, count: int) -> None:
    _say(
        logging.INFO,
        f"{count} chunks that belong to no document are removed",
        collection=collection,
    )


def lane_given_up(lane: str, count: int) -> None:
    """Nobody listens to *lane*: its documents go to ``rag_processing``."""
    _say(
        logging.WARNING,
        f"Lane {lane} has no listener; {count} documents go to rag_processing",
        lane=lane,
    )


def queue_suspended(suspended: bool) -> None:
    """Somebody ran ``rq suspend``, or ``rq resume``."""
    if suspended:
        sentence = "Workers are suspended by `rq suspend`; `rq resume` lets them go on"
        _say(logging.WARNING, sentence)
    else:
        _say(logging.INFO, "Workers are no longer suspended; work goes on")


def books_healed(ghosts: int, locks: int) -> None:
    """RQ's books held workers that are gone, or locks that nobody will release."""
    _say(logging.INFO, "RQ's books are put right", ghosts=ghosts, locks=locks)


def memory_pressure(short: bool, available_bytes: int, own_bytes: int) -> None:
    """A worker takes fewer documents and smaller batches, or as many as ever again."""
    if short:
        level, sentence = logging.WARNING, "Memory is short: this worker takes less at a time"
    else:
        level, sentence = logging.INFO, "Memory suffices again: this worker takes as much as ever"
    _say(level, sentence, available_mb=available_bytes >> 20, own_mb=own_bytes >> 20)
