"""One ``unjam up`` on the runbook's own ports, and the runbook's text."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.runbook.ground import Ground, Said

T = TypeVar("T")
RUNBOOK = (Path(__file__).parent / "runbook.ko.md").read_text("utf-8")
FAKE = "http://127.0.0.1:8901/v1"
SLACK_PORT = 8902
LETTER = "PUMP"
SLACK = """\
import http.server, pathlib, sys
class Ear(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with pathlib.Path(sys.argv[1]).open("ab") as out:
            out.write(body + b"\\n")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Ear).serve_forever()
"""


def blocks() -> dict[str, str]:
    """The runbook's shell blocks by the heading above them; a second one has ``#2``."""
    found: dict[str, str] = {}
    heading = ""
    for match in re.finditer(r"^(#{2,3} [^\n]*)$|^```bash\n(.*?)^```", RUNBOOK, re.M | re.S):
        if match[1]:
            heading = match[1].lstrip("# ")
        else:
            found[heading if heading not in found else f"{heading} #2"] = match[2]
    return found


def block(start: str, number: int = 1) -> str:
    """The *number*-th shell block under the heading that begins with *start*, as printed."""
    named = [text for heading, text in blocks().items() if heading.startswith(start)]
    return named[number - 1]


def line(text: str, start: str) -> str:
    """The command of *text* that begins with *start*, with its continuation lines."""
    lines = text.splitlines()
    first = next(i for i, row in enumerate(lines) if row.strip().startswith(start))
    last = first
    while lines[last].rstrip().endswith(("\\", "|")) or _open(lines[first : last + 1]):
        last += 1
    return "\n".join(lines[first : last + 1])


def _open(rows: list[str]) -> bool:
    return "\n".join(rows).count("'") % 2 == 1


def corrected(text: str) -> str:
    """With the database that the queues are in."""
    return text.replace("redis-cli ", "redis-cli -n 5 ")


class House:
    """``unjam up`` with the fake embedding endpoint, and an operator's shell beside it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.up_log = ground.work / "up.log"
        self.slack = ground.work / "slack.jsonl"
        self.ids: list[str] = []
        self.workers: int | None = None
        # Ten past eleven in the evening, so that the day's line of 23:00 is due.
        now = time.gmtime()
        offset = (23 * 60 + 10 - now.tm_hour * 60 - now.tm_min) % (24 * 60)
        offset -= 24 * 60 if offset > 12 * 60 else 0
        sign = "-" if offset >= 0 else "+"
        ground.env["TZ"] = f"UNJ{sign}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"
        ground.env |= {"OPENAI_API_KEY": "sk-runbook", "OPENAI_BASE_URL": FAKE}

    def open(self) -> House:
        fake = "python -m unjam.testing.openai_fake --port 8901"
        ear = f"python -c '{SLACK}' {self.slack} {SLACK_PORT}"
        self.ground.start(f"exec {fake}", self.ground.work / "fake.log")
        self.ground.start(f"exec {ear}", self.ground.work / "ear.log")
        return self

    def serve(self, workers: int) -> House:
        """Be an ``unjam up`` with so many workers of its own."""
        if self.workers == workers:
            return self
        if self.workers is not None:
            assert self.stop() == 0
        logs = "/var/log" if self.ground.isolated else str(self.ground.logs)
        self.up = self.ground.start(
            f"exec unjam up --workers {workers}",
            self.up_log,
            {
                "RAG_LOG_DIR": logs,
                "RAG_EMBEDDING_MODEL": "text-embedding-ada-002",
                "SLACK_WEBHOOK_URL": f"http://127.0.0.1:{SLACK_PORT}/hook",
            },
        )
        self.workers = workers
        door = "readyz" if workers else "healthz"
        ask = f"curl -s -o /dev/null -w '%{{http_code}}' localhost:8002/{door}"
        until(lambda: self.sh(ask).out, lambda code: code == "200", "the house is ready")
        token = self.ground.home / ".local" / "share" / "unjam" / "admin-token"
        self.ground.env["ADMIN_TOKEN"] = token.read_text().strip()
        return self

    def stop(self) -> int:
        """SIGTERM, as systemd does it; the exit status of ``unjam up``."""
        self.workers = None
        return self.ground.terminate(self.up)

    def sh(self, text: str, **more: Any) -> Said:
        return self.ground.sh(text, **more)

    def json(self, text: str) -> Any:
        said = self.sh(text)
        assert said.out, said.err
        return json.loads(said.out)

    def add(self, count: int, *, padding_mb: float = 0, word: str = "") -> list[str]:
        """Add *count* documents; their ids, which the last look asks for again.

        *padding_mb*: of blanks, so that a large file holds little to embed.
        """
        folder = self.ground.work / f"batch{len(self.ids)}"
        folder.mkdir()
        for n in range(count):
            text = f"Pump {len(self.ids)}-{n} {word} is serviced in week {n}.\n"
            (folder / f"{n}.txt").write_text(text + " " * round(padding_mb * 1_048_576))
        forms = " ".join(f"-F file=@{folder}/{n}.txt" for n in range(count))
        answer = self.json(f"curl -s localhost:8002/api/rag/documents {forms}")
        ids = [item["id"] for item in answer.get("items", [answer])]
        self.ids += ids
        return ids

    def fake(self, **behaviour: Any) -> None:
        """Order the embedding endpoint's troubles."""
        body = json.dumps(behaviour)
        assert self.sh(f"curl -sf {FAKE[:-3]}/control -d '{body}'").code == 0

    def told(self) -> str:
        """What Slack received."""
        return self.slack.read_text() if self.slack.exists() else ""

    def pids(self, pattern: str) -> list[int]:
        return [int(pid) for pid in self.sh(f'pgrep -f "{pattern}"').out.split()]

    def states(self, ids: list[str]) -> list[str]:
        rows = self.json(
            f"curl -s 'localhost:8002/api/rag/documents?ids={','.join(ids)}&limit=200'"
        )
        return [row["state"] for row in rows["items"]]

    def searchable(self, ids: list[str], deadline_s: float = 60) -> None:
        until(
            lambda: self.states(ids),
            lambda found: set(found) == {"searchable"} and len(found) == len(ids),
            "all searchable",
            deadline_s,
        )

    def ledger(self) -> dict[str, int]:
        return self.json("curl -s localhost:8002/api/rag/ledger")

    def close(self) -> None:
        self.ground.close()


def until(
    ask: Callable[[], T], good: Callable[[T], object], what: str, deadline_s: float = 60
) -> T:
    """Ask until the answer is good, and return it."""
    deadline = time.monotonic() + deadline_s
    while not good(answer := ask()):
        assert time.monotonic() < deadline, f"{what}: {answer!r}"
        time.sleep(0.1)
    return answer
