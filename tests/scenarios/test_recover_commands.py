"""``recover``, ``verify`` and ``postmortem`` as a person runs them, with and without the API."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unjam.stores.ledger import SqlLedger
from unjam.testing.embedded_stack import EmbeddedStack
from unjam.testing.wait import until, until_ended

pytestmark = [pytest.mark.thorough, pytest.mark.slow]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run(stack: EmbeddedStack, *command: str) -> tuple[int, str]:
    """(Exit code, output) of ``unjam COMMAND…``."""
    process = stack.stack.start(*command)
    code = await process.ended(90)
    return code, process.output()


def body(text: str) -> Any:
    return json.loads(text[text.index("{") :])


async def test_the_on_call_persons_commands(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        await until("all up", stack.processes_ready, deadline_s=60)
        port = free_port()
        house = replace(stack.services.house(), api_url=f"http://127.0.0.1:{port}")
        house.write(stack.data_dir)
        api = stack.stack.start("api", "--port", str(port), "--dashboard-port", "0")

        async def answers() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            return True

        await until("the API", answers, deadline_s=30)
        await until_ended(stack.services.ledger, [await stack.stack.add("first", "first.txt")])

        code, text = await run(stack, "verify", "--now", "--json")
        found = {c["check"]: c["level"] for c in body(text)["checks"]}
        assert found["canary"] == found["equation"] == found["workers"] == "ok", text
        assert code == {"ok": 0, "warning": 1}[body(text)["verdict"]], text
        assert set(found) >= {"queue_shrinks", "work_starts", "memory", "throughput"}

        code, text = await run(stack, "recover", "--plan", "--json")
        assert code == 0 and body(text)["plans"] == [], text
        code, text = await run(stack, "postmortem")
        assert code != 0 and "no incident" in text

        code, _ = await run(stack, "recover", "--pause")
        book = stack.services.ledger
        assert isinstance(book, SqlLedger)
        assert code == 0 and await book.remedies_paused()
        stack.hit("worker-1", signal.SIGSTOP)

        async def noticed() -> int:
            return len((await book.incidents(open_only=True)).items)

        await until("noticed", noticed, deadline_s=20)
        code, text = await run(stack, "recover", "--plan", "--json")
        (plan,) = [p for p in body(text)["plans"] if p["cause"] == "workers_hung"]
        assert code == 1 and (plan["next"], plan["remedy"]) == ("act", "restart_worker")
        code, text = await run(stack, "recover", "--json")
        assert body(text)["paused"] is True
        assert not any(
            a["outcome"] == "asked" for i in body(text)["incidents"] for a in i["actions"]
        )

        api.popen.kill()
        await api.ended()
        code, _ = await run(stack, "recover", "--resume")  # the ledger itself: nobody answers
        assert code == 0 and not await book.remedies_paused()
        code, text = await run(stack, "recover", "--json")
        # The watchdog may have been faster.
        assert "working on the ledger itself" in text and code in (0, 1), text

        async def closed() -> int:
            return len((await book.incidents(open_only=True)).items)

        await until("repaired", closed, lambda n: n == 0, deadline_s=60)
        code, text = await run(stack, "postmortem", "--lang", "ko", "-o", str(tmp_path / "r.md"))
        assert code == 0, text
        report = (tmp_path / "r.md").read_text()
        assert "`stagnation_start_time`" in report and "restart_worker" in report
        code, text = await run(stack, "postmortem", "--format", "html")
        assert code == 0 and "<svg" in text
        code, text = await run(stack, "verify", "--now")
        assert code == 3 and "could not tell" in text  # no API: nobody can tell about the canary
