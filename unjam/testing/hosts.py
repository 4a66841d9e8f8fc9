"""Hosts: several hosts on one machine and a system over all of them; to cut off, kill and restart.

Each host is a network, process and name space of its own and runs the ordinary ``unjam up``; the
servers (PostgreSQL, Valkey, Chroma, a fake embedding endpoint) are on a host beside them, each
under an address of its own, so that a host can be cut off from one of them alone. Originals are in
a folder that all share.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, LiteralString

import httpx

from unjam.app.services import Services, open_services
from unjam.settings import Settings
from unjam.testing.embedded_stack import QUICK
from unjam.testing.hosted_servers import Servers
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.switch import Switch
from unjam.testing.wait import until

TOKEN = "hosts-token"
UP_S = 120.0
STOP_S = 60.0
"""Drain of the API 20 s, then of the workers 25 s, at most."""

_BORN = 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"'
FIRST = 11
"""The last number of the first host's address."""


@dataclass
class Host:
    """One machine. ``unjam up`` is the first of its processes: when that is killed, the kernel
    kills all others with it."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    extra: Mapping[str, str] = field(default_factory=dict[str, str])  # variables of its own

    @property
    def url(self) -> str:
        return f"http://{self.address}:8002"

    @property
    def pid(self) -> int:
        """Of its ``unjam up``, as this machine counts."""
        assert self.process is not None
        outer = self.process.pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        return int(children[0])

    def log(self) -> str:
        return (self.folder / "up.log").read_text(errors="replace")[-3000:]


@dataclass
class Hosts:
    """``async with Hosts(folder, switch) as hosts``: all hosts are ready; nothing of them outlives
    the block.

    *workers*: of each host; *extra*: variables of all hosts; *own*: of single ones, by name.
    """

    folder: Path
    switch: Switch
    count: int = 3
    workers: int = 1
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    own: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    hosts: dict[str, Host] = field(default_factory=dict[str, Host])
    _closing: AsyncExitStack = field(default_factory=AsyncExitStack)
    _services: Services | None = None

    async def __aenter__(self) -> Hosts:
        try:
            self.servers = Servers(self.folder / "servers", self.switch)
            self._closing.callback(self.servers.end)
            await self.servers.start()
            self.endpoint = FakeOpenAI(
                host=self.servers.endpoint_address, inside=self.switch.inside("services")
            )
            self._closing.enter_context(self.endpoint)
            for n in range(1, self.count + 1):
                host = Host(f"h{n}", self.switch.address(FIRST + n - 1), self.folder / f"h{n}")
                host.folder.mkdir(parents=True)
                host.extra = self.own.get(host.name, {})
                self.switch.join(host.name, FIRST + n - 1)
                self.hosts[host.name] = host
            own = Settings(**self.environment(self.folder / "watching"))  # type: ignore[arg-type]
            self._services = await open_services(own, role="api")
            self._closing.push_async_callback(self._services.close)
            self._closing.callback(self._end)
            for name in self.hosts:
                self.start(name)
            await asyncio.gather(*(self.ready(name) for name in self.hosts))
        except BaseException:
            await self._closing.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._closing.aclose()

    def _end(self) -> None:
        for host in self.hosts.values():
            if host.process is not None and host.process.poll() is None:
                self.kill(host.name)

    # -- what a judge looks at ----------------------------------------------------------------
    @property
    def services(self) -> Services:
        """This process's own, from outside the hosts."""
        assert self._services is not None, "use `async with`"
        return self._services

    @property
    def chroma_url(self) -> str:
        return self.servers.chroma_url

    def environment(self, data: Path) -> dict[str, str]:
        """What the four shared things are, and the data folder of one host."""
        return {
            **QUICK,
            "RAG_DATABASE_URL": self.servers.ledger_url,
            "RAG_REDIS_URL": self.servers.redis_url,
            "RAG_CHROMA_URL": self.servers.chroma_url,
            "RAG_STORAGE_URL": f"file://{self.folder / 'originals'}",
            "OPENAI_BASE_URL": self.endpoint.url,
            "OPENAI_API_KEY": "sk-hosts",
            "RAG_API_TOKEN": TOKEN,
            "ADMIN_TOKEN": TOKEN,
            "RAG_DATA_DIR": str(data),
            **self.extra,
        }

    # -- verbs ----------------------------------------------------------------------------------
    def start(self, name: str) -> None:
        """Switch host *name* on."""
        host = self.hosts[name]
        host.starts += 1
        shut = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
        up = (sys.executable, "-m", "unjam.cli.main", "up", "--host", "0.0.0.0")
        born = ("sh", "-c", _BORN, name, *up, "--workers", str(self.workers))
        foreign = ("RAG_", "OPENAI_", "SLACK_", "UNJAM_", "ADMIN_TOKEN", "USE_API_KEY")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        with (host.folder / "up.log").open("ab") as log:
            host.process = subprocess.Popen(
                [*self.switch.inside(name), *shut, *born],
                env={**kept, **self.environment(host.folder / "data"), **host.extra},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ready(self, name: str, deadline_s: float = UP_S) -> None:
        """Documents are taken at *name*, and worked on by its own workers."""
        host = self.hosts[name]

        async def looks() -> str:
            assert host.process is not None
            assert host.process.poll() is None, f"{name} ended:\n{host.log()}"
            beats = await self.services.ledger.processes()
            here = {p.kind for p, age in beats if p.host.startswith(f"{name}-") and age < 5.0}
            if not {"worker", "watchdog"} <= here:
                return f"only {here} report\n{host.log()}"
            try:
                async with httpx.AsyncClient(timeout=2.0) as http:
                    answer = await http.get(f"{host.url}/readyz")
            except httpx.TransportError as error:
                return repr(error)
            return "" if answer.status_code == 200 else answer.text

        await until(
            f"{name} is ready", looks, lambda s: s == "", deadline_s=deadline_s, every_s=0.2
        )

    def kill(self, name: str) -> None:
        """SIGKILL of everything on *name* at once."""
        process = self.hosts[name].process
        assert process is not None
        process.kill()  # --kill-child: the first process goes with it, and all others with that
        process.wait()
        self._nobody_left(name)

    def _nobody_left(self, name: str) -> None:
        inside = self.switch.processes(name)
        end = time.monotonic() + 10.0
        while inside and time.monotonic() < end:
            time.sleep(0.01)
            inside = self.switch.processes(name)
        if inside:
            raise RuntimeError(f"processes {inside} of {name} outlived it")

    def pid_of(self, name: str, title: str) -> int:
        """Of the process *title* on host *name*, as this machine counts.

        Raises:
            ProcessLookupError: none has this title.
        """
        for pid in self.switch.processes(name):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if line.startswith(title):
                    return pid
        raise ProcessLookupError(f"nobody on {name} is {title!r}")

    def cut(self, name: str) -> None:
        """Pull its cable out; whoever waits for an answer waits on."""
        self.switch.cut(name)

    def heal(self, name: str) -> None:
        self.switch.heal(name)

    async def stop(self, name: str) -> int:
        """SIGTERM, as systemd and Kubernetes do: the exit code of its ``unjam up``."""
        host = self.hosts[name]
        assert host.process is not None
        os.kill(host.pid, signal.SIGTERM)
        return await asyncio.to_thread(host.process.wait, STOP_S)

    async def restart(self, name: str) -> None:
        """In order: stop, then start, then wait until it is ready.

        Raises:
            AssertionError: it did not stop by itself with 0.
        """
        code = await self.stop(name)
        assert code == 0, f"{name} ended with {code}:\n{self.hosts[name].log()}"
        self.start(name)
        await self.ready(name)

    async def leader(self, role: Literal["watchdog", "recovery"] = "watchdog") -> str:
        """The host whose watchdog leads now; "": none."""
        query: LiteralString = "SELECT holder FROM leaders WHERE role = '" + role + "'"
        id_ = await asyncio.to_thread(self.servers.asked, query)
        return next((name for name in self.hosts if id_.startswith(f"{name}-")), "")

    def urls(self, names: Sequence[str] = ()) -> list[str]:
        return [self.hosts[name].url for name in names or self.hosts]
