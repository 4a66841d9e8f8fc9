"""A process that starts before its database is there waits for it, and hears that it should end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.fixtures.chroma import free_port
from tests.fixtures.deployed import tool
from unjam.testing.wait import until

pytestmark = pytest.mark.thorough
OURS = re.compile("^(RAG|OPENAI|SLACK|UNJAM|ADMIN)_")


@asynccontextmanager
async def relayed(port: int, pg_url: str) -> AsyncIterator[None]:
    """PostgreSQL on *port* of this machine, wherever the server really listens."""
    parts = urlsplit(pg_url)
    folder = parse_qs(parts.query).get("host", [""])[0]

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if folder:
            there = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{parts.port or 5432}")
        else:
            there = await asyncio.open_connection(parts.hostname, parts.port or 5432)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


class Parts:
    def __init__(self, folder: Path, pg_url: str, redis_url: str, chroma_url: str) -> None:
        self.folder, self.pg_url = folder, pg_url
        self.pg_port, self.port = free_port(), free_port()
        parts = urlsplit(pg_url)
        self._env = {
            **{k: v for k, v in os.environ.items() if not OURS.match(k)},
            "RAG_DATA_DIR": str(folder / "data"),
            "RAG_DATABASE_URL": f"postgresql://{parts.username}@127.0.0.1:{self.pg_port}"
            f"{parts.path}",
            "RAG_REDIS_URL": redis_url,
            "RAG_CHROMA_URL": chroma_url,
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *more: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [tool("unjam"), name, *more],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def told(self, name: str, words: str) -> bool:
        log = (self.folder / f"{name}.log").read_text(errors="replace")
        assert self.running[name].poll() is None, log
        return words in log

    async def ended(self, name: str) -> int:
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(process.wait, 30)


@pytest.fixture
def parts(tmp_path: Path, pg_url: str, redis_url: str, chroma_url: str) -> Iterator[Parts]:
    made = Parts(tmp_path, pg_url, redis_url, chroma_url)
    yield made
    for process in made.running.values():
        process.kill()
        process.wait()


@pytest.mark.timeout(240)
async def test_parts_that_start_before_the_database_wait_for_it(parts: Parts) -> None:
    parts.start("worker")
    parts.start("watchdog")
    parts.start("api", "--port", str(parts.port), "--dashboard-port", "0")
    for name in parts.running:
        await until("it says why", lambda n=name: parts.told(n, "ledger cannot be"), deadline_s=60)
    # One that is told to end does so at once, and not by a signal's death.
    assert await parts.ended("watchdog") == 0

    async def ready() -> bool:
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{parts.port}") as http:
                return (await http.get("/readyz")).status_code == 200
        except httpx.HTTPError:
            return False

    async with relayed(parts.pg_port, parts.pg_url):
        await until("the API answers and the worker lives", ready, deadline_s=60)
        assert {n: await parts.ended(n) for n in ("api", "worker")} == {"api": 0, "worker": 0}
