"""What an operator's lever does to running workers: pauses, knobs, fairness, sizes, and a move that
was cut off half-way."""

from __future__ import annotations

import time

import redis

from tests.scenarios.test_stock_workers import key_of, rq
from unjam.core.document import State
from unjam.queue import order
from unjam.queue.lanes import LARGE, LOW, PROCESSING
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended

MIB = 1_048_576
EVERY = "*"


async def state_of(stack: Stack, document_id: str) -> State:
    document = await stack.services.ledger.get(document_id)
    assert document is not None
    return document.state


async def worker_is_up(stack: Stack, lane: str = PROCESSING) -> None:
    async def served() -> int:
        return (await stack.services.queue.lane_facts())[lane].workers

    await until(f"a worker that serves {lane}", served)


async def paused(stack: Stack, lane: str) -> None:
    await stack.services.ledger.pause(lane, "operator")
    await order.show_pauses(stack.services.ledger, stack.services.queue)


async def resumed(stack: Stack, lane: str) -> None:
    await stack.services.ledger.resume(lane, "operator")
    await order.show_pauses(stack.services.ledger, stack.services.queue, resume=lane == EVERY)


async def test_a_pause_holds_one_lane_and_the_others_go_on(stack: Stack) -> None:
    stack.worker()
    await worker_is_up(stack)
    await paused(stack, PROCESSING)
    held = await stack.add("The pump is serviced every week.", "held.txt")
    low = await stack.add("The valve is checked every month.", "low.txt")
    document = await stack.services.ledger.get(low)
    assert document is not None
    await until("it stands in line", lambda: state_of(stack, low), lambda s: s is State.QUEUED)
    tickets = [
        t for t in await stack.services.ledger.standing_in(PROCESSING) if t.document_id == low
    ]
    await order.move(stack.services.ledger, stack.services.queue, tickets, LOW)
    await until_ended(stack.services.ledger, [low])
    assert await state_of(stack, held) is State.QUEUED
    await resumed(stack, PROCESSING)
    begun = time.monotonic()
    await until_ended(stack.services.ledger, [held])
    assert time.monotonic() - begun < 10


async def test_a_pause_of_all_outlives_workers_and_a_lost_redis(
    stack: Stack, redis_url: str
) -> None:
    await paused(stack, EVERY)
    held = await stack.add("The pump is serviced every week.")
    first = stack.worker()
    await until("a worker of ours", stack.services.ledger.processes)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.get("rq:suspended") == "unjam"
        client.delete("rq:suspended", "rag:paused", "rag:epoch")
        await stack.reconcile()
        assert client.get("rq:suspended") == "unjam"
        assert client.smembers("rag:paused") == {"*"}
    await first.stop()
    stack.worker()
    await worker_is_up(stack)
    assert await state_of(stack, held) is State.QUEUED
    await resumed(stack, EVERY)
    await until_ended(stack.services.ledger, [held])


async def test_a_stock_worker_waits_for_a_paused_lane(stack: Stack) -> None:
    await paused(stack, PROCESSING)
    held = await stack.add("The pump is serviced every week.")
    await until("it stands in line", lambda: state_of(stack, held), lambda s: s is State.QUEUED)
    stock = rq(stack, "worker", PROCESSING, "--burst", env=key_of(stack))

    async def taken() -> int:
        return (await stack.services.queue.lengths())[PROCESSING]

    await until("the stock worker took it", taken, lambda n: n == 0)
    assert await state_of(stack, held) is State.QUEUED
    await resumed(stack, PROCESSING)
    await until_ended(stack.services.ledger, [held])
    assert await stock.ended(60) == 0, stock.output()


