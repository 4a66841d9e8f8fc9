from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import uvloop

from unjam.core.errors import DependencyDown, DocumentRejected
from unjam.core.ports import Vectors
from unjam.embedding import batcher as module
from unjam.embedding.batcher import MAX_REQUEST_TOKENS, Batcher, isolate


class Endpoint:
    """Records requests; each may be held until ``release``."""

    def __init__(self, *, held: bool = False) -> None:
        self.requests: list[list[str]] = []
        self.kept: list[str] = []
        self.arrived = asyncio.Condition()
        self.gate = asyncio.Event()
        self.refused: set[str] = set()
        self.down: set[str] = set()
        if not held:
            self.gate.set()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        async with self.arrived:
            self.requests.append(list(texts))
            self.arrived.notify_all()
        await self.gate.wait()
        if self.down & set(texts):
            raise DependencyDown("away", code="embedding_down")
        if self.refused & set(texts):
            raise DocumentRejected("no", code="embedding_refused")
        return np.array([vector(text) for text in texts])

    async def keep(self, vectors: Mapping[str, Vectors]) -> None:
        await asyncio.sleep(0)
        self.kept.extend(vectors)

    async def until(self, requests: int) -> None:
        async with asyncio.timeout(5), self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= requests)


def vector(text: str) -> Vectors:
    seed = sum(text.encode())
    return np.array([seed, len(text)], np.float32)


def make(endpoint: Endpoint, size: int = 4, in_flight: int = 2, latency_s: float = 0.0) -> Batcher:
    return Batcher(
        endpoint.embed,
        endpoint.keep,
        size=lambda: size,
        in_flight=lambda: in_flight,
        latency_s=lambda: latency_s,
    )


async def test_documents_that_come_together_share_requests():
    endpoint = Endpoint()
    batcher = make(endpoint, size=32)
    answers = await asyncio.gather(*[batcher.embed([f"{d}a", f"{d}b"]) for d in range(50)])
    assert [len(r) for r in endpoint.requests] == [32, 32, 32, 4]
    for d, answer in enumerate(answers):
        np.testing.assert_array_equal(answer[f"{d}b"], vector(f"{d}b"))


async def test_a_lone_text_does_not_wait_for_company():
    endpoint = Endpoint()
    batcher = make(endpoint, latency_s=3600)
    async with asyncio.timeout(5):
        await batcher.embed(["a"])


async def test_a_request_that_is_not_full_lingers_while_others_fly():
    endpoint = Endpoint(held=True)
    batcher = make(endpoint, size=4, in_flight=3, latency_s=0.1)
    first = asyncio.create_task(batcher.embed(["a"]))
    await endpoint.until(1)
    rest = [asyncio.create_task(batcher.embed([t])) for t in "bc"]
    await endpoint.until(2)
    assert endpoint.requests == [["a"], ["b", "c"]]
    endpoint.gate.set()
    await asyncio.gather(first, *rest)


