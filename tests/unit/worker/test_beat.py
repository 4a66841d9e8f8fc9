"""Redis is away at a worker's heartbeat: it goes on, and is in the books again afterwards."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from unjam.app import run_worker
from unjam.core.errors import DependencyDown
from unjam.testing.wait import until
from unjam.worker.identity import process_identity


class Books:
    """The queue's books; *away*: Redis is."""

    def __init__(self) -> None:
        self.away, self.calls = True, list[str]()

    def _note(self, what: str) -> None:
        self.calls.append(what)
        if self.away:
            raise DependencyDown("away", code="queue_down")

    async def register_worker(self, name: str, lanes: object, pid: int) -> None:
        self._note("register")

    async def beat_worker(self, name: str) -> None:
        self._note("beat")

    async def unregister_worker(self, name: str) -> None:
        self._note("unregister")


@pytest.mark.parametrize("listed", [True, False])
async def test_a_heartbeat_without_redis(monkeypatch: pytest.MonkeyPatch, listed: bool) -> None:
    monkeypatch.setattr(run_worker, "BEAT_S", 0.01)
    books = Books()
    services = SimpleNamespace(queue=books)
    work = run_worker._beat(services, process_identity("worker"), ("rag_low",), listed)  # type: ignore[arg-type]
    beat = asyncio.create_task(work)

    async def calls() -> int:
        return len(books.calls)

    await until("several without an answer", calls, lambda n: n >= 3)
    assert not beat.done()
    books.away = False
    seen = len(books.calls)
    await until("and with one", calls, lambda n: n >= seen + 2)
    assert books.calls[-1] == "beat"
    books.away = True
    beat.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beat
    assert books.calls[-1] == "unregister"
