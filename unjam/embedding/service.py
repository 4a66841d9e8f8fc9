"""The embedding service: cache, batch, govern, provide."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from unjam.core.document import Fingerprint, Pin
from unjam.core.errors import DependencyDown, DocumentRejected
from unjam.core.ports import Provider, VectorCache, Vectors
from unjam.embedding.batcher import Answer, Batcher
from unjam.embedding.cache import EmbeddingCache, cache_key
from unjam.embedding.fingerprint import is_local, query_prefix
from unjam.embedding.governor import Lane

REMEMBERED_QUERIES = 256


@dataclass(frozen=True, slots=True)
class Flow:
    """How requests of one fingerprint are cut and spread at this moment."""

    size: Callable[[], int]  # texts per request
    in_flight: Callable[[], int]  # requests
    latency_s: Callable[[], float] = lambda: 0.0  # of an answer
    too_large: Callable[[int], None] = lambda _: None  # hears of batches that had to be halved


class Providers(Protocol):
    """Makes providers, one per fingerprint and lane. Raises DependencyDown when it cannot."""

    def get(self, fingerprint: Fingerprint, lane: Lane) -> Provider: ...

    def flow(self, fingerprint: Fingerprint) -> Flow: ...

    async def close(self) -> None: ...


class EmbeddingService:
    """Embedder over a cache and whatever providers there are. One per process and event loop."""

    def __init__(self, store: VectorCache, providers: Providers) -> None:
        """*store* is closed with the service."""
        self._store = store
        self._providers = providers
        self._batchers: dict[str, Batcher] = {}
        self._queries: OrderedDict[tuple[str, str], Vectors] = OrderedDict()
        self._expected = 0  # documents that are read, or looked up in the cache

    @contextmanager
    def expecting(self) -> Generator[None]:
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1
            if not self._expected:
                for batcher in self._batchers.values():
                    batcher.look()

    async def passages(self, texts: Sequence[str], pin: Pin, *, alone: bool = False) -> Vectors:
        """Shape (texts, dimension).

        Whatever was embedded is in the cache before this returns, also when it raises.

        Raises:
            DocumentRejected: (embedding_refused) names the index of the refused text.
            DependencyDown: waiting reasons embedding_*.
        """
        fingerprint = pin.fingerprint
        if not texts:
            return np.empty((0, fingerprint.dimension), np.float32)
        prefixed = [fingerprint.role_prefix + text for text in texts]
        cache = EmbeddingCache(self._store, fingerprint)
        with self.expecting():
            answers: dict[str, Answer] = {**await cache.find(list(dict.fromkeys(prefixed)))}
        missing = [text for text in dict.fromkeys(prefixed) if text not in answers]
        if missing:
            batcher = self._batcher(fingerprint)
            embed = batcher.embed_alone if alone else batcher.embed
            answers.update(await embed(missing))
        _raise_worst(prefixed, answers)
        return _stack([answers[text] for text in prefixed])

    async def query(self, text: str, pin: Pin) -> Vectors:
        """Shape (dimension,). Never waits behind ingestion."""
        key = (pin.fingerprint.id, text)
        known = self._queries.get(key)
        if known is not None:
            self._queries.move_to_end(key)
            return known
        provider = self._providers.get(pin.fingerprint, "query")
        vector = (await provider.embed([query_prefix(pin.fingerprint) + text]))[0]
        self._queries[key] = vector
        if len(self._queries) > REMEMBERED_QUERIES:
            self._queries.popitem(last=False)
        return vector

    async def warm_up(self, pin: Pin) -> None:
        """Load model or client now: the first document need not wait for it.

        Raises:
            DependencyDown: waiting reasons embedding_*.
        """
        await self._providers.get(pin.fingerprint, "ingest").warm_up()

    async def probe(self, pin: Pin) -> None:
        """Whether the endpoint answers now: one request of one word, past every cache.

        Raises:
            DependencyDown: waiting reasons embedding_*. DocumentRejected: it refuses the word.
        """
        if is_local(pin.fingerprint):
            return
        await self._providers.get(pin.fingerprint, "query").embed(["probe"])

    async def forget(self, texts: Sequence[str], pin: Pin) -> None:
        """Drop the cached vectors of these chunk texts."""
        prefix = pin.fingerprint.role_prefix
        keys = [cache_key(pin.fingerprint, prefix + text) for text in texts]
        await self._store.remove_many(keys)

    async def close(self) -> None:
        for batcher in self._batchers.values():
            await batcher.close()
        await self._providers.close()
        await self._store.close()

    def _batcher(self, fingerprint: Fingerprint) -> Batcher:
        batcher = self._batchers.get(fingerprint.id)
        if batcher is None:
            flow = self._providers.flow(fingerprint)
            batcher = Batcher(
                self._providers.get(fingerprint, "ingest").embed,
                EmbeddingCache(self._store, fingerprint).keep,
                size=flow.size,
                in_flight=flow.in_flight,
                latency_s=flow.latency_s,
                too_large=flow.too_large,
                expected=lambda: self._expected > 0,
            )
            self._batchers[fingerprint.id] = batcher
        return batcher


def _raise_worst(texts: Sequence[str], answers: Mapping[str, Answer]) -> None:
    """Raise what ends a document before what makes it wait."""
    errors = {
        text: error
        for text in dict.fromkeys(texts)
        if isinstance(error := answers.get(text), Exception)
    }
    for text, error in errors.items():
        if isinstance(error, DocumentRejected):
            number = texts.index(text)
            detail = f"Chunk {number} of this window: {error.detail}"
            evidence = {**error.evidence, "text": number}
            raise DocumentRejected(detail, code=error.code, hint=error.hint, evidence=evidence)
    for error in errors.values():
        raise error


def _stack(vectors: Sequence[Answer]) -> Vectors:
    rows = [vector for vector in vectors if not isinstance(vector, Exception)]
    if len({row.shape for row in rows}) != 1:
        raise DependencyDown(
            "Cached and new vectors differ in dimension", code="embedding_dimension_changed"
        )
    return np.stack(rows).astype(np.float32, copy=False)
