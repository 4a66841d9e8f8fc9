"""A running house seen with the operators' tools: the runbook's greps, watch, capacity, alerts,
logs, the wrappers of crontabs, and promtool on what it exports."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures.promtool import PROMTOOL, needs_promtool
from tests.fixtures.stack import FAST
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.wait import until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
OURS = ("RAG_", "OPENAI_", "SLACK_", "UNJAM_", "ADMIN_")
COUNT = 30


def clean_environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    return {**kept, "PATH": f"{BIN}:{kept.get('PATH', '')}", "LANG": "C"}


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class House:
    """One ``unjam up`` in which thirty documents became searchable."""

    def __init__(self, folder: Path, openai_url: str) -> None:
        self.data, self.log = folder / "data", folder / "up.log"
        self.port, dashboard = free_ports(2)
        self.environment = {
            **clean_environment(),
            "RAG_DATA_DIR": str(self.data),
            "OPENAI_BASE_URL": openai_url,
            "OPENAI_API_KEY": "sk-tools",
            "RAG_EMBEDDING_MODEL": "fake-tools",
            **FAST,
        }
        ports = ["--port", str(self.port), "--dashboard-port", str(dashboard)]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [str(BIN / "unjam"), "up", "--workers", "2", *ports],
                env=self.environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    async def filled(self) -> House:
        url = f"http://127.0.0.1:{self.port}"
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:

            async def ready() -> bool:
                try:
                    return (await http.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            async def found() -> int:
                return int((await http.get("/api/rag/ledger")).json()["searchable"])

            await until("the house", ready, deadline_s=60)
            for n in range(COUNT):
                text = f"Pump {n} is serviced in week {n + 10}.".encode()
                answer = await http.post("/api/rag/documents", files={"file": (f"{n}.txt", text)})
                assert answer.status_code == 202
            await until("all searchable", found, lambda n: n == COUNT, deadline_s=60)
        return self

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command of an operator who knows nothing but the data folder."""
        env = {**clean_environment(), "RAG_DATA_DIR": str(self.data)}
        return subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=60
        )

    def shell(self, command: str) -> str:
        """A line of the runbook, its /var/log being the house's log folder."""
        done = self.run("bash", "-c", command.replace("/var/log", str(self.data / "logs")))
        assert done.stderr == "", done.stderr
        return done.stdout.strip()

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, fake_openai_process: FakeOpenAI
) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("tools"), fake_openai_process.url)
    try:
        yield asyncio.run(made.filled())
    finally:
        made.close()


def test_the_runbooks_greps_on_the_real_files(house: House) -> None:
    counts = house.shell('grep -c "Successfully processed" /var/log/rag-worker*.log')
    assert sum(int(line.rpartition(":")[2]) for line in counts.splitlines()) == COUNT
    assert len(counts.splitlines()) == 2  # rag-worker.log and rag-worker2.log
    errors = house.shell('grep -c "ERROR" /var/log/rag-worker*.log || true')
    assert {line.rpartition(":")[2] for line in errors.splitlines()} == {"0"}
    average = house.shell(
        "grep \"Processing time:\" /var/log/rag-worker*.log | tail -20 | awk '{print $NF}' | "
        'awk \'{sum+=$1; count++} END {print "Avg:", sum/count "ms"}\''
    )
    assert 0 < float(average.removeprefix("Avg:").removesuffix("ms")) < 60_000
    tail = house.shell(
        'tail -n 500 /var/log/rag-worker.log | grep -E "(ERROR|WARNING|started|finished)"'
    )
    assert "RAG worker started processing job" in tail and "finished" in tail


def test_logs_of_all_workers_as_one(house: House) -> None:
    done = house.run("unjam", "logs", "worker", "--grep", "successfully processed", "-n", "1000")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == COUNT
    assert [line.split()[1] for line in lines] == sorted(line.split()[1] for line in lines)


def test_a_healthy_house_raises_no_alert(house: House) -> None:
    done = house.run("unjam", "alerts", "--json")
    holding = [row["name"] for row in json.loads(done.stdout) if row["state"] == "holds"]
    assert (done.returncode, holding) == (0, [])


def test_watch_sees_two_workers_and_nothing_that_waits(house: House) -> None:
    done = house.run("unjam", "watch", "--once", "--json")
    view = json.loads(done.stdout)
    assert (done.returncode, view["reasons"], view["waiting"]) == (0, [], {})
    assert view["ledger"]["searchable"] == COUNT
    serving = [w for w in view["workers"] if w["live"] and w["kind"] == "worker"]
    assert len(serving) == 2


def test_capacity_of_what_was_seen(house: House) -> None:
    told = json.loads(house.run("unjam", "capacity", "--json", "--workers", "3").stdout)
    assert told["house"]["workers"] == 2 and told["house"]["key_groups"] == 1
    assert told["house"]["keys_ready"] == 1
    assert told["capability_per_s"] > 0
    assert sum(told["shares"].values()) == pytest.approx(1.0, abs=0.01)
    assert told["bottleneck"] in ("parse", "embed", "store")
    assert told["chunks_per_document"] == 1
    assert {w["workers"] for w in told["what_if"]} >= {2, 3, 4}


@pytest.mark.parametrize("wrapper", ["rag-capacity-stats.sh", "rag-queue-monitor.sh"])
def test_the_wrappers_of_old_crontabs_work(house: House, wrapper: str) -> None:
    done = house.run(str(ROOT / "deploy" / "bin" / wrapper))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@needs_promtool
def test_promtool_finds_nothing_in_what_is_exported(house: House) -> None:
    text = httpx.get(f"http://127.0.0.1:{house.port}/metrics", timeout=20).text
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert 'rag_jobs_completed_total{queue="rag_processing"} 30.0' in text