async def test_a_knob_reaches_a_running_worker_within_a_batch(
    stack: Stack, fake_openai: FakeOpenAI
) -> None:
    """No restart: the requests that the endpoint sees change their size."""
    stack.worker()

    def text(name: str) -> str:
        """No line of it was embedded before."""
        return "\n\n".join(
            f"Line {n} of {name}: the pump is serviced every {n} weeks. " * 6 for n in range(40)
        )

    await until_ended(stack.services.ledger, [await stack.add(text("before"), "before.txt")])
    before = fake_openai.stats()["batches"]
    assert max(before) > 8
    await stack.services.ledger.set_knobs({"RAG_EMBEDDING_BATCH_SIZE": 4}, "operator")
    probe = 0

    async def size_seen() -> int:
        nonlocal probe
        probe += 1
        seen = len(fake_openai.stats()["batches"])
        added = await stack.add(text(f"probe {probe}"), f"probe-{probe}.txt")
        await until_ended(stack.services.ledger, [added])
        return max(fake_openai.stats()["batches"][seen:])

    begun = time.monotonic()
    await until("batches of four", size_seen, lambda size: size <= 4)
    assert time.monotonic() - begun < 10
    await stack.services.ledger.set_knobs({"RAG_EMBEDDING_BATCH_SIZE": None}, "operator")
    await until("batches as before", size_seen, lambda size: size > 8)


async def test_one_document_beside_a_flood_is_searchable_at_once(stack: Stack) -> None:
    flood = [await stack.add(f"Flood number {n}: a pump.", f"{n}.txt", "ann") for n in range(300)]
    single = await stack.add("One valve, checked every month.", "single.txt", "ben")
    await until("all stand in line", stack.services.queue.lengths, lambda n: n[PROCESSING] == 301)
    stack.worker()
    await until_ended(stack.services.ledger, [single])
    states = [await state_of(stack, i) for i in flood]
    assert sum(s is State.SEARCHABLE for s in states) < 150, "it stood behind the flood"


async def test_a_large_document_does_not_hold_up_small_ones(
    stack: Stack, fake_openai: FakeOpenAI
) -> None:
    """It has a lane and a slot of its own, and shares the endpoint with the others."""
    fake_openai.control(latency_ms=100)
    sentence = "The pump of line {} is serviced every {} weeks and checked twice. "
    large = "\n\n".join(sentence.format(n, n + 3) for n in range(180_000)).encode()
    assert len(large) > 10 * MIB
    heavy = await stack.add(large, "large.txt")
    stack.worker()
    await until(
        "the large one is at work",
        lambda: state_of(stack, heavy),
        lambda s: s in (State.EMBEDDING, State.STORING),
        deadline_s=60,
    )
    document = await stack.services.ledger.get(heavy)
    assert document is not None
    assert document.lane == LARGE
    begun = time.monotonic()
    small = [await stack.add(f"One page about valve {n}.", f"{n}.txt") for n in range(5)]
    await until_ended(stack.services.ledger, small, deadline_s=30)
    took_s = time.monotonic() - begun
    assert await state_of(stack, heavy) in (State.EMBEDDING, State.STORING)
    assert took_s < 10, took_s


async def test_a_move_cut_off_between_ledger_and_redis_is_healed_by_the_audit(
    stack: Stack,
) -> None:
    ledger, queue = stack.services.ledger, stack.services.queue
    ids = [await stack.add(f"Text number {n}.", f"{n}.txt") for n in range(20)]
    await until("all stand in line", queue.lengths, lambda n: n[PROCESSING] == 20)
    await ledger.change_lane(await ledger.standing_in(PROCESSING), LOW)  # and then: kill -9
    assert (await queue.lengths())[LOW] == 0
    await stack.reconcile()
    assert (await queue.lengths())[LOW] == 20
    assert {d.lane for d in await ledger.get_many(ids)} == {LOW}
    stack.worker()
    ended = await until_ended(ledger, ids)
    assert {d.state for d in ended.values()} == {State.SEARCHABLE}
    assert (await ledger.equation()).missing == 0
    counters = await ledger.counters()
    assert sum(n for (name, _), n in counters.items() if name == "jobs_completed") == 20
