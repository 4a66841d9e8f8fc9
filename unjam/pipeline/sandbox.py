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
import logging
import os
import random
import sys
import time
from collections.abc import AsyncGenerator, Sequence

from unjam.core.chunk import Chunk
from unjam.core.coalesce import Coalescer
from unjam.core.errors import DocumentFailed, SetupError, UnjamError, WorkerUnfit
from unjam.core.ports import ParseJob
from unjam.pipeline.child import Child, Result
from unjam.pipeline.fault import FAULT
from unjam.pipeline.sniff import CSV, JSON, MARKDOWN, PLAIN, SOURCE
from unjam.pipeline.verdict import Interrupted, NoChild, limits
from unjam.pipeline.zygote_client import Zygote

_RETRIES = 2
_START_AGAIN_S = 1.0
_START_AGAIN_CAP_S = 10.0

TOGETHER_BYTES = 1 << 20
LEAST_WEIGHT = 16 << 10
"""Small texts share a child up to 1 MiB, and up to 64 of them: a fork costs what ten of them do."""
CHILD_TEXTS = 1024
"""Their child stays for the next ones, until it has read so many: whatever a text leaves behind in
it ends with it."""
SMALL_BYTES = 256 << 10
_TEXTS = frozenset({PLAIN, MARKDOWN, CSV, JSON, SOURCE, FAULT})

log = logging.getLogger(__name__)


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
        self._reader: Child | None = None  # of small texts
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
                child = Child(await self._running(), self._slots)
                try:
                    async for window in child.windows(job):
                        fresh = [chunk for chunk in window if chunk.index >= done]
                        if fresh:
                            yield fresh
                            done = fresh[-1].index + 1
                finally:
                    await child.close()
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

        None: it ended before this one's turn was over, or failed at it; the job then gets a child
        of its own, so that whoever is to blame is alone, and no memory of earlier ones counts.
        """
        results: list[Result | None] = []
        if len(jobs) > 1:
            child = await self._text_reader()
            try:
                async for result in child.results(jobs):
                    results.append(None if isinstance(result, DocumentFailed) else result)
                if len(results) == len(jobs) and None not in results and not self._closed:
                    self._reader = child
            except (DocumentFailed, Interrupted):
                pass
            finally:
                if self._reader is not child:
                    await child.close()
        return results + [None] * (len(jobs) - len(results))

    async def _text_reader(self) -> Child:
        """The child that read the last ones, while it lives and has not read enough."""
        child, self._reader = self._reader, None
        if child is not None:
            if not child.ended and child.given < CHILD_TEXTS:
                return child
            await child.close()
        return Child(await self._running(), self._slots)

    async def close(self) -> None:
        """End the zygote and its children. Safe to call twice."""
        self._closed = True
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
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
