"""The whole system as a user runs it, for one measurement: ``unjam up`` on an empty data folder.

What its processes take is read from ``/proc``, by role: API, workers, parsing children, Chroma, …
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.chroma_wall import free_port
from bench.report import OUT
from unjam.testing.openai_process import FakeOpenAI

MODEL = "bench-embedding"
"""Not one of OpenAI's, whose dimensions are known: unjam would refuse another."""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
REST_WAIT_S, REST_LOOK_S, REST_SHARE = 20.0, 1.0, 0.15
"""A system is at rest when it took no more than this share of a core for a second."""

ROLES = (
    ("unjam api", "API"),
    ("unjam parse", "parsing"),
    ("rq worker", "workers"),
    ("unjam watchdog", "watchdog"),
    ("unjam spare", "spare"),
    ("unjam up", "supervisor"),
    ("valkey", "Valkey"),
    ("chroma", "Chroma"),
)


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without anybody's settings."""
    foreign = ("RAG_", "OPENAI_", "SLACK_", "LANGCHAIN_", "LANGSMITH_", "UNJAM_", "CHROMA_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    quiet = {
        "ANONYMIZED_TELEMETRY": "FALSE",
        "COCOINDEX_DISABLE_USAGE_TRACKING": "1",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "LANGSMITH_TRACING": "false",
        "NO_PROXY": "127.0.0.1",
    }
    return {**kept, **quiet, **(extra or {})}


@dataclass(frozen=True)
class Finished:
    """A command that ended well. *cpu_s*: its own and its children's."""

    wall_s: float
    cpu_s: float
    output: str


