"""``make demo``: the whole system on throw-away data, told as a story.

Real files become searchable through the real path, a worker is killed with -9 on the way, and the
ledger equation shows at the end that nothing was lost.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from unjam.client import Client

START_DEADLINE_S = 60.0
WORK_DEADLINE_S = 240.0
QUESTIONS = (
    (
        "English",
        "What is the maximum I can spend on a hotel room in Berlin?",
        "expense-rules.html",
    ),
    ("Korean", "배추는 소금에 몇 시간 동안 절이나요?", "김치-담그기.txt"),
    (
        "Korean question, English text",
        "배터리 보증 기간은 얼마나 되나요?",
        "warranty-terms.docx",
    ),
)
"""Kind, question, and the file that must be among the first three hits."""
FOREIGN = ("OPENAI_", "RAG_", "SLACK_", "ADMIN_TOKEN", "USE_API_KEY", "UNJAM_")


class DemoFailed(Exception):
    """What was promised did not happen; the message says what."""


def main() -> int:
    """0 when everything was seen to work."""
    console = Console(highlight=False)
    corpus = Path(__file__).resolve().parents[2] / "examples" / "corpus"
    home = Path(tempfile.mkdtemp(prefix="unjam-demo-"))
    try:
        with _system(home, console) as (process, url):
            _story(console, corpus, process, url)
        console.print("[bold]unjam up[/] drained and stopped in order. The demo is over.")
    except DemoFailed as failure:
        console.print(f"[bold red]The demo failed:[/] {failure}")
        console.print(f"Logs: {home}")
        return 2
    shutil.rmtree(home, ignore_errors=True)
    return 0


@contextlib.contextmanager
def _system(home: Path, console: Console) -> Generator[tuple[subprocess.Popen[bytes], str]]:
    port, dashboard = _free_port(), _free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    command = [
        *(sys.executable, "-m", "unjam.cli.main", "up", "--workers", "2"),
        *("--data-dir", str(home / "data"), "--port", str(port)),
        *("--dashboard-port", str(dashboard)),
    ]
    console.rule("[bold]1. Start")
    console.print(f"$ unjam up --workers 2 --data-dir {home / 'data'} --port {port} …")
    began = time.monotonic()
    with (home / "up.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _until_ready(process, url, home)
        console.print(f"Ready for documents after [bold]{time.monotonic() - began:.1f} s[/].")
        yield process, url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    if code != 0:
        raise DemoFailed(f"unjam up ended with exit code {code}, see {home / 'up.log'}")


def _story(console: Console, corpus: Path, up: subprocess.Popen[bytes], url: str) -> None:
    client = Client(url)
    files = sorted(p for p in corpus.iterdir() if p.is_file() and not p.name.startswith("."))
    if len(files) < 24:
        raise DemoFailed(f"only {len(files)} files in examples/corpus")
    console.rule("[bold]2. Upload")
    began = time.monotonic()
    names = {client.add(path, user_id="demo").id: path.name for path in files}
    kinds = ", ".join(sorted({p.suffix.lstrip(".").upper() for p in files}))
    console.print(
        f"{len(names)} files ({kinds}; English and Korean) accepted and on disk in "
        f"{time.monotonic() - began:.2f} s."
    )
    console.rule("[bold]3. Work, and a death on the way")
    _watch(console, client, up, len(names))
    ends = {doc_id: client.get(doc_id) for doc_id in names}
    bad = {names[i]: f"{d.state} ({d.reason})" for i, d in ends.items() if d.state != "searchable"}
    if bad:
        raise DemoFailed(f"not searchable: {bad}")
    console.print(
        f"All {len(names)} searchable, {sum(d.chunks for d in ends.values())} chunks, "
        f"{time.monotonic() - began:.1f} s after the first byte."
    )
    console.rule("[bold]4. Search")
    for label, question, expected in QUESTIONS:
        hits = client.search(question, k=3)
        if expected not in [hit.filename for hit in hits]:
            raise DemoFailed(f"{question!r} does not find {expected}")
        table = Table(title=f"{label}: {question}", title_justify="left", show_header=False)
        for hit in hits:
            place = hit.filename + (f", p. {hit.page}" if hit.page else "")
            table.add_row(f"{hit.score:.2f}", place, " ".join(hit.text.split())[:110] + "…")
        console.print(table)
    console.rule("[bold]5. Nothing lost")
    ledger = client.ledger()
    parts = [k for k in ledger if k != "accepted"]
    console.print(
        f"accepted {ledger['accepted']} = " + " + ".join(f"{k} {ledger[k]}" for k in parts)
    )
    if ledger["accepted"] != sum(ledger[k] for k in parts) or ledger["missing"]:
        raise DemoFailed("the ledger equation does not hold")
    console.rule("[bold]Where next")
    console.print("make up                       the same system on your own data folder")
    console.print("unjam add FOLDER --wait       your documents")
    console.print('unjam search "…"              ask them')
    console.print("docs/en/start.md              from here on (한국어: docs/ko/start.md)")


def _watch(console: Console, client: Client, up: subprocess.Popen[bytes], count: int) -> None:
    """Show progress; kill a worker once some documents are done and some are in flight."""
    killed: int | None = None
    deadline = time.monotonic() + WORK_DEADLINE_S
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("searchable", total=count)
        while True:
            ledger = client.ledger()
            progress.update(bar, completed=ledger["searchable"])
            if killed is None and ledger["running"] and ledger["searchable"] >= count // 6:
                killed = _worker_of(up)
                os.kill(killed, signal.SIGKILL)
                progress.console.print(
                    f"kill -9 {killed}  ← a worker; {ledger['running']} documents in work"
                )
            if ledger["searchable"] + ledger["dead"] >= count:
                break
            if time.monotonic() > deadline:
                raise DemoFailed(f"not done after {WORK_DEADLINE_S:.0f} s: {ledger}")
            if up.poll() is not None:
                raise DemoFailed(f"unjam up ended with exit code {up.returncode}")
            time.sleep(0.1)
    if killed is None:
        raise DemoFailed("the documents were done before a worker could be killed")
    died = [
        d
        for d in client.list(user_id="demo", limit=200)
        if any(e.kind == "worker_died" for e in client.events(d.id, follow=False))
    ]
    console.print(
        f"Worker {killed} died with -9; {len(died)} documents were taken up again by themselves."
    )


def _worker_of(up: subprocess.Popen[bytes]) -> int:
    """A worker process below *up*, by /proc."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == up.pid and b"rq worker" in (entry / "cmdline").read_bytes():
                return int(entry.name)
    raise DemoFailed("no worker process below `unjam up`")


def _until_ready(process: subprocess.Popen[bytes], url: str, home: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = (home / "up.log").read_text(errors="replace")[-1500:]
            raise DemoFailed(f"unjam up ended with exit code {process.returncode}:\n{tail}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return
        time.sleep(0.1)
    tail = (home / "up.log").read_text(errors="replace")[-1500:]
    raise DemoFailed(f"not ready after {START_DEADLINE_S:.0f} s:\n{tail}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
