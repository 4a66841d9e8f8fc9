"""Our end of the zygote: the process, its control socket, and who waits for which exit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from typing import Any

import orjson

from unjam.core.errors import DocumentFailed, WorkerUnfit
from unjam.pipeline.verdict import Exit, Interrupted
from unjam.pipeline.zygote import MESSAGE_BYTES

_START_S = 60.0
_EXIT_S = 10.0
_BOOT = "from unjam.pipeline.zygote import main; main()"
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "UNJAM_TESTING", "LD_LIBRARY_PATH")


class Zygote:
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
    async def start(python: str) -> Zygote:
        """Raises WorkerUnfit: no memory, no processes, or it ends while it starts."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise WorkerUnfit(f"The parser cannot be started: {error}") from None
        with theirs:
            ours.setblocking(False)
            try:
                # In the loop's own thread on purpose: PR_SET_PDEATHSIG watches the thread.
                process = subprocess.Popen(  # noqa: ASYNC220 - 2 ms, once
                    [python, "-c", _BOOT, str(os.getpid()), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=_environment(),
                    cwd="/",  # ours may be gone
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise WorkerUnfit(f"The parser cannot be started: {error}") from None
        zygote = Zygote(process, ours)
        try:
            await asyncio.wait_for(zygote._ready, _START_S)
        except TimeoutError:
            await zygote.close()
            raise WorkerUnfit(f"The parser did not get ready within {_START_S:.0f} s.") from None
        except WorkerUnfit as error:
            await zygote.close()
            raise WorkerUnfit(f"{error.detail} (exit status {process.returncode})") from None
        return zygote

    async def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        raw = orjson.dumps(message)
        if len(raw) > MESSAGE_BYTES:
            raise DocumentFailed(f"A parse job of {len(raw)} bytes is too long.")
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
                WorkerUnfit("The parsing parent ended while starting; its error output says why.")
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


def _environment() -> dict[str, str]:
    """What the zygote needs and no more: no keys or tokens beside foreign bytes."""
    paths: list[str] = []
    for path in filter(None, sys.path):
        with contextlib.suppress(OSError):  # relative to a folder that is gone
            paths.append(os.path.abspath(path))  # noqa: PTH100 - asks for the folder when it must
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
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
