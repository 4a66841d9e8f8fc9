"""The one straight way from bytes to an accepted document (law 2: durable before acknowledged).

``open`` → ``write`` … → ``accept``: bytes stream into the blob store while they are hashed;
duplicates are found before the fsync; files of one request, and of requests that come at the same
time, share one fsync and one ledger write. The
doorbell rings after the answer is decided, in the background: losing it costs seconds, because
the reconciler rings for whatever no lane holds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import uuid_utils

from unjam.core.breaker import Breaker
from unjam.core.coalesce import Coalescer
from unjam.core.document import Accepted, AcceptKind, Document, Pin, State, Submission, Ticket
from unjam.core.errors import Backlogged, DependencyDown, NotFound, TooLarge
from unjam.core.ports import Backlog, Blobs, BlobWriter, Ledger, Queue
from unjam.pipeline.doorbell import Doorbell
from unjam.pipeline.labels import clean_filename, clean_label

_log = logging.getLogger("unjam.intake")

RETRY_AFTER_S = 30.0

CHECKED_S = 1.0
"""How long an answer about backlog, disk and store serves for further uploads."""

COMMIT_FILES = 500
"""Files made durable together at most: an fsync costs about the same for one as for many."""


@dataclass(slots=True)
class Staged:
    """A file being streamed in: not durable, not known to anybody yet."""

    filename: str
    writer: BlobWriter


@dataclass(frozen=True, slots=True)
class Entry:
    """A streamed file with what came along: metadata and key were checked; *media_type* "" is found
    out from its first bytes."""

    staged: Staged
    user_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    idempotency_key: str = ""
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one file of an upload."""

    kind: AcceptKind
    document_id: str
    state: State
    filename: str
    media_type: str
    size_bytes: int
    user_id: str
    generation_is_new: bool


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """Above the first three, or below the last, uploads are asked to come back later."""

    documents: int = 1_000_000  # in line
    size_bytes: int = 100 * 1024**3  # in line
    oldest_s: float = 7 * 86_400.0  # the oldest in line
    free_bytes: int = 64 * 1_048_576  # so that a ledger on the same disk can still write


