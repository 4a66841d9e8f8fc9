"""A changed embedding model builds beside the old index, then flips, document by document."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from unjam.core.document import State
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until


async def test_old_documents_stay_searchable_until_the_new_model_has_them(
    stack: Stack, fake_openai: FakeOpenAI
) -> None:
    fake_openai.control(mode="bag")
    words = [f"orchard{n}" for n in range(12)]
    ids = [await stack.add(f"{word} lies behind the mill", f"{word}.txt") for word in words]
    worker = stack.worker()
    await _all_visible(stack, ids, generation=1)
    await worker.stop()
    changed = replace(
        stack,
        extra={**stack.extra, "RAG_EMBEDDING_MODEL": "another-model"},
        processes=[],
    )
    async with changed:
        retriever = changed.services.retriever
        assert await _finds_all(changed, words), "the old index answers at once"
        fake_openai.control(latency_ms=20)
        changed.worker()
        missed: list[str] = []
        stop = asyncio.Event()

        async def search() -> None:
            while not stop.is_set():
                for word in words:
                    if not await retriever.search(f"{word} lies behind the mill", k=3):
                        missed.append(word)

        searching = asyncio.create_task(search())
        rounds = asyncio.create_task(_reconcile(changed))
        try:
            await _all_visible(changed, ids, generation=2)
            assert await _finds_all(changed, words)
        finally:
            stop.set()
            rounds.cancel()
            await searching
        assert missed == []
        (pin,) = await changed.services.ledger.pins_in_use()
        assert pin.fingerprint.model == "another-model"
        old = stack.services.current_pin().fingerprint.collection

        async def left() -> int:
            from unjam.core.chunk import chunk_id

            first = [chunk_id(i, 1, 0) for i in ids]
            return len(first) - len(await changed.services.vectors.missing(old, first))

        for_good = asyncio.create_task(_reconcile(changed))
        await until("the old index is empty", left, lambda n: n == 0)
        for_good.cancel()


async def _finds_all(stack: Stack, words: list[str]) -> bool:
    for word in words:
        hits = await stack.services.retriever.search(f"{word} lies behind the mill", k=3)
        if f"{word}.txt" not in [hit.filename for hit in hits]:
            return False
    return True


async def _all_visible(stack: Stack, ids: list[str], generation: int) -> None:
    async def visible() -> set[tuple[int, State]]:
        documents = await stack.services.ledger.get_many(ids)
        return {(d.visible_generation, d.state) for d in documents}

    wanted = {(generation, State.SEARCHABLE)}
    await until(f"generation {generation}", visible, lambda seen: seen == wanted, deadline_s=60)


async def _reconcile(stack: Stack) -> None:
    while True:
        await stack.reconcile()
        await asyncio.sleep(0.2)
