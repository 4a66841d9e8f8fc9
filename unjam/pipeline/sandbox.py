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
  parse is done again, up to twice, and goes on behind the chunks that were given out already.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson

from unjam.core.chunk import Chunk
from unjam.core.errors import DocumentFailed, SetupError
from unjam.core.ports import ParseJob
from unjam.pipeline.verdict import Exit, Interrupted, limits, raise_result, verdict
from unjam.pipeline.zygote import CHUNKS, FRAME_HEAD, MESSAGE_BYTES, encode_job

_RETRIES = 2
_START_S = 60.0
_EXIT_S = 10.0
_LAST_WORD_S = 1.0
_MAX_FRAME_BYTES = 64 << 20
_BUFFER_BYTES = 256 << 10
_BOOT = "from unjam.pipeline.zygote import main; main()"
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "UNJAM_TESTING", "LD_LIBRARY_PATH")


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
        self._zygote: _Zygote | None = None
        self._closed = False

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
        cannot be read; SetupError when the child cannot be started or lacks its tokenizer.
        """
        done = 0  # chunks given out already: an interrupted parse goes on behind them
        for attempt in range(_RETRIES + 1):
            try:
                run = _Run(await self._running(), job, self._slots)
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
                if attempt == _RETRIES:
                    raise DocumentFailed(
                        f"The parse was interrupted {attempt + 1} times: {interruption}",
                        code="processing_error",
                        evidence=limits(job),
                    ) from None

    async def close(self) -> None:
        """End the zygote and its children. Safe to call twice."""
        self._closed = True
        async with self._starting:
            if self._zygote is not None:
                await self._zygote.close()
                self._zygote = None

    async def _running(self) -> _Zygote:
        async with self._starting:
            if self._closed:
                raise SetupError("The parser is closed.")
            if self._zygote is None or not self._zygote.alive:
                if self._zygote is not None:
                    await self._zygote.close()
                self._zygote = await _Zygote.start(self._python)
            return self._zygote


class _Zygote:
    """Our end of the zygote: the process, its control socket, and who waits for which exit."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.process = process
        self.threads = 0
        self.alive = True
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._exits: dict[int, asyncio.Future[Exit]] = {}
        self._next_id = 0
        self._loop.add_reader(control.fileno(), self._on_readable)

    @staticmethod
    async def start(python: str) -> _Zygote:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            try:
                # In the loop's own thread on purpose: PR_SET_PDEATHSIG watches the thread.
                process = subprocess.Popen(  # noqa: ASYNC220 - 2 ms, once
                    [python, "-c", _BOOT, "unjam parse", str(os.getpid()), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=_environment(),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise SetupError(f"The parser cannot be started: {error}") from None
        zygote = _Zygote(process, ours)
        try:
            await asyncio.wait_for(zygote._ready, _START_S)
        except TimeoutError:
            await zygote.close()
            raise SetupError(f"The parser did not get ready within {_START_S:.0f} s.") from None
        return zygote

    async def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        raw = orjson.dumps(message)
        if len(raw) > MESSAGE_BYTES:
            raise SetupError(f"A parse job of {len(raw)} bytes is too long.")
        while True:
            try:
                socket.send_fds(self._control, [raw], [] if descriptor is None else [descriptor])
                return
            except BlockingIOError:
                await asyncio.sleep(0.002)  # the zygote is busy forking
            except OSError as error:
                self._gone()
                raise Interrupted(f"the parsing parent is gone ({error})") from None

    def enlist(self) -> tuple[int, asyncio.Future[Exit]]:
        self._next_id += 1
        future: asyncio.Future[Exit] = self._loop.create_future()
        self._exits[self._next_id] = future
        return self._next_id, future

    def forget(self, number: int) -> None:
        self._exits.pop(number, None)

    async def close(self) -> None:
        self._gone()
        try:
            await asyncio.to_thread(self.process.wait, _EXIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)

    def _gone(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        if not self._ready.done():
            self._ready.set_exception(
                SetupError(
                    "The parsing child ended while starting.", hint="Its error output says why."
                )
            )
        for future in self._exits.values():
            if not future.done():
                future.set_result(Exit(gone=True))
        self._exits.clear()

    def _on_readable(self) -> None:
        while self.alive:
            try:
                raw = self._control.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                raw = b""
            if not raw:
                self._gone()
                return
            self._take(orjson.loads(raw))

    def _take(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.threads = message["threads"]
            if not self._ready.done():
                self._ready.set_result(None)
            return
        future = self._exits.pop(message["id"], None)
        if future is not None and not future.done():
            future.set_result(
                Exit(
                    message["signal"],
                    message["status"],
                    message["rss"],
                    message.get("cpu", 0.0),
                    message["err"],
                )
            )


class _Run:
    """One document's child, from fork to result."""

    def __init__(self, zygote: _Zygote, job: ParseJob, slots: asyncio.Semaphore) -> None:
        self._zygote = zygote
        self._job = job
        self._slots = slots
        self._id, self._exit = zygote.enlist()
        self._writer: asyncio.StreamWriter | None = None
        self._wall_s = job.wall_s
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
                    raise_result(value, self._job, await self._evidence())
                return
            yield [Chunk(*row) for row in value]

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
            message = {"id": self._id, "job": encode_job(self._job)}
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


def _environment() -> dict[str, str]:
    """What the zygote needs and no more: no keys or tokens beside foreign bytes."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONSAFEPATH": "1",
        "PYTHONUTF8": "1",
        # One thread each: nothing may start a pool before the fork.
        "TOKENIZERS_PARALLELISM": "false",
        "RAYON_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # A tokenizer's 300 MB of small pages would make each fork copy 75,000 table entries:
        # 15.5 ms, in huge pages 3.7 ms.
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