class Intake:
    """See the module. One per process; safe for concurrent uploads.

    Args:
        sniff: (first 64 KiB, filename) → media type; never trusts the name alone.
        lane_for: (size in bytes, media type) → RQ queue.
        current_pin: what a generation made now is pinned to.
        max_upload_bytes: bound of one upload; above it TooLarge.
        push: ring the doorbell from this process (else the reconciler does it).
        limits: when new ones are refused for a while (Backlogged).
        held: the breaker that keeps uploads out, while it holds.
        met: told that the store of originals is away, as an upload met it.
    """

    def __init__(
        self,
        ledger: Ledger,
        blobs: Blobs,
        queue: Queue,
        *,
        sniff: Callable[[bytes, str], str],
        lane_for: Callable[[int, str], str],
        current_pin: Callable[[], Pin],
        max_upload_bytes: int,
        push: bool = True,
        limits: IntakeLimits | None = None,
        held: Callable[[], Breaker | None] = lambda: None,
        met: Callable[[DependencyDown], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._sniff = sniff
        self._lane_for = lane_for
        self._current_pin = current_pin
        self.max_upload_bytes = max_upload_bytes
        self._doorbell = Doorbell(ledger, queue) if push else None
        self.limits = limits or IntakeLimits()
        self._held = held
        self._met = met
        self._checked_at = -math.inf
        self._failed: tuple[DependencyDown, float] | None = None
        self._commits = Coalescer[Sequence[BlobWriter], None](
            self._commit_all, max_weight=COMMIT_FILES, weight=len
        )

    # -- before the bytes
    async def admit(self, size_bytes: int | None = None) -> None:
        """Whether an upload may begin; *size_bytes* as announced, None when unknown.

        Raises:
            TooLarge: announced above the limit.
            Backlogged: too much waits already (backlog_full), or the disk is nearly full
            (disk_low).
            DependencyDown: ledger_unwritable, blob_store_down.
        """
        if size_bytes is not None and size_bytes > self.max_upload_bytes:
            raise self._too_large()
        if (held := self._held()) is not None:
            raise DependencyDown(held.detail, code=held.reason)
        now = time.monotonic()
        if now - self._checked_at < CHECKED_S:
            return
        _judge(self.limits, await self._ledger.backlog(), await self._blobs.free_bytes())
        self._checked_at = now

    async def open(self, filename: str) -> Staged:
        """Begin a file; end it with :meth:`accept`, :meth:`replace` or :meth:`abort`."""
        return Staged(clean_filename(filename), await self._blobs.create())

    async def write(self, staged: Staged, data: bytes) -> None:
        """Raises TooLarge, DependencyDown (disk full)."""
        if staged.writer.size_bytes + len(data) > self.max_upload_bytes:
            raise self._too_large()
        await staged.writer.write(data)

    async def abort(self, staged: Sequence[Staged]) -> None:
        """Nothing remains of them."""
        for one in staged:
            await one.writer.abort()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the upload is larger than {self.max_upload_bytes} bytes")

    # -- the moment of truth
    async def accept(
        self,
        staged: Sequence[Staged],
        *,
        user_id: str = "",
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
    ) -> list[Receipt]:
        """Make the files durable and accepted, one receipt each, in order.

        With several files the Idempotency-Key names the request: file *n* > 0 gets ``key#n``.

        Raises:
            UsageError: user_id or key unfit. DependencyDown: blobs or ledger cannot write; then
            nothing was accepted.
        """
        try:
            key = clean_label(idempotency_key, "Idempotency-Key")
        except BaseException:
            await asyncio.shield(self.abort(staged))
            raise
        keys = [key if n == 0 or not key else f"{key}#{n}" for n in range(len(staged))]
        return await self.accept_each(
            [
                Entry(one, user_id, metadata or {}, own)
                for one, own in zip(staged, keys, strict=True)
            ]
        )

    async def accept_each(self, entries: Sequence[Entry]) -> list[Receipt]:
        """As :meth:`accept`, of several users and with metadata of its own each."""
        try:
            pin = self._current_pin()
            pairs = [(self._submission(e, pin), e.staged.writer) for e in entries]
            answers = await self._durably(pairs)
        except BaseException:
            await asyncio.shield(self.abort([e.staged for e in entries]))
            raise
        return self._conclude([s for s, _ in pairs], answers)

    async def replace(
        self,
        document: Document,
        staged: Staged,
        *,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
    ) -> Receipt:
        """A new generation of *document* (PUT). *metadata* None keeps what it has.

        Raises:
            NotFound: deleted meanwhile. DependencyDown, UsageError: as :meth:`accept`.
        """
        try:
            kept = document.metadata if metadata is None else metadata
            key = clean_label(idempotency_key, "Idempotency-Key")
            entry = Entry(staged, document.user_id, kept, key)
            submission = self._submission(entry, self._current_pin(), document.id)
            if document.state is State.DELETED:
                raise NotFound(f"no document {document.id}")
            await self._commit([staged.writer])
            answer = await self._ledger.replace(document.id, submission)
        except BaseException:
            await asyncio.shield(self.abort([staged]))
            raise
        return self._conclude([submission], [answer])[0]

    async def _durably(self, pairs: Sequence[tuple[Submission, BlobWriter]]) -> list[Accepted]:
        """Commit the blobs that are new, then accept; twice when a duplicate vanished meanwhile."""
        known = await self._known([submission for submission, _ in pairs])
        durable = [submission.content_hash not in known for submission, _ in pairs]
        await self._commit([w for (_, w), new in zip(pairs, durable, strict=True) if new])
        answers = await self._ledger.accept(
            [replace(s, blob_durable=d) for (s, _), d in zip(pairs, durable, strict=True)]
        )
        again = [n for n, a in enumerate(answers) if a.kind is AcceptKind.NEEDS_BLOB]
        if again:
            await self._commit([pairs[n][1] for n in again])
            second = await self._ledger.accept([pairs[n][0] for n in again])
            for n, answer in zip(again, second, strict=True):
                durable[n] = True
                answers[n] = answer
        for (_, writer), done in zip(pairs, durable, strict=True):
            if not done:
                await writer.abort()
        return answers

    async def _commit(self, writers: Sequence[BlobWriter]) -> None:
        """Together with those of other requests. Cancelled, it still ends before it raises:
        nobody may take a file away while it is made durable."""
        if not writers:
            return
        commit = asyncio.ensure_future(self._commits.put(writers))
        try:
            await asyncio.shield(commit)
        except asyncio.CancelledError:
            await asyncio.wait({commit})
            raise

    async def _commit_all(self, groups: Sequence[Sequence[BlobWriter]]) -> Sequence[None]:
        if self._failed is not None and time.monotonic() - self._failed[1] < CHECKED_S:
            raise self._failed[0]  # they stood in line meanwhile: not each its own time-out
        try:
            await self._blobs.commit([writer for group in groups for writer in group])
        except DependencyDown as error:
            self._failed = error, time.monotonic()
            self._met(error)
            raise
        self._failed = None
        return [None] * len(groups)

    async def _known(self, submissions: Sequence[Submission]) -> set[str]:
        """Content that the ledger will hardly need once more, so that its fsync can be saved.

        A guess: the ledger decides. Bytes that went missing on disk are stored again.
        """
        by_user: dict[str, list[str]] = {}
        for submission in submissions:
            by_user.setdefault(submission.user_id, []).append(submission.content_hash)
        known: set[str] = set()
        for user_id, hashes in by_user.items():
            known.update(await self._ledger.find_live(user_id, hashes))
        for submission in submissions:
            key = submission.idempotency_key
            if key and await self._ledger.find_idempotent(submission.user_id, key):
                known.add(submission.content_hash)
        return await self._blobs.present(list(known)) if known else known

    def _submission(self, entry: Entry, pin: Pin, document_id: str = "") -> Submission:
        """Raises UsageError: user_id unfit."""
        staged, writer = entry.staged, entry.staged.writer
        media_type = entry.media_type or self._sniff(writer.head, staged.filename)
        return Submission(
            document_id=document_id or str(uuid_utils.uuid7()),
            user_id=clean_label(entry.user_id, "user_id"),
            filename=staged.filename,
            media_type=media_type,
            size_bytes=writer.size_bytes,
            content_hash=writer.digest(),
            pin=pin,
            lane=self._lane_for(writer.size_bytes, media_type),
            metadata=entry.metadata,
            idempotency_key=entry.idempotency_key,
        )

    def _conclude(
        self, submissions: Sequence[Submission], answers: Sequence[Accepted]
    ) -> list[Receipt]:
        fresh = (AcceptKind.CREATED, AcceptKind.REVIVED)
        pairs = list(zip(submissions, answers, strict=True))
        self.ring(
            [
                Ticket(a.document_id, a.enqueue_seq, s.lane, s.size_bytes, s.user_id)
                for s, a in pairs
                if a.kind in fresh
            ]
        )
        return [
            Receipt(
                kind=a.kind,
                document_id=a.document_id,
                state=a.state,
                filename=s.filename,
                media_type=s.media_type,
                size_bytes=s.size_bytes,
                user_id=s.user_id,
                generation_is_new=a.kind in fresh,
            )
            for s, a in pairs
        ]

    def ring(self, tickets: Sequence[Ticket]) -> None:
        """Tell the lanes soon; also for retries."""
        if self._doorbell is not None:
            self._doorbell.ring(tickets)

    async def close(self) -> None:
        if self._doorbell is not None:
            await self._doorbell.close()


def _judge(limits: IntakeLimits, line: Backlog, free_bytes: int) -> None:
    """Raises Backlogged."""
    if line.documents >= limits.documents:
        full = f"{line.documents} documents stand in line already"
    elif line.size_bytes >= limits.size_bytes:
        full = f"{line.size_bytes} bytes of documents stand in line already"
    elif line.oldest_s >= limits.oldest_s:
        full = f"the oldest document has stood in line for {line.oldest_s:.0f} s"
    elif free_bytes < limits.free_bytes:
        raise Backlogged(
            f"only {free_bytes} bytes are free where originals are stored",
            code="disk_low",
            retry_after_s=RETRY_AFTER_S,
        )
    else:
        return
    raise Backlogged(full, retry_after_s=RETRY_AFTER_S)
