"""SandboxParser: foreign bytes are parsed in a disposable child with caps (law 11).

A zygote (`zygote`) is spawned once and forks a child a document; chunks stream back over a socket
of the document's own, so a slow consumer stops the child instead of filling memory.

What ends a parse, and whose fault it is:

- the child's own words (`DocumentRejected`, `DocumentFailed`) are taken as they are;
- CPU or wall time over: `parser_timeout`; wall time runs only while we wait for the child, never
  while the child waits for us;
- memory over: `parser_memory` (Python's MemoryError, or a fatal signal beside the cap);
- another fatal signal, or an exit without a result: `parser_crashed`;
- SIGTERM, SIGHUP, SIGINT, a kill from outside or the zygote's own death are nobody's fault: the
  parse is done again, up to twice, and goes on behind the chunks that were given out already;
- a zygote that does not start, or cannot fork, is this worker's trouble (`WorkerUnfit`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import orjson

from unjam.core.chunk import Chunk
from unjam.core.coalesce import Coalescer
from unjam.core.errors import DocumentFailed, SetupError, UnjamError, WorkerUnfit
from unjam.core.ports import ParseJob
from unjam.pipeline.fault import FAULT
from unjam.pipeline.sniff import CSV, JSON, MARKDOWN, PLAIN, SOURCE
from unjam.pipeline.verdict import Interrupted, NoChild, fault_of, limits, verdict
from unjam.pipeline.zygote import CHUNKS, FRAME_HEAD, encode_job
from unjam.pipeline.zygote_client import Zygote

_RETRIES = 2
_EXIT_S = 10.0
_START_AGAIN_S = 1.0
_START_AGAIN_CAP_S = 10.0
_LAST_WORD_S = 1.0
_MAX_FRAME_BYTES = 64 << 20
_BUFFER_BYTES = 256 << 10


TOGETHER_BYTES = 1 << 20
LEAST_WEIGHT = 16 << 10
"""Small texts share a child up to 1 MiB, and up to 64 of them: a fork costs what ten of them do."""
SMALL_BYTES = 256 << 10
_TEXTS = frozenset({PLAIN, MARKDOWN, CSV, JSON, SOURCE, FAULT})

log = logging.getLogger(__name__)

Result = list[list[Chunk]] | UnjamError
"""Windows of chunks, or what ended the document."""


def is_small_text(job: ParseJob) -> bool:
    """Whether it may share a child: text that only memory-safe code reads, and soon read."""
    return job.size_bytes <= SMALL_BYTES and job.media_type in _TEXTS


class SandboxParser:
    """`core.ports.Parser` over disposable children; at most *parallel* at work at a time.

    A child that waits for its reader holds no place: two huge documents that are being embedded
    must not keep small ones from being parsed.

    Use it from one event loop, in the main thread: the zygote dies with the thread that spawned it.
    """

    def __init__(self, *, python: str = sys.executable, parallel: int | None = None) -> None:
        self._python = python
        self._slots = asyncio.Semaphore(parallel or os.cpu_count() or 1)
        self._starting = asyncio.Lock()
        self._zygote: Zygote | None = None
        self._closed = False
        self._failures = 0  # starts of the zygote that failed in a row
        self._rest_until = 0.0
        self._unfit = ""
        self._small = Coalescer(
            self._together,
            max_weight=TOGETHER_BYTES,
            weight=lambda j: max(j.size_bytes, LEAST_WEIGHT),
        )

    @property
    def pid(self) -> int | None:
        """The zygote's process id; None before the first parse."""
        return self._zygote.process.pid if self._zygote else None

    @property
    def zygote_threads(self) -> int:
        """Threads that the zygote had when it was ready; anything but 1 is a defect."""
        return self._zygote.threads if self._zygote else 0

    async def warm_up(self, tokenizer: str = "") -> None:
        """Start the zygote, and load *tokenizer* there, ahead of the first document."""
        zygote = await self._running()
        if tokenizer:
            await zygote.send({"warm": tokenizer})

    async def chunks(self, job: ParseJob) -> AsyncGenerator[list[Chunk], None]:
        """Windows of chunks, in order, as they come.

        Raises DocumentRejected, DocumentFailed; DependencyDown (blob_store_down) when the original
        cannot be read; WorkerUnfit when no child can be started; SetupError when it lacks its
        tokenizer.
        """
        if is_small_text(job):
            result = await self._small.put(job)
            if isinstance(result, UnjamError):
                raise result
            if result is not None:
                for window in result:
                    yield window
                return
        done = 0  # chunks given out already: an interrupted parse goes on behind them
        for attempt in range(_RETRIES + 1):
            try:
                run = _Run(await self._running(), [job], self._slots)
                try:
                    async for window in run.windows():
                        fresh = [chunk for chunk in window if chunk.index >= done]
                        if fresh:
                            yield fresh
                            done = fresh[-1].index + 1
                finally:
                    await run.close()
                return
            except Interrupted as interruption:
                if attempt == _RETRIES and isinstance(interruption, NoChild):
                    raise self._rests(str(interruption)) from None
                if attempt == _RETRIES:
                    raise DocumentFailed(
                        f"The parse was interrupted {attempt + 1} times: {interruption}",
                        code="processing_error",
                        evidence=limits(job),
                    ) from None

    async def _together(self, jobs: Sequence[ParseJob]) -> Sequence[Result | None]:
        """Small texts that wait at the same time share one child, one after the other.

        None: it ended before this one's turn was over; the job then gets a child of its own, so
        that whoever is to blame is alone.
        """
        results: list[Result | None] = []
        if len(jobs) > 1:
            run = _Run(await self._running(), jobs, self._slots)
            try:
                async for result in run.results():
                    results.append(result)
            except (DocumentFailed, Interrupted):
                pass
            finally:
                await run.close()
        return results + [None] * (len(jobs) - len(results))

    async def close(self) -> None:
        """End the zygote and its children. Safe to call twice."""
        self._closed = True
        async with self._starting:
            if self._zygote is not None:
                await self._zygote.close()
                self._zygote = None

    async def _running(self) -> Zygote:
        async with self._starting:
            if self._closed:
                raise SetupError("The parser is closed.")
            if self._zygote is None or not self._zygote.alive:
                if self._zygote is not None:
                    await self._zygote.close()
                    self._zygote = None
                left_s = self._rest_until - time.monotonic()
                if left_s > 0:  # others wait for the same start: no storm of them
                    raise WorkerUnfit(self._unfit, retry_after_s=left_s)
                try:
                    self._zygote = await Zygote.start(self._python)
                except WorkerUnfit as error:
                    raise self._rests(error.detail) from None
                self._failures = 0
            return self._zygote

    def _rests(self, why: str) -> WorkerUnfit:
        """No start is tried for a while, longer each time (equal jitter)."""
        wait_s = min(_START_AGAIN_CAP_S, _START_AGAIN_S * 2 ** min(self._failures, 8))
        wait_s *= 0.5 + random.random() / 2
        self._failures += 1
        self._rest_until, self._unfit = time.monotonic() + wait_s, why
        log.error("This worker cannot parse: %s Next try in %.1f s.", why, wait_s)
        return WorkerUnfit(why, retry_after_s=wait_s)


