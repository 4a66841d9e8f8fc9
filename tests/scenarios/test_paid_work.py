"""Nothing that was paid for is done twice: the embedding cache is the checkpoint (law 9)."""

from __future__ import annotations

import asyncio
import signal

import pytest

from unjam.core.document import State
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended

pytestmark = pytest.mark.thorough

BATCH = 32
CONCURRENCY = 3


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_large_document_killed_half_way_embeds_only_the_batches_in_flight_again(
    reconciled: Stack, fake_openai: FakeOpenAI
) -> None:
    stack = reconciled
    text = "\n\n".join(
        f"Entry {n}: {' '.join(f'word{n}x{i}' for i in range(14))}." for n in range(10_000)
    )
    document_id = await stack.add(text)
    worker = stack.worker()

    async def embedded() -> int:
        return (await asyncio.to_thread(fake_openai.stats))["texts"]

    await until("half of it embedded", embedded, lambda n: n >= 5_000, deadline_s=120)
    worker.signal(signal.SIGKILL)
    await worker.ended()
    stack.worker()
    document = (await until_ended(stack.services.ledger, [document_id], deadline_s=150))[
        document_id
    ]
    assert document.state is State.SEARCHABLE
    assert document.chunks >= 10_000
    texts = (await asyncio.to_thread(fake_openai.stats))["texts"]
    assert texts - document.chunks <= BATCH * CONCURRENCY
