"""kill -9 in the middle of group commits: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.fixtures.ledger import submission
from unjam.stores.ledger import SqlLedger

_spawn = multiprocessing.get_context("spawn")


def _accept_for_ever(url: str, pipe: Connection) -> None:
    async def lane(ledger: SqlLedger, number: int) -> None:
        n = number
        while True:
            (answer,) = await ledger.accept([submission(n)])
            os.write(pipe.fileno(), f"{answer.document_id}\n".encode())  # the acknowledgement
            n += 20

    async def run() -> None:
        ledger = await SqlLedger.open(url)
        await asyncio.gather(*(lane(ledger, k) for k in range(1, 21)))

    asyncio.run(run())


@pytest.mark.parametrize("after", [1, 57, 300])
async def test_no_acknowledged_document_is_lost(ledger_url: str, after: int) -> None:
    ours, theirs = _spawn.Pipe(duplex=False)
    child = _spawn.Process(target=_accept_for_ever, args=(ledger_url, theirs), daemon=True)
    child.start()
    theirs.close()
    assert child.pid is not None
    text = b""
    while text.count(b"\n") < after:
        text += os.read(ours.fileno(), 65_536)
    os.kill(child.pid, signal.SIGKILL)
    child.join(10)
    while block := os.read(ours.fileno(), 65_536):
        text += block
    acknowledged = text.decode().split("\n")[:-1]
    ledger = await SqlLedger.open(ledger_url)
    try:
        for document_id in acknowledged:
            assert await ledger.get(document_id) is not None
        equation = await ledger.equation()
        assert equation.missing == 0
        assert equation.accepted == equation.queued >= len(acknowledged) >= after
        # and it goes on
        assert len(await ledger.accept([submission(10_000_000)])) == 1
    finally:
        await ledger.close()


def test_the_ledger_refuses_to_work_in_a_forked_child(tmp_path: Path) -> None:
    async def parent() -> int:
        ledger = await SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.new_event_loop()
                ledger._committer.submit(lambda tx: None).send(None)  # type: ignore[arg-type]
            except RuntimeError as error:
                os._exit(7 if "fork" in str(error) else 1)
            os._exit(0)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        await ledger.close()
        return os.waitstatus_to_exitcode(status)

    assert asyncio.run(parent()) == 7
