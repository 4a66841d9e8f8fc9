"""Our end of one parsing child: from its fork to its last result."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from unjam.core.chunk import Chunk
from unjam.core.errors import DocumentFailed, UnjamError
from unjam.core.ports import ParseJob
from unjam.pipeline.verdict import Interrupted, fault_of, limits, verdict
from unjam.pipeline.zygote import CHUNKS, FRAME_HEAD, JOBS, encode_frame, encode_job
from unjam.pipeline.zygote_client import Zygote

_EXIT_S = 10.0
_LAST_WORD_S = 1.0
_MAX_FRAME_BYTES = 64 << 20
_BUFFER_BYTES = 256 << 10

Result = list[list[Chunk]] | UnjamError
"""Windows of chunks, or what ended the document."""


class Child:
    """Either ``windows`` of one document, or ``results`` of several, any number of times."""

    def __init__(self, zygote: Zygote, slots: asyncio.Semaphore) -> None:
        self._zygote = zygote
        self._slots = slots
        self._id, self._exit = zygote.enlist()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._wall_s = 0.0
        self._over = False
        self.given = 0
        """Documents that it has read."""

    @property
    def ended(self) -> bool:
        return self._exit.done()

    async def windows(self, job: ParseJob) -> AsyncIterator[list[Chunk]]:
        """Of the one document that it is for, as they come.

        Raises DocumentRejected, DocumentFailed, Interrupted and whatever else ``verdict`` says.
        """
        self._wall_s = job.wall_s
        while True:
            async with self._slots:
                reader = self._reader or await self._start([job], stay=False)
                frame = await self._frame(reader, job)
            if frame is None:
                raise await self._verdict(job)
            kind, value = frame
            if kind != CHUNKS:
                self._over = True
                if value["kind"] != "ok":
                    raise fault_of(value, job, await self._evidence(job))
                return
            yield [Chunk(*row) for row in value]

    async def results(self, jobs: Sequence[ParseJob]) -> AsyncIterator[Result]:
        """One a job, in order, until the child ends. It stays for further ones.

        Raises DocumentFailed, Interrupted.
        """
        windows: list[list[Chunk]] = []
        left = list(reversed(jobs))
        self._wall_s = jobs[0].wall_s
        async with self._slots:
            if self._reader is None:
                reader = await self._start(jobs, stay=True)
            else:
                reader = self._reader
                self._send_further(jobs)
            while left and (frame := await self._frame(reader, left[-1])) is not None:
                kind, value = frame
                if kind == CHUNKS:
                    windows.append([Chunk(*row) for row in value])
                    continue
                job = left.pop()
                self.given += 1
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

    async def _start(self, jobs: Sequence[ParseJob], *, stay: bool) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        with theirs:
            work = [encode_job(job) for job in jobs]
            try:
                await self._zygote.send(
                    {"id": self._id, "jobs": work, "stay": stay}, theirs.fileno()
                )
            except BaseException:
                ours.close()
                raise
        self._reader, self._writer = await asyncio.open_unix_connection(
            sock=ours, limit=_BUFFER_BYTES
        )
        return self._reader

    def _send_further(self, jobs: Sequence[ParseJob]) -> None:
        assert self._writer is not None
        self._writer.write(encode_frame(JOBS, [encode_job(job) for job in jobs]))

    async def _frame(self, reader: asyncio.StreamReader, job: ParseJob) -> tuple[int, Any] | None:
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
                f"Parsing took longer than {job.wall_s:g} s.",
                code="parser_timeout",
                evidence=await self._evidence(job),
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self._wall_s = max(0.001, self._wall_s - (loop.time() - began))
        return kind, orjson.loads(payload)

    async def _evidence(self, job: ParseJob) -> dict[str, Any]:
        """The end of a child that has spoken its last word, if it comes soon; else the limits."""
        try:
            ended = await asyncio.wait_for(asyncio.shield(self._exit), _LAST_WORD_S)
        except TimeoutError:
            return limits(job)
        return limits(job) if ended.gone else ended.evidence(job)

    async def _verdict(self, job: ParseJob) -> Exception:
        """Why the child ended without a result."""
        try:
            ended = await asyncio.wait_for(asyncio.shield(self._exit), _EXIT_S)
        except TimeoutError:  # its socket is closed, yet it lives: it is killed by `close`
            return DocumentFailed("The child closed its socket.", code="parser_crashed")
        self._over = True
        return verdict(ended, job)