class _Run:
    """One child, from fork to its last result."""

    def __init__(self, zygote: Zygote, jobs: Sequence[ParseJob], slots: asyncio.Semaphore) -> None:
        self._zygote = zygote
        self._jobs = jobs
        self._job = jobs[0]
        self._slots = slots
        self._id, self._exit = zygote.enlist()
        self._writer: asyncio.StreamWriter | None = None
        self._wall_s = self._job.wall_s
        self._over = False

    async def windows(self) -> AsyncIterator[list[Chunk]]:
        reader: asyncio.StreamReader | None = None
        while True:
            async with self._slots:
                reader = reader or await self._start()
                frame = await self._frame(reader)
            if frame is None:
                raise await self._verdict()
            kind, value = frame
            if kind != CHUNKS:
                self._over = True
                if value["kind"] != "ok":
                    raise fault_of(value, self._job, await self._evidence())
                return
            yield [Chunk(*row) for row in value]

    async def results(self) -> AsyncIterator[Result]:
        """One a job, in order, until the child ends. Raises what ``_frame`` raises."""
        windows: list[list[Chunk]] = []
        left = len(self._jobs)
        async with self._slots:
            reader = await self._start()
            while left and (frame := await self._frame(reader)) is not None:
                kind, value = frame
                if kind == CHUNKS:
                    windows.append([Chunk(*row) for row in value])
                    continue
                job = self._jobs[-left]
                left -= 1
                self._over = not left
                yield windows if value["kind"] == "ok" else fault_of(value, job, limits(job))
                windows = []

    async def close(self) -> None:
        """Leave nothing behind: an abandoned child is killed."""
        if self._writer is not None:
            self._writer.transport.abort()
        if not self._over and not self._exit.done() and self._zygote.alive:
            with contextlib.suppress(Interrupted):
                await self._zygote.send({"kill": self._id})
        self._zygote.forget(self._id)

    async def _start(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        with theirs:
            message = {"id": self._id, "jobs": [encode_job(job) for job in self._jobs]}
            try:
                await self._zygote.send(message, theirs.fileno())
            except BaseException:
                ours.close()
                raise
        reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=_BUFFER_BYTES)
        return reader

    async def _frame(self, reader: asyncio.StreamReader) -> tuple[int, Any] | None:
        """The next frame; None when the child ended without one. Waiting here costs wall time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._wall_s):
                head = await reader.readexactly(FRAME_HEAD.size)
                length, kind = FRAME_HEAD.unpack(head)
                if length > _MAX_FRAME_BYTES:
                    raise DocumentFailed("The child sent nonsense.", code="parser_crashed")
                payload = await reader.readexactly(length)
        except TimeoutError:
            await self._zygote.send({"kill": self._id})
            raise DocumentFailed(
                f"Parsing took longer than {self._job.wall_s:g} s.",
                code="parser_timeout",
                evidence=await self._evidence(),
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self._wall_s = max(0.001, self._wall_s - (loop.time() - began))
        return kind, orjson.loads(payload)

    async def _evidence(self) -> dict[str, Any]:
        """The end of a child that has spoken its last word, if it comes soon; else the limits."""
        try:
            ended = await asyncio.wait_for(asyncio.shield(self._exit), _LAST_WORD_S)
        except TimeoutError:
            return limits(self._job)
        return limits(self._job) if ended.gone else ended.evidence(self._job)

    async def _verdict(self) -> Exception:
        """Why the child ended without a result."""
        try:
            ended = await asyncio.wait_for(asyncio.shield(self._exit), _EXIT_S)
        except TimeoutError:  # its socket is closed, yet it lives: it is killed by `close`
            return DocumentFailed("The child closed its socket.", code="parser_crashed")
        self._over = True
        return verdict(ended, self._job)
