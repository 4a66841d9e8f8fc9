"""A worker that is frozen past its lease and wakes changes nothing; its children die with it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.fixtures.frozen import freeze_outside_the_gate
from unjam.core.chunk import chunk_ids
from unjam.core.document import RUNNING, State
from unjam.core.events import EventKind
from unjam.core.lease import LEASE_S
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended

pytestmark = pytest.mark.thorough


def text(word: str) -> str:
    return "\n\n".join(f"{word} {n}: the ledger of {word} is long." for n in range(40))


async def test_a_worker_that_wakes_after_its_lease_changes_nothing(
    stack: Stack, fake_openai: FakeOpenAI
) -> None:
    ledger = stack.services.ledger
    fake_openai.control(fault="hang")
    ids = [await stack.add(text(word)) for word in ("alpha", "bravo", "charlie")]
    frozen = stack.worker()

    async def states() -> set[State]:
        return {d.state for d in await ledger.get_many(ids)}

    await until("all are in its hands", states, lambda s: s <= RUNNING)
    tokens = {d.id: d.worker for d in await ledger.get_many(ids)}
    await freeze_outside_the_gate(frozen, stack.data_dir)
    began = time.monotonic()
    fake_openai.control(fault="")
    stack.watchdog()
    stack.worker()
    documents = await until_ended(ledger, ids, deadline_s=60)
    assert {d.state for d in documents.values()} == {State.SEARCHABLE}
    assert time.monotonic() - began >= LEASE_S - 2.0, "nobody took them before their lease ran out"

    async def completed() -> float:
        counts = await ledger.counters()
        return sum(n for (name, _), n in counts.items() if name == "jobs_completed")

    assert await completed() == len(ids)
    at_rest = await ledger.last_event()
    held = {i: await stack.chunk_ids(i, 200) for i in ids}
    # It wakes in the middle of its requests, and learns that it is a zombie.
    frozen.signal(signal.SIGCONT)

    async def stopped() -> int:
        return frozen.output().count("belongs to another worker now")

    await until("it stopped all three", stopped, lambda n: n >= 3, deadline_s=30)
    await frozen.stop()
    mine = set(tokens.values())
    late = [
        e
        for e in await ledger.events(None, at_rest, 500)
        if e.kind not in (EventKind.QUEUED, EventKind.ACCEPTED)
    ]
    assert [e for e in late if e.document_id in ids] == [], "a zombie wrote into the ledger"
    assert await completed() == len(ids), "a document was counted twice"
    for document_id, document in documents.items():
        now = await ledger.get(document_id)
        assert now == document
        assert document.worker not in mine
        wanted = set(chunk_ids(document_id, document.visible_generation, document.chunks))
        assert await stack.chunk_ids(document_id, 200) == held[document_id] == wanted
        hits = await stack.services.retriever.search(
            "ledger", k=50, filter={"document_id": document_id}
        )
        assert len({hit.chunk_id for hit in hits}) == len(hits) == document.chunks


async def test_late_deletes_of_a_zombie_meet_no_visible_chunk(stack: Stack) -> None:
    """What a frozen process may still send: an upsert of its rows, a delete of old ones."""
    ledger, vectors = stack.services.ledger, stack.services.vectors
    document_id = await stack.add(text("alpha"))
    stack.worker()
    (before,) = (await until_ended(ledger, [document_id])).values()
    here = stack.services.current_pin().fingerprint.collection
    # Its delete was for the generation before this one, by computed ids.
    await vectors.delete(here, chunk_ids(document_id, 0, 500))
    wanted = chunk_ids(document_id, 1, before.chunks)
    assert await vectors.missing(here, wanted) == []


def children_of(pid: int) -> set[int]:
    found: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat[1]) == pid and stat[0] not in "ZX":
            found.add(int(folder.name))
    return found


def alive(pid: int) -> bool:
    try:
        stat = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return stat[0] not in "ZX"


async def test_parsing_children_die_with_their_worker(
    stack: Stack, fake_openai: FakeOpenAI
) -> None:
    worker = stack.worker()
    document_id = await stack.add(text("alpha"))
    await until_ended(stack.services.ledger, [document_id])
    zygotes = children_of(worker.pid)
    assert zygotes, "the worker has no parsing parent"
    worker.signal(signal.SIGSTOP)  # a stopped parent's children live on …
    await asyncio.sleep(0)
    assert all(alive(pid) for pid in zygotes)
    os.kill(worker.pid, signal.SIGKILL)  # … and end with it
    await worker.ended()

    async def left() -> list[int]:
        return [pid for pid in zygotes if alive(pid)]

    await until("no child outlives it", left, lambda pids: not pids, deadline_s=10)