@dataclass(frozen=True)
class House:
    """A running system. *pid* is that of ``unjam up``."""

    url: str
    pid: int
    data_dir: Path
    env: Mapping[str, str]
    fake: FakeOpenAI
    endpoint_mode: str

    @property
    def chroma_url(self) -> str:
        return json.loads((self.data_dir / "house.json").read_text())["chroma_url"]

    @property
    def ledger_url(self) -> str:
        return f"sqlite:///{self.data_dir / 'ledger.db'}"

    def counts(self) -> dict[str, int]:
        return httpx.get(f"{self.url}/api/rag/ledger", timeout=60).json()

    def command(self, *arguments: str, limit_s: float = 600) -> Finished:
        """``unjam ARGUMENTS`` as a user runs it. Raises CalledProcessError."""
        with tempfile.TemporaryFile("w+") as out:
            started = time.perf_counter()
            child = self.begin(*arguments, stdout=out)
            watch = threading.Timer(limit_s, child.kill)
            watch.start()
            _, status, used = os.wait4(child.pid, 0)
            watch.cancel()
            wall_s = time.perf_counter() - started
            child.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            if child.returncode:
                raise subprocess.CalledProcessError(child.returncode, arguments)
            return Finished(wall_s, used.ru_utime + used.ru_stime, out.read())

    def begin(self, *arguments: str, stdout: Any = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """The same, not waited for."""
        return subprocess.Popen([PROGRAM, *arguments], env=self.env, stdout=stdout)

    def wait_searchable(self, documents: int, limit_s: float = 600) -> None:
        """Until so many are searchable. Raises when one is dead, or TimeoutError."""
        until = time.monotonic() + limit_s
        while True:
            counts = self.counts()
            if counts["searchable"] >= documents:
                return
            if counts["dead"] or time.monotonic() > until:
                raise TimeoutError(f"not everything is searchable: {counts}")
            time.sleep(0.05)

    def endpoint_pid(self) -> int:
        """The fake endpoint, a child of this process. Raises LookupError."""
        for pid, fields in _stats().items():
            if int(fields[1]) == os.getpid() and "openai_fake" in _command(pid):
                return pid
        raise LookupError("there is no endpoint")

    def processes(self) -> dict[int, str]:
        """Role of every process of the system."""
        parents: dict[int, list[int]] = {}
        for pid, fields in _stats().items():
            parents.setdefault(int(fields[1]), []).append(pid)
        found: dict[int, str] = {}
        line = [self.pid]
        while line:
            pid = line.pop()
            with contextlib.suppress(OSError):
                found[pid] = _role(pid)
            line += parents.get(pid, [])
        return found

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far by role; children that have ended count for who waited for them."""
        stats, used = _stats(), dict[str, float]()
        for pid, role in self.processes().items():
            if pid in stats:
                ticks = sum(int(x) for x in stats[pid][11:15])
                used[role] = used.get(role, 0.0) + ticks * TICK_S
        return used

    def pss_mib(self) -> dict[str, float]:
        """Proportional memory by role: shared pages are divided by who shares them."""
        used: dict[str, float] = {}
        for pid, role in self.processes().items():
            with contextlib.suppress(OSError, IndexError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                kib = int(rollup.partition("\nPss:")[2].split()[0])
                used[role] = used.get(role, 0.0) + kib / 1024
        return used


PROGRAM = str(Path(sys.executable).with_name("unjam"))


@contextlib.contextmanager
def house(
    *,
    workers: int = 2,
    latency_ms: float = 0.0,
    dimension: int = 384,
    settings: Mapping[str, str] | None = None,
    endpoint: FakeOpenAI | None = None,
    endpoint_mode: str = "latent",
) -> Iterator[House]:
    """``unjam up`` with its shipped defaults, but for the endpoint (one of its own, unless given)
    and *settings*; ready and at rest."""
    OUT.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started is ended
    folder = Path(tempfile.mkdtemp(prefix="unjam-bench-"))
    port = free_port()
    with contextlib.ExitStack() as stack:
        fake = endpoint or stack.enter_context(
            FakeOpenAI(latency_ms=latency_ms, dimension=dimension, mode=endpoint_mode)
        )
        env = clean_env(
            {
                "RAG_DATA_DIR": str(folder / "data"),
                "OPENAI_BASE_URL": fake.url,
                "OPENAI_API_KEY": "bench",
                "RAG_EMBEDDING_MODEL": MODEL,
                "RAG_EMBEDDING_RATE_LIMIT": "1000000",
                "UNJAM_URL": f"http://127.0.0.1:{port}",
                **(settings or {}),
            }
        )
        command = [PROGRAM, "up", f"--workers={workers}", f"--port={port}"]
        with (OUT / "unjam-up.log").open("w") as log:
            up = subprocess.Popen(
                [*command, f"--dashboard-port={free_port()}"],
                env=env, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            _wait_ready(env["UNJAM_URL"], up)
            ours = House(env["UNJAM_URL"], up.pid, folder / "data", env, fake, endpoint_mode)
            _wait_rest(ours)
            yield ours
        finally:
            _stop(up)
            shutil.rmtree(folder, ignore_errors=True)


def _wait_ready(url: str, up: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until and up.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/readyz").is_success:
                return
        time.sleep(0.1)
    raise RuntimeError(f"unjam up did not become ready; see {OUT / 'unjam-up.log'}")


def _wait_rest(ours: House) -> None:
    """Until it has begun: it serves while its spare worker and parsers still import. Rivals have
    imported before they are timed, too."""
    until = time.monotonic() + REST_WAIT_S
    before = sum(ours.cpu_s().values())
    while time.monotonic() < until:
        time.sleep(REST_LOOK_S)
        now = sum(ours.cpu_s().values())
        if now - before < REST_SHARE * REST_LOOK_S:
            return
        before = now


def _stop(up: subprocess.Popen[bytes]) -> None:
    """Ask it to drain; after 30 s end what is left of it."""
    up.send_signal(signal.SIGTERM)
    try:
        up.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(up.pid, signal.SIGKILL)
        up.wait()


def _role(pid: int) -> str:
    line = _command(pid)
    return next((role for mark, role in ROLES if mark in line), "other")


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _stats() -> dict[int, list[str]]:
    """``/proc/PID/stat`` after the name: state, parent, …"""
    found: dict[int, list[str]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found[int(stat.parent.name)] = stat.read_text().rpartition(")")[2].split()
    return found


# -- load -----------------------------------------------------------------------------------
def upload_all(url: str, files: Sequence[Path], connections: int) -> None:
    """Single uploads, so many at a time, each its own request; with a client as lean as there is,
    since it shares the cores with what is measured. Raises RuntimeError at a refusal."""
    place, left = httpx.URL(url), iter(files)
    taking = threading.Lock()

    def take() -> Path | None:
        with taking:
            return next(left, None)

    def send() -> None:
        link = http.client.HTTPConnection(place.host, place.port or 80, timeout=120)
        with contextlib.closing(link):
            while (path := take()) is not None:
                body = _form(path)
                while (refusal := _post(link, body)) is not None:
                    time.sleep(refusal)

    with ThreadPoolExecutor(connections) as pool:
        for end in [pool.submit(send) for _ in range(connections)]:
            end.result()


_EDGE = "unjam-bench-edge"


def _form(path: Path) -> bytes:
    head = f'--{_EDGE}\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n'
    return f"{head}\r\n".encode() + path.read_bytes() + f"\r\n--{_EDGE}--\r\n".encode()


def _post(link: http.client.HTTPConnection, body: bytes) -> float | None:
    """None, or seconds after which to try again: a backlog's 429 is waited out."""
    kind = {"Content-Type": f"multipart/form-data; boundary={_EDGE}"}
    link.request("POST", "/api/rag/documents", body, kind)
    answer = link.getresponse()
    text = answer.read()
    if answer.status == 429:
        return float(answer.getheader("retry-after", "1"))
    if answer.status >= 300:
        raise RuntimeError(f"{answer.status}: {text[:500]!r}")
    return None


async def upload(client: httpx.AsyncClient, name: str, data: bytes) -> None:
    """One upload; a backlog's 429 is waited out. Raises HTTPStatusError for any other refusal."""
    while True:
        answer = await client.post("/api/rag/documents", files={"file": (name, data)})
        if answer.status_code != 429:
            answer.raise_for_status()
            return
        await asyncio.sleep(float(answer.headers.get("retry-after", "1")))


@dataclass
class Peak:
    """The largest sum seen, and its parts at that moment."""

    total: float = 0.0
    parts: dict[str, float] = field(default_factory=dict[str, float])
    samples: int = 0


@contextlib.contextmanager
def sampled(probe: Callable[[], dict[str, float]], every_s: float = 0.2) -> Iterator[Peak]:
    """Calls *probe* again and again beside the block."""
    peak, stop = Peak(), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            parts = probe()
            peak.samples += 1
            if sum(parts.values()) > peak.total:
                peak.total, peak.parts = sum(parts.values()), parts
            stop.wait(every_s)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
