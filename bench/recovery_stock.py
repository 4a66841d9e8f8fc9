"""Stock RQ after the same kill: its worker and work horse die with a job, another worker starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis
from rq import Queue, Retry

from unjam.worker.embedded import free_port, valkey_binary

TUNED = ["--job-monitoring-interval", "5", "--worker-ttl", "15", "--maintenance-interval", "5"]
"""The shortest that its options sensibly allow; the lease's extra 60 s are fixed."""


def job(folder: str) -> None:
    """Tells its run by a file, and then works for long the first time."""
    runs = len(list(Path(folder).glob("run-*")))
    Path(folder, f"run-{runs}").touch()
    if runs == 0:
        time.sleep(3600)


def stock_rq(limit_s: float) -> dict[str, float | str]:
    """Seconds from the kill to the job's second run, or that it did not come within *limit_s*."""
    return {"defaults": _once([], limit_s), "tuned": _once(TUNED, limit_s)}


def _once(options: list[str], limit_s: float) -> float | str:
    folder = Path(tempfile.mkdtemp(prefix="unjam-stock-"))
    port = free_port(0)
    server = subprocess.Popen(
        [
            valkey_binary(),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            folder,
        ],
        stdout=subprocess.DEVNULL,
    )
    url = f"redis://127.0.0.1:{port}/0"
    workers: list[subprocess.Popen[bytes]] = []
    try:
        client = redis.Redis.from_url(url)
        _wait(lambda: _answers(client), 10.0)
        Queue(connection=client).enqueue(job, str(folder), retry=Retry(max=3), job_timeout=7200)
        workers.append(_worker(url, options))
        _wait(lambda: (folder / "run-0").exists(), 30.0)
        killed = time.monotonic()
        for pid in (*_horses(workers[0].pid), workers[0].pid):
            os.kill(pid, signal.SIGKILL)
        workers[0].wait()
        workers.append(_worker(url, options))
        if not _wait(lambda: (folder / "run-1").exists(), limit_s):
            return f"not within {limit_s:.0f}"
        return round(time.monotonic() - killed, 1)
    finally:
        for worker in workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
        server.terminate()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _worker(url: str, options: list[str]) -> subprocess.Popen[bytes]:
    rq = Path(sys.executable).with_name("rq")
    return subprocess.Popen(
        [rq, "worker", "default", "--url", url, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


def _horses(parent: int) -> list[int]:
    """Children of *parent*, which leads a group of its own per horse."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _wait(probe: object, limit_s: float) -> bool:
    assert callable(probe)
    end = time.monotonic() + limit_s
    while not probe():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
