"""A killed worker's place is taken by a process that has loaded everything already."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from unjam.core.document import State
from unjam.testing.embedded_stack import EmbeddedStack
from unjam.testing.wait import until, until_ended
from unjam.worker.identity import process_start


def shown(pid: int) -> str:
    return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()


async def test_the_spare_becomes_the_worker_and_another_one_loads(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path / "data", workers=1) as stack:
        await until("the system is up", stack.processes_ready, deadline_s=60)
        supervisor = stack.supervisor

        async def spare() -> int:
            kept = supervisor._spares
            return kept.child.pid if kept and kept.child and kept.child.alive() else 0

        waiting = await until("a spare waits", spare, deadline_s=30)
        start = process_start(waiting)

        async def titled() -> str:
            return shown(waiting)

        # `pkill -f "rq worker"` must not meet it while it waits.
        title = await until("it has its title", titled, lambda t: t.startswith("unjam spare"))
        assert "rq worker" not in title
        stack.hit("worker-1", signal.SIGKILL)
        killed = time.monotonic()

        async def worker() -> int:
            return supervisor.pids()["worker-1"]

        await until("it took the place", worker, lambda pid: pid == waiting, deadline_s=10)
        document_id = await stack.stack.add("The crane is oiled in May.")
        ended = await until_ended(stack.services.ledger, [document_id], deadline_s=30)
        assert ended[document_id].state is State.SEARCHABLE
        took_s = time.monotonic() - killed
        assert process_start(waiting) == start
        assert shown(waiting).startswith("rq worker rag_processing")
        assert "Worker listens" in stack.log("worker-1")

        async def another() -> int:
            pid = await spare()
            return pid if pid != waiting else 0

        second = await until("another spare waits", another, deadline_s=30)
        # One that dies while it waits is replaced, too, and costs nobody anything.
        supervisor._spares.child.signal(signal.SIGKILL)  # type: ignore[union-attr]
        third = await until("a third one", spare, lambda pid: pid not in (0, second), deadline_s=30)
        print(f"searchable {took_s:.2f} s after the kill")
    assert process_start(third) is None, "it outlived the supervisor's order to stop"
