"""One document's life in a worker, as one straight line: parse → chunk → embed → store → finish.

Parsing and chunking happen in a disposable child and come back as windows of chunks, so a large
document is embedded and stored while it is still being read, in bounded memory.
"""

from __future__ import annotations

import asyncio
import errno
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

from unjam.core.backoff import full_jitter
from unjam.core.chunk import Chunk
from unjam.core.document import Claim, State
from unjam.core.errors import (
    DependencyDown,
    DocumentFailed,
    DocumentRejected,
    LeaseLost,
    NotNow,
    SetupError,
    UnjamError,
    WorkerUnfit,
)
from unjam.core.outcome import Dead, Done, Outcome, Retry, Snooze
from unjam.core.ports import Blobs, Embedder, ParseJob, Parser, Progress
from unjam.core.reasons import REASONS
from unjam.pipeline.steps import Checkpoint, Step, no_checkpoint
from unjam.pipeline.store import VectorWriter

WINDOWS_IN_FLIGHT = 3
"""Windows of one document between parser and store: one embedding, one storing, one coming."""

PARSE_TRIES = 2
"""A crash of the parsing child is tried once more; the same bytes rarely do better later."""

SETUP_WAIT_S = 30.0
"""Until a document whose needs the installation lacks is tried again: a person has to act."""

STARVED_WAIT_S = 5.0
"""Until a process that lacks memory, processes or files tries again: others must end first."""

_STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS})

EXCERPT = 4000
"""Characters of a traceback that go into a dead letter."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a parsing child may use (law 11)."""

    memory_bytes: int
    cpu_s: float = 300.0
    wall_s: float = 600.0
    output_bytes: int = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Tools:
    """Everything a run needs, as ports."""

    blobs: Blobs
    parser: Parser
    embedder: Embedder
    writer: VectorWriter
    tokenizer_of: Callable[[Claim], str]
    limits: Limits
    checkpoint: Checkpoint = no_checkpoint


