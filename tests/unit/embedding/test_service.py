"""Whom a request that is not full waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from unjam.core.document import Fingerprint, Pin
from unjam.core.ports import Vectors
from unjam.embedding import batcher
from unjam.embedding.service import EmbeddingService, Flow
from unjam.stores.memory_cache import MemoryVectorCache

PIN = Pin(Fingerprint("openai", "some-model", dimension=2), 256, 32, "openai:cl100k_base")


class Held:
    """An endpoint that answers nobody before ``gate`` is set."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.gate = asyncio.Event()
        self.arrived = asyncio.Condition()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        async with self.arrived:
            self.requests.append(list(texts))
            self.arrived.notify_all()
        await self.gate.wait()
        return np.ones((len(texts), 2), np.float32)

    async def until(self, requests: int) -> None:
        async with asyncio.timeout(5), self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= requests)

    async def warm_up(self) -> None: ...

    async def close(self) -> None: ...

    def get(self, fingerprint: Fingerprint, lane: str) -> Held:
        return self

    def flow(self, fingerprint: Fingerprint) -> Flow:
        return Flow(size=lambda: 4, in_flight=lambda: 3, latency_s=lambda: 3600.0)


async def test_it_waits_for_documents_that_are_read_and_for_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batcher, "LONGEST_LINGER_S", 60.0)
    endpoint = Held()
    service = EmbeddingService(MemoryVectorCache(1 << 20), endpoint)
    full = asyncio.create_task(service.passages(list("abcd"), PIN))
    await endpoint.until(1)
    with service.expecting():
        rest = asyncio.create_task(service.passages(["e"], PIN))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(endpoint.requests) == 1
    await endpoint.until(2)
    endpoint.gate.set()
    await asyncio.gather(full, rest)
    await service.close()
