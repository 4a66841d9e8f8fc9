"""Cancel, retry, update, delete, drop in any state, racing with workers: one clean outcome each.

Every document is worked on by real worker processes (one of which is killed) while somebody keeps
changing their mind about it, in an order that the seed decides. The test keeps its own account of
what was answered, and compares.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from unjam.core.chunk import chunk_ids
from unjam.core.dead_letters import DeadFilter
from unjam.core.document import ENDED, State
from unjam.core.errors import Conflict, NotFound
from unjam.stores import schema
from unjam.stores.ledger.tx import Tx
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended

pytestmark = pytest.mark.thorough

DOCUMENTS = 16
CHANGES = 7  # of each document
WORDS = 400  # of a text: about ten chunks
BROKEN = b"%PDF-1.7 and then nothing "


@dataclass
class Told:
    """What was answered about one document so far."""

    id: str
    version: int
    broken: bool
    ended_by: str = ""  # the verb that was accepted last, when it ends a document
    deleted: bool = False
    versions: set[int] = field(default_factory=set[int])  # all that were ever accepted

    @property
    def wanted(self) -> State:
        if self.deleted:
            return State.DELETED
        if self.ended_by:
            return State.CANCELLED
        return State.DEAD if self.broken else State.SEARCHABLE


def body(number: int, version: int, *, broken: bool) -> bytes:
    token = f"d{number}v{version}"
    if broken:
        return BROKEN + token.encode()
    return " ".join(f"{token} survey {n}." for n in range(WORDS // 3)).encode()


class Race:
    def __init__(self, stack: Stack, seed: int) -> None:
        self.stack = stack
        self.chance = random.Random(seed)
        self.told: list[Told] = []
        self.samples = 0

    async def add(self, number: int) -> None:
        broken = self.chance.random() < 0.25
        name = "file.pdf" if broken else "file.txt"
        document_id = await self.stack.add(body(number, 0, broken=broken), name)
        self.told.append(Told(document_id, 0, broken, versions={0}))

    async def change_minds(self, number: int) -> None:
        told = self.told[number]
        for _ in range(CHANGES):
            await self.somewhere(told)
            verb = self.chance.choices(
                ["cancel", "retry", "put", "delete", "drop", "retry_dead"], [3, 4, 4, 1, 2, 2]
            )[0]
            try:
                await getattr(self, verb)(number, told)
            except (Conflict, NotFound):
                continue  # answered no: then nothing may have happened
            if told.deleted:
                assert await self.shown(number) == set(), "deleted, answered, and still found"

    async def somewhere(self, told: Told) -> None:
        """Until the document has come to a state that chance picks, or to its end."""
        picked = self.chance.choice(list(State))

        async def state() -> State:
            document = await self.stack.services.ledger.get(told.id)
            assert document is not None
            return document.state

        await until("it moves", state, lambda s: s is picked or s in ENDED, deadline_s=60)

    # -- what people ask for
    async def cancel(self, _: int, told: Told) -> None:
        await self.stack.services.ledger.cancel(told.id)
        told.ended_by = "cancel"

    async def retry(self, _: int, told: Told) -> None:
        ticket = await self.stack.services.ledger.retry(told.id)
        told.ended_by = ""
        self.stack.services.intake.ring([ticket])

    async def put(self, number: int, told: Told) -> None:
        version, broken = told.version + 1, self.chance.random() < 0.2
        document = await self.stack.services.ledger.get(told.id)
        assert document is not None
        staged = await self.stack.services.intake.open("file.pdf" if broken else "file.txt")
        await self.stack.services.intake.write(staged, body(number, version, broken=broken))
        await self.stack.services.intake.replace(document, staged)
        told.version, told.broken, told.ended_by = version, broken, ""
        told.versions.add(version)

    async def delete(self, _: int, told: Told) -> None:
        await self.stack.services.ledger.delete(told.id)
        told.deleted = True

    async def drop(self, _: int, told: Told) -> None:
        if await self.stack.services.ledger.drop_many(DeadFilter(ids=[told.id])):
            told.ended_by = "drop"

    async def retry_dead(self, _: int, told: Told) -> None:
        tickets = await self.stack.services.ledger.retry_many(DeadFilter(ids=[told.id]))
        self.stack.services.intake.ring(tickets)

    # -- what everybody sees
    async def shown(self, number: int) -> set[int]:
        """Versions of the document that search shows at this moment."""
        told = self.told[number]
        hits = await self.stack.services.retriever.search(
            f"d{number} survey", k=40, filter={"document_id": told.id}
        )
        return {int(hit.text.split()[0].partition("v")[2]) for hit in hits}

    async def watch(self) -> None:
        """At every moment: the equation holds, and search shows one version of a document."""
        while True:
            e = await self.stack.services.ledger.equation()
            ends = e.searchable + e.dead + e.cancelled + e.deleted
            assert e.accepted == ends + e.running + e.queued + e.waiting, e
            assert e.missing == 0
            number = self.chance.randrange(DOCUMENTS)
            deleted = self.told[number].deleted
            seen = await self.shown(number)
            assert len(seen) <= 1, f"document {number} shows {seen}"
            assert not (deleted and seen), f"document {number} was deleted and shows {seen}"
            self.samples += 1


def clean_again_now(tx: Tx) -> None:
    """The second cleanup is for requests that land late, and comes when none can any more. With no
    worker left that is now."""
    tx.execute(sa.update(schema.cleanups).values(due_at=tx.now))


async def check(race: Race, number: int) -> None:
    """The end is what was answered last, and the vector store holds exactly its chunks."""
    stack, told = race.stack, race.told[number]
    document = await stack.services.ledger.get(told.id)
    assert document is not None
    assert document.state is told.wanted, (number, told, document)
    assert not document.worker
    seen = await race.shown(number)
    if document.state is State.SEARCHABLE:
        assert seen == {told.version}
    elif document.state is State.DELETED:
        assert seen == set()
    else:  # an older version may be left; one that was never accepted may not
        assert seen <= told.versions
        assert bool(seen) == bool(document.visible_generation)
    visible = document.visible_generation if document.state is not State.DELETED else 0
    wanted = set(chunk_ids(told.id, visible, document.chunks)) if visible else set[str]()
    await until(
        f"document {number} has exactly its chunks",
        lambda: stack.chunk_ids(told.id, 64),
        lambda held: held == wanted,
    )


@contextlib.asynccontextmanager
async def watched(race: Race) -> AsyncIterator[None]:
    watching = asyncio.create_task(race.watch())
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def live(stack: Stack) -> set[int]:
    return {ref.pid for ref, _ in await stack.services.ledger.processes()}


@pytest.mark.parametrize("seed", [1, 3])
async def test_every_document_comes_to_the_end_that_was_answered(
    reconciled: Stack, seed: int
) -> None:
    stack = reconciled
    race = Race(stack, seed)
    workers = [stack.worker(), stack.worker()]
    for number in range(DOCUMENTS):
        await race.add(number)
    async with watched(race):
        minds = [asyncio.create_task(race.change_minds(n)) for n in range(DOCUMENTS)]
        await asyncio.wait(minds[: DOCUMENTS // 4])
        workers[0].signal(signal.SIGKILL)
        workers.append(stack.worker())
        await asyncio.gather(*minds)
        await until_ended(stack.services.ledger, [t.id for t in race.told], deadline_s=90)
        await until(
            "the new worker is up", lambda: live(stack), lambda pids: workers[2].pid in pids
        )
    assert await asyncio.gather(*(w.stop() for w in workers[1:])) == [0, 0]
    await stack.services.ledger._committer.submit(clean_again_now)
    assert race.samples > 20
    for number in range(DOCUMENTS):
        await check(race, number)
    await until(
        "rag_dlq shows the dead",
        stack.services.queue.lengths,
        lambda lengths: lengths["rag_dlq"] == sum(t.wanted is State.DEAD for t in race.told),
    )
    assert {t.wanted for t in race.told} >= {State.SEARCHABLE, State.DELETED}, "too tame a race"