@dataclass(slots=True)
class Attempt:
    """One claim being worked on: what the lease keeper reports and the log tells."""

    claim: Claim
    state: State = State.PARSING
    done: int = 0
    total: int = 0
    alone: bool = False
    index_suspect: bool = False
    stage_ms: dict[str, float] = field(default_factory=dict[str, float])
    changed: Callable[[Attempt], None] = lambda _: None

    def enter(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self.changed(self)

    def progress(self) -> Progress:
        return Progress(
            document_id=self.claim.document_id,
            token=self.claim.token,
            state=self.state,
            done=self.done,
            total=self.total,
            alone=self.alone,
        )

    def spent(self, stage: str, since: float) -> None:
        """Add the milliseconds since *since* (``time.monotonic``) to *stage*."""
        self.stage_ms[stage] = self.stage_ms.get(stage, 0.0) + (time.monotonic() - since) * 1000


async def run(attempt: Attempt, tools: Tools) -> Outcome:
    """Bring the claim's generation into the vector store, completely; say how it ended.

    Raises:
        LeaseLost: we are a zombie; nothing may be written any more.
    """
    try:
        tools.checkpoint(Step.CLAIMED)
        chunks = await _work(attempt, tools)
        tools.checkpoint(Step.COMPLETE)
        return Done(chunks, attempt.stage_ms, attempt.index_suspect)
    except Exception as error:
        cause = _first(error)
        if isinstance(cause, LeaseLost):
            raise cause from error
        return outcome_of(attempt.claim, cause)


async def _work(attempt: Attempt, tools: Tools) -> int:
    """Number of chunks stored."""
    room = asyncio.Semaphore(WINDOWS_IN_FLIGHT)
    count = 0
    async with asyncio.TaskGroup() as tasks, aclosing(parse(attempt, tools)) as windows:
        began = time.monotonic()
        with ExitStack() as reading:
            reading.enter_context(tools.embedder.expecting())
            async for window in windows:
                attempt.spent("parse", began)
                count += len(window)
                attempt.total = max(attempt.total, count)
                await room.acquire()
                task = tasks.create_task(_embed_and_store(attempt, tools, window))
                task.add_done_callback(lambda _: room.release())
                reading.close()  # further windows fill requests of their own
                began = time.monotonic()
    return count


async def parse(attempt: Attempt, tools: Tools) -> AsyncGenerator[list[Chunk], None]:
    """Windows of chunks of the original, in order."""
    claim = attempt.claim
    job = ParseJob(
        path=await tools.blobs.path(claim.content_hash),
        filename=claim.filename,
        media_type=claim.media_type,
        size_bytes=claim.size_bytes,
        chunk_tokens=claim.pin.chunk_tokens,
        overlap_tokens=claim.pin.overlap_tokens,
        tokenizer=tools.tokenizer_of(claim),
        memory_bytes=tools.limits.memory_bytes // (2 if claim.suspect else 1),
        cpu_s=tools.limits.cpu_s,
        wall_s=tools.limits.wall_s,
        output_bytes=tools.limits.output_bytes,
    )
    first = True
    async with aclosing(tools.parser.chunks(job)) as windows:
        async for window in windows:
            if first:
                tools.checkpoint(Step.PARSED)
                first = False
            yield window


async def _embed_and_store(attempt: Attempt, tools: Tools, window: Sequence[Chunk]) -> None:
    claim = attempt.claim
    attempt.enter(State.EMBEDDING)
    began = time.monotonic()
    try:
        with tools.writer.coming(len(window)):
            vectors = await tools.embedder.passages(
                [chunk.text for chunk in window], claim.pin, alone=claim.suspect
            )
    except DocumentRejected as error:
        error.evidence |= _refused(window, error.evidence.pop("text", None))
        raise
    attempt.spent("embed", began)
    tools.checkpoint(Step.EMBEDDED)
    attempt.enter(State.STORING)
    began = time.monotonic()
    if not await tools.writer.store(claim, window, vectors):
        attempt.index_suspect = True
    attempt.spent("store", began)
    attempt.done += len(window)
    tools.checkpoint(Step.STORED)


def _refused(window: Sequence[Chunk], number: object) -> dict[str, Any]:
    """Which chunk the endpoint refuses; of a whole window when it did not say."""
    if not isinstance(number, int) or not 0 <= number < len(window):
        return {"chunks_from": window[0].index, "chunks_to": window[-1].index}
    chunk = window[number]
    return {"chunk": chunk.index, "page": chunk.page, "excerpt": chunk.text[:300]}


def outcome_of(claim: Claim, error: Exception) -> Outcome:
    """How an attempt that raised *error* ends. Pure.

    Trouble of a dependency, of this process or of its installation waits, bytes that cannot become
    text are parked, everything else is an error of this document and is tried again with full
    jitter.
    """
    match error:
        case DocumentRejected():
            return Dead(error.code, error.detail, error.evidence)
        case DependencyDown():
            wait_s, shared = error.retry_after_s, error.shared
            return Snooze(error.code, error.detail, wait_s, error.throttled, shared)
        case NotNow():
            return Snooze("processing_error", error.detail, error.retry_after_s)
        case WorkerUnfit():
            return Snooze(error.code, error.detail, error.retry_after_s, shared=False)
        case SetupError():
            return Snooze("setup_incomplete", error.detail, SETUP_WAIT_S, shared=False)
        case _ if _starved(error):
            detail = f"{type(error).__name__}: {error}"
            return Snooze(WorkerUnfit.code, detail, STARVED_WAIT_S, shared=False)
        case DocumentFailed() if (
            REASONS[error.code].kind == "dead" and claim.errors + 1 >= PARSE_TRIES
        ):
            return Dead(error.code, error.detail, error.evidence)
        case DocumentFailed():
            detail, evidence = f"{error.code}: {error.detail}", error.evidence
        case UnjamError():
            detail, evidence = f"{error.code}: {error.detail}", _origin(error)
        case _:
            detail, evidence = f"{type(error).__name__}: {error}", _origin(error)
    return Retry("processing_error", detail[:2000], full_jitter(claim.errors + 1), evidence)


def _starved(error: Exception) -> bool:
    """Whether this process lacks memory, threads, processes or open files."""
    if isinstance(error, OSError):
        return error.errno in _STARVED
    if isinstance(error, RuntimeError):
        return "can't start new thread" in str(error)
    return isinstance(error, MemoryError)


def _origin(error: Exception) -> dict[str, Any]:
    """Where an error of our own came from."""
    lines = traceback.format_exception(error)
    return {"exception": type(error).__name__, "traceback": "".join(lines)[-EXCERPT:]}


def _first(raised: Exception) -> Exception:
    """The most telling leaf: what ends a document before what makes it wait."""
    leaves: list[Exception] = []
    stack: list[BaseException] = [raised]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack.extend(error.exceptions)
        elif isinstance(error, Exception):
            leaves.append(error)
    order = (LeaseLost, DocumentRejected, DocumentFailed, DependencyDown, SetupError)
    return min(
        leaves, key=lambda e: next((i for i, t in enumerate(order) if isinstance(e, t)), len(order))
    )
