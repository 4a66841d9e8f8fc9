"""The zygote: one single-threaded process with every parser loaded, which forks a child a document.

It speaks over one SEQPACKET socket, whose other end the `sandbox` holds:

- in: ``{"id", "jobs", "stay"}`` with one stream socket attached → fork; the child does the jobs one
  after the other and writes its frames there; with *stay* it then reads further lists of jobs;
- in: ``{"kill": id}``, ``{"warm": tokenizer}``;
- out: ``{"ready", "threads"}`` once, and ``{"id", "signal", "status", "rss", "err"}`` a child.

It must stay single-threaded: only the thread that forks lives on in the child, so a lock that
another one held would stay locked there for ever. It dies with its parent, its children with it.

Frames on a child's socket: 4 bytes length, 1 byte kind (``C`` chunks, ``R`` result, ``J`` further
jobs), JSON.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import gc
import importlib
import os
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import orjson

from unjam.core.chunk import Chunk
from unjam.core.errors import DependencyDown, DocumentFailed, DocumentRejected, SetupError
from unjam.core.ports import ParseJob
from unjam.pipeline.priority import step_behind
from unjam.pipeline.process_title import set_title

MESSAGE_BYTES = 131_072
FRAME_HEAD = struct.Struct("!IB")
CHUNKS, RESULT, JOBS = b"CRJ"
_NAME = b"unjam parse"
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 15, 38
_STDERR_TAIL = 2_000
_OPEN_FILES = 64
_JOB_FIELDS = tuple(field.name for field in fields(ParseJob))


@dataclass(slots=True)
class _Child:
    id: int
    stderr: int  # our end of a pipe


def encode_job(job: ParseJob) -> dict[str, Any]:
    return {**{name: getattr(job, name) for name in _JOB_FIELDS}, "path": str(job.path)}


def encode_chunk(chunk: Chunk) -> list[Any]:
    return [
        chunk.index, chunk.text, chunk.tokens, chunk.start, chunk.end, chunk.page, chunk.section
    ]  # fmt: skip


def main() -> None:
    """Entry point: ``argv`` ends with [parent's pid, descriptor of the control socket]."""
    parent, descriptor = int(sys.argv[-2]), int(sys.argv[-1])
    _bind_to(parent)
    set_title("unjam parse")
    step_behind()
    control = socket.socket(fileno=descriptor)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Orders to stop reach the worker, which closes the control socket when it is done.
        signal.signal(ignored, signal.SIG_IGN)
    _load()
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    control.send(orjson.dumps({"ready": os.getpid(), "threads": threads}))
    _Zygote(control).run()


def _bind_to(parent: int) -> None:
    """Die when *parent* does, and at once if that has happened already."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    libc.prctl(_PR_SET_NAME, _NAME, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _load() -> None:
    """Import what documents need, so that no child pays for it; then spare it from collection."""
    for name in ("cp949", "utf-16", "utf-8-sig"):
        codecs.lookup(name)
    for module in ("unjam.pipeline.job", "encodings.idna", "bpe_openai", "tokenizers"):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def _warm(tokenizer: str) -> None:
    from unjam.pipeline.tokens import token_counter

    with contextlib.suppress(SetupError):  # a child that needs it says so
        token_counter(tokenizer).count("Warm up. 준비 운동.")
        gc.freeze()


def _wake(_number: int, _frame: object) -> None:
    """SIGCHLD needs a handler for the wake-up descriptor to be written."""


class _Zygote:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, _Child] = {}  # by pid
        self._warmed: set[str] = set()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _wake)

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self._control, self._wake_read], [], [])
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
                self._reap()
            if self._control in ready and not self._serve():
                break
        for pid in self._children:
            _kill(pid)

    def _serve(self) -> bool:
        """One message; False when the other end is gone."""
        try:
            raw, sockets, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 1)
        except OSError:
            return False
        if not raw:
            return False
        message: dict[str, Any] = orjson.loads(raw)
        if "kill" in message:
            for pid, child in self._children.items():
                if child.id == message["kill"]:
                    _kill(pid)
        elif "warm" in message:
            self._prepare(message["warm"])
        else:
            self._fork(message["id"], message["jobs"], sockets[0], stay=message["stay"])
        return True

    def _prepare(self, tokenizer: str) -> None:
        if tokenizer not in self._warmed:
            self._warmed.add(tokenizer)
            _warm(tokenizer)

    def _fork(self, number: int, raw: list[dict[str, Any]], data: int, *, stay: bool) -> None:
        jobs = _decode_jobs(raw)
        for job in jobs:
            self._prepare(job.tokenizer)
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        me = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # no processes or memory left: the sandbox tries again
            self._report(number, {"status": -1, "signal": 0, "rss": 0, "err": str(error)})
            os.close(read_end)
        else:
            if pid == 0:
                _child(jobs, data, write_end, me, stay=stay)
            self._children[pid] = _Child(number, read_end)
        os.close(write_end)
        os.close(data)

    def _reap(self) -> None:
        while self._children:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is None:
                continue
            _kill(pid)  # what it may have left in its group
            with contextlib.suppress(BlockingIOError, OSError):
                err = os.read(child.stderr, 65_536)[-_STDERR_TAIL:].decode("utf-8", "replace")
                self._report(child.id, _exit_report(status, usage, err))
                os.close(child.stderr)
                continue
            self._report(child.id, _exit_report(status, usage, ""))
            os.close(child.stderr)

    def _report(self, number: int, report: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._control.send(orjson.dumps({"id": number, **report}))


def _exit_report(status: int, usage: resource.struct_rusage, err: str) -> dict[str, Any]:
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    cpu_s = usage.ru_utime + usage.ru_stime
    rss = usage.ru_maxrss * 1024
    return {"signal": ended_by, "status": code, "rss": rss, "cpu": cpu_s, "err": err}


def _kill(pid: int) -> None:
    """The child and whatever it started: it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# -- the child --------------------------------------------------------------------------------
def _child(
    jobs: Sequence[ParseJob], data: int, stderr: int, zygote: int, *, stay: bool
) -> NoReturn:
    """Everything after the fork. Leaves by `os._exit`: no clean-up of the zygote's may run here."""
    try:
        _confine(jobs[0], data, stderr, zygote)
        sock = socket.socket(fileno=data)
        sock.setblocking(True)
        while jobs:
            for job in jobs:
                _work(job, sock)
            jobs = _further(sock) if stay else ()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        os._exit(1)
    os._exit(0)


def _further(sock: socket.socket) -> Sequence[ParseJob]:
    """The next list of jobs; empty when the other end is closed."""
    head = sock.recv(FRAME_HEAD.size, socket.MSG_WAITALL)
    if len(head) < FRAME_HEAD.size:
        return ()
    length, _ = FRAME_HEAD.unpack(head)
    return _decode_jobs(orjson.loads(sock.recv(length, socket.MSG_WAITALL)))


def _decode_jobs(raw: list[dict[str, Any]]) -> Sequence[ParseJob]:
    return [ParseJob(path=Path(one.pop("path")), **one) for one in raw]


def _confine(job: ParseJob, data: int, stderr: int, zygote: int) -> None:
    os.setpgid(0, 0)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != zygote:
        os._exit(0)
    signal.set_wakeup_fd(-1)
    for restored in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD):
        signal.signal(restored, signal.SIG_DFL)
    os.dup2(stderr, 2)
    os.closerange(3, data)
    os.closerange(data + 1, 1024)
    cpu = max(1, int(job.cpu_s))
    for what, soft, hard in (
        (resource.RLIMIT_AS, address_space() + job.memory_bytes, None),
        (resource.RLIMIT_CPU, cpu, cpu + 2),
        (resource.RLIMIT_FSIZE, 0, None),
        (resource.RLIMIT_CORE, 0, None),
        (resource.RLIMIT_NOFILE, max(_OPEN_FILES, data + 16), None),
    ):
        _, ceiling = resource.getrlimit(what)
        top = hard or soft
        if ceiling != resource.RLIM_INFINITY:
            soft, top = min(soft, ceiling), min(top, ceiling)
        resource.setrlimit(what, (soft, top))


