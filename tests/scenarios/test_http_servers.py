"""Fault: large bodies, a SIGTERM in the middle, taken ports. In a server process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from unjam.testing.wait import until

ROOT = Path(__file__).resolve().parents[2]
MIB = 1_048_576


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@dataclass
class Server:
    process: asyncio.subprocess.Process
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def peak_bytes(self) -> int:
        """Largest resident set so far."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")


@contextlib.asynccontextmanager
async def serving(folder: Path, port: int | None = None) -> AsyncIterator[Server]:
    port = port or free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fixtures.web", str(folder), str(port)),
        cwd=ROOT,
        env={**os.environ, "RAG_MAX_UPLOAD_MB": "512"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"ready\n", await _said(process)
        yield Server(process, port, folder)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def accepted(server: Server) -> int:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        return (await http.get("/api/rag/ledger")).json()["accepted"]


async def _said(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    return (await process.stderr.read()).decode()


async def test_200_mb_pass_in_bounded_memory(tmp_path: Path) -> None:
    block = os.urandom(MIB)
    boundary = "b0undary"
    sha = hashlib.sha256()

    async def body() -> AsyncIterator[bytes]:
        head = 'Content-Disposition: form-data; name="file"; filename="large.bin"'
        yield f"--{boundary}\r\n{head}\r\n\r\n".encode()
        for _ in range(200):
            sha.update(block)
            yield block
        yield f"\r\n--{boundary}--\r\n".encode()

    async with serving(tmp_path / "data") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
            warm = await http.post("/api/rag/documents", files=[("file", ("w", block))])
            assert warm.status_code == 202
            before = server.peak_bytes()
            answer = await http.post(
                "/api/rag/documents",
                content=body(),
                headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
            )
        assert answer.status_code == 202, answer.text
        assert answer.json()["size_bytes"] == 200 * MIB
        grown = server.peak_bytes() - before
        assert grown < 32 * MIB, f"{grown / MIB:.0f} MiB more for 200 MiB"
    digest = sha.hexdigest()
    stored = tmp_path / "data" / "blobs" / digest[:2] / digest[2:4] / digest
    assert stored.stat().st_size == 200 * MIB


async def test_sigterm_answers_what_is_under_way_and_ends_streams(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            added = await http.post("/api/rag/documents", files=[("file", ("a", b"x"))])
            document_id = added.json()["id"]
            release = asyncio.Event()
            head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="s"\r\n\r\n'

            async def slowly() -> AsyncIterator[bytes]:
                yield head + b"the first half, "
                await release.wait()
                yield b"the second\r\n--b--\r\n"

            upload = asyncio.create_task(
                http.post(
                    "/api/rag/documents",
                    content=slowly(),
                    headers={"Content-Type": "multipart/form-data; boundary=b"},
                )
            )
            path = f"/api/rag/documents/{document_id}/events"
            async with http.stream("GET", path) as stream:
                lines = stream.aiter_lines()
                async for line in lines:
                    if line == "event: progress":
                        break
                server.process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(10):
                    assert [line async for line in lines][-1] == ""
            release.set()
            answer = await upload
            assert answer.status_code == 202, answer.text
        async with asyncio.timeout(15):
            assert await server.process.wait() == 0
    async with serving(tmp_path / "data", server.port) as server:
        assert await accepted(server) == 2


async def test_sigterm_answers_who_had_asked_before_it(tmp_path: Path) -> None:
    """Also those that the process did not get round to accept: nobody is cut off unanswered."""
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="s"\r\n\r\n'
        b"bytes of %d\r\n--b--\r\n"
    )
    head = (
        b"POST /api/rag/documents HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    async with serving(tmp_path / "data") as server:
        kept = await asyncio.open_connection("127.0.0.1", server.port)
        kept[1].write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in await kept[0].readline()
        server.process.send_signal(signal.SIGSTOP)
        asked = [kept] + [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(9)]
        for n, (_, writer) in enumerate(asked):
            form = body % n
            writer.write(head % len(form) + form)
            await writer.drain()
        await asyncio.sleep(
            0.3
        )  # all timers of the server's loop are overdue, as on a busy machine
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(30):
            answers = [await reader.read() for reader, _ in asked]  # each to its end
            assert await server.process.wait() == 0
        for answer in answers:
            assert b"HTTP/1.1 202 Accepted" in answer, answer
            assert b"connection: close" in answer
        for _, writer in asked:
            writer.close()
    async with serving(tmp_path / "data", server.port) as server:
        assert await accepted(server) == 10


async def test_an_upload_cut_by_kill_9_is_not_accepted(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = (
            b"POST /api/rag/documents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="s"\r\n\r\n'
        ) + b"half" * 100_000
        writer.write(head)
        await writer.drain()
        uploads = server.folder / "blobs" / "tmp"

        async def begun() -> list[Path]:
            return list(uploads.glob("up-*"))

        await until("the upload has begun", begun)
        server.process.kill()
        await server.process.wait()
        writer.close()
    async with serving(tmp_path / "data") as server:
        assert await accepted(server) == 0


async def test_a_taken_port_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.fixtures.web", str(tmp_path / "data"), str(port)),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            _, said = await process.communicate()
    assert process.returncode != 0
    assert f"127.0.0.1:{port}" in said.decode()
    assert not (tmp_path / "data" / "ledger.db").exists()


@pytest.mark.parametrize("count", [200])
async def test_many_connections_at_once(tmp_path: Path, count: int) -> None:
    async with serving(tmp_path / "data") as server:
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as http:
            answers = await asyncio.gather(
                *(
                    http.post("/api/rag/documents", files=[("file", (f"{n}", f"{n}".encode()))])
                    for n in range(count)
                )
            )
            assert {a.status_code for a in answers} == {202}
            assert (await http.get("/api/rag/ledger")).json()["accepted"] == count
