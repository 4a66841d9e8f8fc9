"""Dense search over visible generations.

The index knows nothing of visibility: it is asked for more than is wanted, without a ``where``
(which costs a scan in the store; only the caller's own filter becomes one), the ledger says in
one look-up which generations may be shown, and the question is widened until there are *k* hits
or the index has no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from unjam.core.document import Pin
from unjam.core.errors import DependencyDown, SetupError, UsageError
from unjam.core.filters import parse_filter
from unjam.core.ports import Candidate, Embedder, Vectors, VectorStore, VisibleDocument
from unjam.search.fuse import reciprocal_rank

MAX_K = 200
MAX_LOOK = 16_384
"""Candidates at which widening ends: half of what one Chroma query can give (SQL variables)."""

MAX_REPEATS = 5
"""Questions asked again because a document was replaced between question and look-up."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hit:
    """One visible chunk. *score* is cosine similarity, −1 … 1, under the model of its collection.

    Hits come best first. While two models are in use their scores do not compare, and the order
    is that of the fused ranks.
    """

    document_id: str
    chunk_id: str
    score: float
    text: str
    filename: str
    page: int | None
    section: str
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    user_id: str = ""


class Visibility(Protocol):
    """What search asks of the ledger."""

    async def visible(self, document_ids: Sequence[str]) -> dict[str, VisibleDocument]: ...

    async def pins_in_use(self) -> list[Pin]: ...


class Retriever:
    """Search for callers; shared by everybody in a process."""

    def __init__(
        self,
        ledger: Visibility,
        vectors: VectorStore,
        embedder: Embedder,
        current_pin: Callable[[], Pin],
    ) -> None:
        self._ledger = ledger
        self._vectors = vectors
        self._embedder = embedder
        self._current_pin = current_pin
        self._skipped: frozenset[str] = frozenset()

    async def search(
        self, query: str, k: int = 5, filter: Mapping[str, Any] | None = None
    ) -> list[Hit]:
        """At most *k* visible chunks, best first.

        *filter* is one of ``core.filters``. While a changed model builds beside the old one, each
        collection is asked with its own model. A model that cannot be asked is left out and
        logged, as long as another answers.

        Raises:
            UsageError: empty query, *k* not in 1 … 200, a wrong filter.
            DependencyDown: ledger, vector store, or every embedding provider is away.
        """
        if not query.strip():
            raise UsageError("the query is empty", hint="Give at least one word to search for.")
        if not 1 <= k <= MAX_K:
            raise UsageError(f"k={k} is out of bounds: 1 to {MAX_K}")
        parse_filter(filter)  # wrong ones are refused even when nothing is visible yet
        rankings: Sequence[list[Hit]] = []
        pins = await self._pins()
        for _ in range(MAX_REPEATS + 1):
            asked = await self._embed(query, pins)
            looks = [self._look(pin, vector, k, filter) for pin, vector in asked]
            rankings = await asyncio.gather(*looks)
            # Documents that flipped to another model meanwhile stand in a collection that was
            # not asked, and have left the one that was.
            before, pins = pins, await self._pins()
            if pins == before:
                break
        if len(rankings) == 1:
            return rankings[0]
        hits = {hit.chunk_id: hit for ranking in rankings for hit in ranking}
        fused = reciprocal_rank([[hit.chunk_id for hit in ranking] for ranking in rankings])
        return [hits[chunk_id] for chunk_id in fused[:k]]

    async def _embed(self, query: str, pins: Sequence[Pin]) -> list[tuple[Pin, Vectors]]:
        """The query's vector per model in use, the current model first."""
        answers = await asyncio.gather(
            *(self._embedder.query(query, pin) for pin in pins), return_exceptions=True
        )
        out: list[tuple[Pin, Vectors]] = []
        errors: dict[str, Exception] = {}
        for pin, answer in zip(pins, answers, strict=True):
            if isinstance(answer, DependencyDown | SetupError):
                errors[pin.fingerprint.id] = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                out.append((pin, answer))
        if errors and not out:
            raise next(iter(errors.values()))
        self._note(pins, errors)
        return out

    async def _pins(self) -> list[Pin]:
        """One pin per fingerprint in use: chunk settings do not matter for a query."""
        current = self._current_pin().fingerprint.id
        by_model = {pin.fingerprint.id: pin for pin in await self._ledger.pins_in_use()}
        order = sorted(by_model, key=lambda model: (model != current, model))
        return [by_model[model] for model in order]

    def _note(self, pins: Sequence[Pin], errors: Mapping[str, Exception]) -> None:
        """Log a change of what is left out, once per change."""
        skipped = frozenset(errors)
        for pin in pins:
            model = pin.fingerprint
            if model.id in skipped - self._skipped:
                log.warning(
                    "search leaves out what is indexed with %s: %s", model.model, errors[model.id]
                )
        self._skipped = skipped

    async def _look(
        self, pin: Pin, vector: Vectors, k: int, where: Mapping[str, Any] | None
    ) -> list[Hit]:
        """The best *k* visible chunks of one collection."""
        limit = min(k * 4 + 16, MAX_LOOK)
        seen: dict[str, int] = {}  # document → generation the last look-up called visible
        repeats = 0
        while True:
            found = await self._vectors.query(pin.fingerprint.collection, vector, limit, where)
            ids = list(dict.fromkeys(c.chunk.document_id for c in found))
            visible = await self._ledger.visible(ids) if ids else {}
            if repeats < MAX_REPEATS and _overtaken(found, visible, seen):
                repeats += 1
                seen = {i: v.generation for i, v in visible.items()}
                continue
            hits = _shown(found, visible)
            if len(hits) >= k or len(found) < limit or limit == MAX_LOOK:
                return hits[:k]
            limit = min(limit * 4, MAX_LOOK)


def _overtaken(
    found: Sequence[Candidate],
    visible: Mapping[str, VisibleDocument],
    seen: Mapping[str, int],
) -> bool:
    """Whether a document was replaced after the index was asked and before the look-up.

    Then the index gave only old chunks, maybe before the new ones stood in it, and showing
    neither would make the document vanish for a moment. When the look-up before the question
    already knew the generation, the new chunks were there to be found and are simply not near.
    """
    newest: dict[str, int] = {}
    for c in found:
        document = c.chunk.document_id
        newest[document] = max(newest.get(document, 0), c.chunk.generation)
    return any(
        visible[d].generation > generation and seen.get(d) != visible[d].generation
        for d, generation in newest.items()
        if d in visible
    )


def _shown(found: Sequence[Candidate], visible: Mapping[str, VisibleDocument]) -> list[Hit]:
    """Candidates of visible generations, best first; ties by document and place in it."""
    shown = [
        (c, visible[c.chunk.document_id])
        for c in found
        if c.chunk.document_id in visible
        and visible[c.chunk.document_id].generation == c.chunk.generation
    ]
    shown.sort(key=lambda pair: (-pair[0].score, pair[0].chunk.document_id, pair[0].chunk.index))
    return [_hit(candidate, document) for candidate, document in shown]


def _hit(candidate: Candidate, document: VisibleDocument) -> Hit:
    chunk = candidate.chunk
    return Hit(
        document_id=chunk.document_id,
        chunk_id=chunk.id,
        score=candidate.score,
        text=chunk.text,
        filename=document.filename,
        page=chunk.page,
        section=chunk.section,
        metadata=document.metadata,
        user_id=document.user_id,
    )
