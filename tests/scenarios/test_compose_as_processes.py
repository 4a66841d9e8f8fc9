"""The commands of the compose file, with its variables and secrets, take a document in and find it.

Containers cannot be had everywhere; processes can. What compose would set is set: command, the
environment, the folder of secrets, the image's health check. Only names of hosts, ports and folders
differ, and PostgreSQL comes from a wheel.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.chroma import free_port
from tests.fixtures.deployed import DEPLOY, WORKER_DRAIN_S, composed, ran, tool
from unjam.testing.wait import until
from unjam.worker.embedded import valkey_binary

pytestmark = pytest.mark.thorough


class House:
    """The compose file's services as processes of this machine, each under its own name."""

    def __init__(self, folder: Path, pg_url: str) -> None:
        self.folder = folder
        self.model = composed(folder / "compose")
        self.secrets = folder / "compose" / "secrets"
        (self.secrets / "RAG_DATABASE_URL").write_text(pg_url)
        self.ports = {8002: free_port(), 9181: free_port(), 8000: free_port(), 6379: free_port()}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.url = f"http://127.0.0.1:{self.ports[8002]}"

    def _here(self, text: str) -> str:
        """The same, on this machine."""
        places = {
            "valkey:6379": f"127.0.0.1:{self.ports[6379]}",
            "api:8002": f"127.0.0.1:{self.ports[8002]}",
            "chroma:8000": f"127.0.0.1:{self.ports[8000]}",
            "/originals": str(self.folder / "originals"),
            "/run/secrets": str(self.secrets),
            "/tmp/unjam": str(self.folder / "run"),
        }
        for there, here in places.items():
            text = text.replace(there, here)
        return text

    def environment(self, name: str) -> dict[str, str]:
        given = self.model["services"][name].get("environment") or {}
        here = {k: self._here(str(v)) for k, v in given.items()}
        if "RAG_BEAT_FILE" in here:  # /tmp is each container's own
            here["RAG_BEAT_FILE"] += f".{name}"
        data = self.folder / ("vectors" if name == "chroma" else "data")
        return {
            "PATH": f"{Path(tool('python')).parent}:{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/root"),  # the model that stands there
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "LANG": "C.UTF-8",
            "RAG_DATA_DIR": str(data),
            **here,
        }

    def start(self, name: str, *more: str) -> None:
        command = [str(part) for part in self.model["services"][name]["command"]]
        if name == "valkey":
            command = [str(valkey_binary()), *command[1:], "--port", str(self.ports[6379])]
        if name == "chroma":
            command = [c.replace("/data", str(self.folder / "vectors")) for c in command]
            command = [str(self.ports[8000]) if c == "8000" else c for c in command]
        command[0] = tool(command[0]) if command[0] in ("unjam", "chroma") else command[0]
        self.folder.joinpath(name).mkdir(exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*command, *more],
                cwd=self.folder / name,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def healthy(self, name: str) -> bool:
        """The service's own check, or the image's."""
        check = self.model["services"][name].get("healthcheck", {}).get("test")
        if name == "valkey":
            argv = ["redis-cli", "-p", str(self.ports[6379]), *check[2:]]
        elif check:
            argv = [c.replace(":8000", f":{self.ports[8000]}") for c in check[1:]]
        else:
            argv = [str(DEPLOY / "container" / "unjam-healthy")]
            argv += [str(self.ports[8002])] if name == "api" else []
        argv[0] = tool(argv[0]) if argv[0] == "python" else argv[0]
        done = await asyncio.to_thread(ran, argv, env=self.environment(name))
        assert self.running[name].poll() is None, self.log(name)
        return done.returncode == 0

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    async def stopped(self, name: str) -> int:
        """As ``docker stop`` does; the exit code."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(process.wait, WORKER_DRAIN_S + 15)

    def end(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


@pytest.fixture
async def compose(tmp_path: Path, pg_url: str) -> AsyncIterator[House]:
    if shutil.which("redis-cli") is None:
        pytest.skip("redis-cli is not here: apt-get install redis-tools")
    house = House(tmp_path, pg_url)
    try:
        yield house
    finally:
        house.end()


@pytest.mark.timeout(240)
async def test_a_document_through_the_parts_of_the_compose_file(compose: House) -> None:
    servers, ours = ("valkey", "chroma"), ("api", "worker", "watchdog")
    ports = ["--port", str(compose.ports[8002]), "--dashboard-port", str(compose.ports[9181])]
    for name in servers:
        compose.start(name)
    for name in servers:
        await until(f"{name} is healthy", lambda n=name: compose.healthy(n), deadline_s=60)
    for name in ours:
        compose.start(name, *(ports if name == "api" else []))
    for name in ours:
        await until(f"{name} is healthy", lambda n=name: compose.healthy(n), deadline_s=60)

    token = (compose.secrets / "RAG_API_TOKEN").read_text().strip()
    async with httpx.AsyncClient(base_url=compose.url, timeout=30) as http:
        assert (await http.get("/api/rag/ledger")).status_code == 401
        http.headers["Authorization"] = f"Bearer {token}"

        async def seen(path: str) -> Any:
            answer = await http.get(path)
            return answer.json() if answer.status_code == 200 else None

        await until("it takes documents and works on them", lambda: seen("/readyz"), deadline_s=90)
        text = b"The cooling tower of the north plant was inspected in March."
        files = {"file": ("tower.txt", text)}
        answer = await http.post("/api/rag/documents", files=files)
        assert answer.status_code == 202, answer.text
        place = f"/api/rag/documents/{answer.json()['id']}"
        await until(
            "the document is searchable",
            lambda: seen(place),
            lambda document: document and document["state"] == "searchable",
            deadline_s=90,
        )
        found = await http.post("/api/rag/search", json={"query": "cooling tower", "k": 1})
        assert found.json()["hits"][0]["filename"] == "tower.txt"

        # What KEDA and Prometheus read, with the token that they are given.
        ledger = await seen("/api/rag/ledger")
        assert (ledger["queued"], ledger["running"], ledger["searchable"]) == (0, 0, 1)
        assert "rag_queue_length" in (await http.get("/metrics")).text

    # What the pages tell a person to type inside the container of the API.
    at_home = {**compose.environment("api"), "UNJAM_URL": compose.url}
    for said in ("status", "queue list", f"backup {compose.folder}/backup", "doctor"):
        done = await asyncio.to_thread(ran, [tool("unjam"), *said.split()], env=at_home)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (compose.folder / "backup" / "backup.json").is_file()

    assert {n: await compose.stopped(n) for n in ours} == dict.fromkeys(ours, 0)
    assert not list((compose.folder / "run").iterdir())  # no beat without a process
