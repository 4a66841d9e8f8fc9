"""Users take turns: nobody's flood delays another's first documents, however lanes are filled."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest
import redis

from tests.contract.test_queue import ME, AnyQueue
from tests.fixtures.ledger import submission
from unjam.core.document import Ticket
from unjam.queue.lanes import HIGH, LOW, PROCESSING
from unjam.queue.memory import MemoryQueue
from unjam.queue.rq_queue import RqQueue
from unjam.stores.ledger import SqlLedger

_numbers = itertools.count()


@pytest.fixture(params=["memory", "rq"])
async def queue(request: pytest.FixtureRequest) -> AsyncIterator[AnyQueue]:
    made: AnyQueue = (
        MemoryQueue()
        if request.param == "memory"
        else RqQueue(request.getfixturevalue("redis_url"))
    )
    yield made
    await made.close()


def of(user: str, count: int, lane: str = PROCESSING) -> list[Ticket]:
    return [Ticket(f"{user}-{next(_numbers):06}", 1, lane, 10, user) for _ in range(count)]


def owner(ticket: Ticket) -> str:
    return ticket.document_id.partition("-")[0]


async def line(queue: AnyQueue, lane: str = PROCESSING) -> list[str]:
    """Owners in the order in which the lane is served; it is empty afterwards."""
    found: list[str] = []
    while taken := await queue.take([lane], 1000, ME):
        found += [owner(t) for t in taken]
    return found


def assert_fair(owners: Sequence[str]) -> None:
    """Each user's j-th stands no deeper than j × users."""
    users, seen = len(set(owners)), Counter[str]()
    for place, user in enumerate(owners, start=1):
        seen[user] += 1
        assert place <= seen[user] * users, (place, user, seen[user], users)


async def test_one_document_beside_a_flood_is_served_among_the_first(queue: AnyQueue) -> None:
    await queue.push(of("ann", 10_000))
    await queue.push(of("ben", 1))
    taken = await queue.take([PROCESSING], 4, ME)
    assert "ben" in [owner(t) for t in taken]


async def test_a_flood_that_came_in_one_push_is_no_different(queue: AnyQueue) -> None:
    await queue.push([*of("ann", 3000), *of("ben", 400), *of("", 7)])
    owners = await line(queue)
    assert Counter(owners) == {"ann": 3000, "ben": 400, "": 7}
    assert_fair(owners)


async def test_fair_while_it_is_served(queue: AnyQueue) -> None:
    """Whoever begins to wait late does not wait for what was served before he came."""
    await queue.push(of("ann", 500))
    await queue.take([PROCESSING], 200, ME)
    await queue.push(of("ben", 3))
    await queue.take([PROCESSING], 1, ME)
    await queue.push(of("cem", 2))
    owners = await line(queue)
    assert owners[:7].count("ben") == 3
    assert owners[:7].count("cem") == 2


@pytest.mark.parametrize("seed", range(4))
async def test_any_arrivals_stand_fairly(queue: AnyQueue, seed: int) -> None:
    dice = random.Random(seed)
    users = ["ann", "ben", "cem", "dan", ""]
    weights = [60, 20, 5, 2, 1]
    pushed = Counter[str]()
    for _ in range(60):
        user = dice.choices(users, weights)[0]
        count = dice.choice([1, 1, 2, 30])
        await queue.push(of(user, count))
        pushed[user] += count
    owners = await line(queue)
    assert Counter(owners) == pushed
    assert_fair(owners)


async def test_each_users_own_documents_keep_their_order(queue: AnyQueue) -> None:
    ann, ben = of("ann", 40), of("ben", 40)
    for a, b in zip(ann, ben, strict=True):
        await queue.push([a])
        await queue.push([b])
    await queue.push(cem := of("cem", 40))
    taken = [t.document_id for _ in range(12) for t in await queue.take([PROCESSING], 10, ME)]
    for some in (ann, ben, cem):
        mine = [t.document_id for t in some]
        assert [i for i in taken if i in mine] == mine


async def test_an_empty_lane_forgets_who_waited(queue: AnyQueue) -> None:
    await queue.push(of("ann", 300))
    await line(queue)
    await queue.push([*of("ann", 2), *of("ben", 2)])
    assert (await line(queue))[:2] in (["ann", "ben"], ["ben", "ann"])


async def test_moved_documents_take_their_turns_too(queue: AnyQueue) -> None:
    await queue.push(of("ann", 200, HIGH))
    ben = of("ben", 20)
    await queue.push(ben)
    await queue.move(ben, HIGH)
    owners = await line(queue, HIGH)
    assert_fair(owners)
    assert owners[:40].count("ben") == 20


async def test_what_was_brought_to_the_front_stays_before_newcomers(queue: AnyQueue) -> None:
    ann = of("ann", 50)
    await queue.push(ann)
    front = await queue.to_front(PROCESSING, ann[40:])
    assert front == ann[40:]
    await queue.push(of("ben", 1))
    owners = [t.document_id for t in await queue.take([PROCESSING], 12, ME)]
    assert owners[:10] == [t.document_id for t in ann[40:]]
    assert owners[10:][0].startswith("ben") or owners[10:][1].startswith("ben")


async def test_what_does_not_wait_is_not_brought_to_the_front(queue: AnyQueue) -> None:
    ann = of("ann", 5)
    await queue.push(ann[:4])
    (taken,) = await queue.take([PROCESSING], 1, ME)
    assert await queue.to_front(PROCESSING, [ann[4], taken, ann[3], ann[3]]) == [ann[3]]
    assert (await queue.lengths())[PROCESSING] == 3
    assert await queue.to_front(LOW, ann) == []


async def test_the_outbox_and_a_lost_redis_keep_the_turns(
    ledger: SqlLedger, queue: AnyQueue
) -> None:
    """Oldest first out of the ledger, and still nobody stands behind a whole flood."""
    for start in range(0, 600, 200):
        await ledger.accept([submission(n, user="ann") for n in range(start, start + 200)])
    await ledger.accept([submission(n, user="ben") for n in range(700, 703)])
    tickets = await ledger.pushable(1000)
    assert [t.user_id for t in tickets] == ["ann"] * 600 + ["ben"] * 3
    await queue.push(tickets)
    await ledger.mark_pushed(tickets)
    await queue.discard(await queue.take([PROCESSING], 1000, ME), ME)  # Redis lost all of it
    again = await ledger.requeue(await ledger.queued_slice("", 1000), "absent")
    await queue.push(again)
    first = [t.document_id for t in await queue.take([PROCESSING], 8, ME)]
    assert sum(i in {f"d{n:08d}" for n in range(700, 703)} for i in first) == 3


async def test_rqs_own_tools_meet_an_ordinary_list(redis_url: str) -> None:
    queue = RqQueue(redis_url)
    await queue.push([*of("ann", 30), *of("ben", 5)])
    await queue.close()
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.type("rq:queue:rag_processing") == "list"
        assert client.llen("rq:queue:rag_processing") == 35
        head = client.lrange("rq:queue:rag_processing", 0, 1)
        assert {i.partition("-")[0] for i in head} == {"ann", "ben"}


async def test_users_who_wait_no_more_are_forgotten(redis_url: str) -> None:
    """The memory of turns grows with who waits, not with who ever waited."""
    queue = RqQueue(redis_url)
    for n in range(60):
        await queue.push([t for i in range(12) for t in of(f"u{n}x{i}", 1)])
        if n:
            await queue.take([PROCESSING], 12, ME)
    await queue.close()
    with redis.Redis.from_url(redis_url) as client:
        assert client.hlen("rag:turns:rag_processing") < 400