async def test_a_request_that_is_not_full_leaves_when_nobody_else_is_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LONGEST_LINGER_S", 60.0)
    endpoint = Endpoint(held=True)
    expected = True
    batcher = Batcher(
        endpoint.embed,
        endpoint.keep,
        size=lambda: 4,
        in_flight=lambda: 3,
        latency_s=lambda: 3600.0,
        expected=lambda: expected,
    )
    full = asyncio.create_task(batcher.embed(list("abcd")))
    await endpoint.until(1)
    rest = asyncio.create_task(batcher.embed(["e"]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(endpoint.requests) == 1
    expected = False
    batcher.look()
    await endpoint.until(2)
    endpoint.gate.set()
    await asyncio.gather(full, rest)


async def test_equal_texts_are_embedded_once_even_in_flight():
    endpoint = Endpoint(held=True)
    batcher = make(endpoint)
    first = asyncio.create_task(batcher.embed(["same", "x"]))
    await endpoint.until(1)
    second = asyncio.create_task(batcher.embed(["same"]))
    await asyncio.sleep(0.03)
    endpoint.gate.set()
    await asyncio.gather(first, second)
    assert endpoint.requests == [["same", "x"]]


async def test_never_more_in_flight_than_allowed():
    endpoint = Endpoint(held=True)
    batcher = make(endpoint, size=1, in_flight=2)
    tasks = [asyncio.create_task(batcher.embed([str(n)])) for n in range(6)]
    await endpoint.until(2)
    await asyncio.sleep(0.03)
    assert len(endpoint.requests) == 2
    endpoint.gate.set()
    await asyncio.gather(*tasks)
    assert len(endpoint.requests) == 6


async def test_vectors_are_kept_before_the_caller_has_them():
    endpoint = Endpoint()
    batcher = make(endpoint)
    answer = await batcher.embed(["a", "b"])
    assert sorted(endpoint.kept) == sorted(answer)


async def test_a_request_is_in_flight_until_its_vectors_are_kept():
    """Or a death would cost more requests than may be in flight: answered, and not yet kept."""
    endpoint, keep = Endpoint(), asyncio.Event()

    async def slowly(vectors: Mapping[str, Vectors]) -> None:
        await keep.wait()
        await endpoint.keep(vectors)

    batcher = Batcher(endpoint.embed, slowly, size=lambda: 1, in_flight=lambda: 2)
    task = asyncio.create_task(batcher.embed(["a", "b", "c"]))
    await endpoint.until(2)
    for _ in range(100):
        await asyncio.sleep(0)
    assert endpoint.requests == [["a"], ["b"]]
    keep.set()
    assert len(await task) == 3


async def test_one_refused_text_fails_alone():
    endpoint = Endpoint()
    endpoint.refused = {"bad"}
    batcher = make(endpoint, size=8)
    good, bad = await asyncio.gather(
        batcher.embed(["a", "b", "c"]), batcher.embed(["d", "bad", "e"])
    )
    assert not any(isinstance(a, Exception) for a in good.values())
    assert isinstance(bad.pop("bad"), DocumentRejected)
    assert not any(isinstance(a, Exception) for a in bad.values())
    assert "bad" not in endpoint.kept


async def test_a_failing_request_fails_only_its_texts():
    endpoint = Endpoint(held=True)
    endpoint.down = {"a0"}
    batcher = make(endpoint, size=2, in_flight=2)
    tasks = [asyncio.create_task(batcher.embed([f"{n}0", f"{n}1"])) for n in "ab"]
    await endpoint.until(2)
    endpoint.gate.set()
    failed, fine = await asyncio.gather(*tasks)
    assert all(isinstance(a, DependencyDown) for a in failed.values())
    assert not any(isinstance(a, Exception) for a in fine.values())


async def test_after_a_failure_the_text_may_come_again():
    endpoint = Endpoint()
    endpoint.down = {"a"}
    batcher = make(endpoint)
    assert isinstance((await batcher.embed(["a"]))["a"], DependencyDown)
    endpoint.down = set()
    assert not isinstance((await batcher.embed(["a"]))["a"], Exception)


async def test_a_cancelled_caller_does_not_cancel_the_others():
    endpoint = Endpoint(held=True)
    batcher = make(endpoint, size=8)
    gone = asyncio.create_task(batcher.embed(["a", "shared"]))
    stays = asyncio.create_task(batcher.embed(["b", "shared"]))
    await endpoint.until(1)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    endpoint.gate.set()
    assert set(await stays) == {"b", "shared"}
    assert "a" in endpoint.kept  # it was paid for


async def test_unsent_texts_of_a_cancelled_caller_are_not_sent():
    endpoint = Endpoint(held=True)
    batcher = make(endpoint, size=2, in_flight=1)
    first = asyncio.create_task(batcher.embed(["a", "b"]))
    await endpoint.until(1)
    gone = asyncio.create_task(batcher.embed(["c", "d"]))
    stays = asyncio.create_task(batcher.embed(["d", "e"]))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    endpoint.gate.set()
    await asyncio.gather(first, stays)
    assert sorted(t for r in endpoint.requests for t in r) == ["a", "b", "d", "e"]


async def test_a_huge_document_does_not_hold_up_a_small_one():
    endpoint = Endpoint(held=True)
    batcher = make(endpoint, size=8, in_flight=1)
    huge = asyncio.create_task(batcher.embed([f"huge{n}" for n in range(400)]))
    await endpoint.until(1)
    small = asyncio.create_task(batcher.embed(["small"]))
    await asyncio.sleep(0)
    endpoint.gate.set()
    await small
    assert len(endpoint.requests) <= 4
    await huge


async def test_requests_are_bound_in_tokens():
    endpoint = Endpoint()
    batcher = make(endpoint, size=100)
    long = [f"{n}" + "x" * MAX_REQUEST_TOKENS for n in range(7)]  # a third of the bound each
    await batcher.embed(long)
    assert [len(r) for r in endpoint.requests] == [2, 2, 2, 1]


async def test_alone_shares_nothing_and_is_smaller():
    endpoint = Endpoint()
    batcher = make(endpoint, size=8)
    alone, shared = await asyncio.gather(
        batcher.embed_alone(["p", "q", "r"]), batcher.embed(["a", "b"])
    )
    assert sorted(endpoint.requests) == [["a", "b"], ["p", "q"], ["r"]]
    assert set(alone) == {"p", "q", "r"}
    assert set(shared) == {"a", "b"}


async def test_closing_answers_everybody():
    endpoint = Endpoint(held=True)
    batcher = make(endpoint, size=1, in_flight=1)
    tasks = [asyncio.create_task(batcher.embed([t])) for t in "ab"]
    await endpoint.until(1)
    await batcher.close()
    async with asyncio.timeout(5):
        for task in tasks:
            (answer,) = (await task).values()
            assert isinstance(answer, DependencyDown)


@pytest.mark.parametrize("refused", [{0}, {5}, {2, 3}, set(range(9)), set()])
async def test_isolating_finds_exactly_the_refused(refused: set[int]):
    endpoint = Endpoint()
    texts = [f"t{n}" for n in range(9)]
    endpoint.refused = {texts[n] for n in refused}
    answers = await isolate(endpoint.embed, texts)
    assert {n for n, a in enumerate(answers) if isinstance(a, DocumentRejected)} == refused


async def test_a_batch_that_is_too_large_is_told_from_a_text_that_is_refused():
    class Small(Endpoint):
        async def embed(self, texts: Sequence[str]) -> Vectors:
            if len(texts) > 3:
                raise DocumentRejected("too many", code="embedding_refused")
            return await super().embed(texts)

    told: list[int] = []
    small = Small()
    await isolate(small.embed, [f"t{n}" for n in range(12)], told.append)
    assert told == [6, 6, 12]  # 3 at a time is fine
    told.clear()
    refusing = Endpoint()
    refusing.refused = {"t5"}
    await isolate(refusing.embed, [f"t{n}" for n in range(12)], told.append)
    assert told == []


async def test_under_load_requests_fill():
    """Texts that come one by one, faster than answers, must not leave one by one."""
    endpoint = Endpoint()

    async def slow(texts: Sequence[str]) -> Vectors:
        vectors = await endpoint.embed(texts)
        await asyncio.sleep(0.1)
        return vectors

    batcher = Batcher(
        slow, endpoint.keep, size=lambda: 32, in_flight=lambda: 3, latency_s=lambda: 0.1
    )
    tasks: list[asyncio.Task[object]] = []
    for n in range(100):
        tasks.append(asyncio.create_task(batcher.embed([str(n)])))
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)
    assert len(endpoint.requests) <= 20


def test_no_text_is_left_behind_by_a_timer_on_the_loop_of_workers() -> None:
    """uvloop's clock stands still between two turns, so a timer fires at the very time it names."""
    dice = random.Random(1)

    async def play() -> None:
        endpoint = Endpoint()
        batcher = make(endpoint, size=32, in_flight=3)

        async def one(text: str, after_s: float) -> None:
            await asyncio.sleep(after_s)
            await batcher.embed([text])

        for n in range(100):
            async with asyncio.timeout(5):
                await asyncio.gather(*(one(f"{n}/{i}", dice.random() * 0.02) for i in range(6)))
        await batcher.close()

    uvloop.run(play())