def address_space() -> int:
    """Bytes of address space that this process has now: the base of a child's cap."""
    with open("/proc/self/statm", "rb") as stream:  # noqa: PTH123 - on the hot path
        return int(stream.read().split()[0]) * resource.getpagesize()


def _work(job: ParseJob, sock: socket.socket) -> None:
    from unjam.pipeline.job import job_chunks

    result: dict[str, str] = {"kind": "ok"}
    try:
        for window in job_chunks(job):
            _send(sock, CHUNKS, [encode_chunk(chunk) for chunk in window])
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)  # nobody listens any more
    except (DocumentRejected, DocumentFailed, DependencyDown, SetupError) as error:
        result = {"kind": _kind_of(error), "code": error.code, "detail": error.detail}
    except MemoryError:
        result = {"kind": "failed", "code": "parser_memory", "detail": "MemoryError"}
    except OSError as error:
        if error.filename != str(job.path):
            raise
        result = {"kind": "down", "code": "blob_store_down", "detail": str(error)}
    except Exception as error:
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f" ({where.tb_frame.f_code.co_qualname}, line {where.tb_lineno})" if where else ""
        detail = f"{type(error).__name__}: {error}"[:800] + place
        os.write(2, traceback.format_exc().encode("utf-8", "replace")[-_STDERR_TAIL:])
        result = {"kind": "failed", "code": "parser_crashed", "detail": detail}
    _send(sock, RESULT, result)


def _kind_of(error: Exception) -> str:
    if isinstance(error, DocumentRejected):
        return "rejected"
    if isinstance(error, DocumentFailed):
        return "failed"
    return "setup" if isinstance(error, SetupError) else "down"


def encode_frame(kind: int, value: Any) -> bytes:
    payload = orjson.dumps(value)
    return FRAME_HEAD.pack(len(payload), kind) + payload


def _send(sock: socket.socket, kind: int, value: Any) -> None:
    sock.sendall(encode_frame(kind, value))


if __name__ == "__main__":
    main()
