"""Search shows what is visible: all of it, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest

from unjam.core.chunk import Chunk, chunk_id
from unjam.core.document import Fingerprint, Pin
from unjam.core.errors import DependencyDown, UsageError
from unjam.core.ports import Candidate, ChunkRow, Vectors, VisibleDocument
from unjam.search.retrieve import MAX_LOOK, Retriever
from unjam.stores.memory_vectors import MemoryVectors

OLD = Pin(Fingerprint("local", "old-model"), 256, 32, "local")
NEW = Pin(Fingerprint("local", "new-model"), 256, 32, "local")
HOME = OLD.fingerprint.collection


class Shown:
    """A ledger, as far as search asks it."""

    def __init__(self) -> None:
        self.generations: dict[str, int] = {}
        self.pins: list[Pin] = [OLD]
        self.looks: list[list[str]] = []
        self.before_look: Callable[[], None] = lambda: None

    async def visible(self, document_ids: Sequence[str]) -> dict[str, VisibleDocument]:
        self.before_look()
        self.looks.append(list(document_ids))
        return {
            d: VisibleDocument(d, self.generations[d], f"{d}.txt", "kim", {"of": d})
            for d in document_ids
            if d in self.generations
        }

    async def pins_in_use(self) -> list[Pin]:
        return self.pins


class Angles:
    """An embedder whose vector of "0.3" is the unit vector at 0.3 rad."""

    def __init__(self) -> None:
        self.down: dict[str, Exception] = {}

    def expecting(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def passages(self, texts: Sequence[str], pin: Pin, *, alone: bool = False) -> Vectors:
        return np.stack([at(float(t)) for t in texts])

    async def query(self, text: str, pin: Pin) -> Vectors:
        if pin.fingerprint.model in self.down:
            raise self.down[pin.fingerprint.model]
        return at(float(text))

    async def close(self) -> None:
        pass


class Watched(MemoryVectors):
    """Tells what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int, Mapping[str, Any] | None]] = []

    async def query(
        self, collection: str, vector: Vectors, k: int, where: Mapping[str, Any] | None = None
    ) -> list[Candidate]:
        self.asked.append((collection, k, where))
        return await super().query(collection, vector, k, where)


class World:
    def __init__(self) -> None:
        self.ledger = Shown()
        self.vectors = Watched()
        self.embedder = Angles()
        self.retriever = Retriever(self.ledger, self.vectors, self.embedder, lambda: NEW)

    async def store(
        self,
        document: str,
        generation: int,
        angles: Sequence[float],
        *,
        collection: str = HOME,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        rows = [
            ChunkRow(
                chunk_id(document, generation, i),
                document,
                generation,
                "kim",
                Chunk(i, f"{document} v{generation} #{i}", 3, 0, 9, page=i + 1, section="s"),
                "stored-name.txt",
                metadata or {},
            )
            for i in range(len(angles))
        ]
        await self.vectors.upsert(collection, rows, np.stack([at(a) for a in angles]))


def at(angle: float) -> Vectors:
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_hit_can_be_cited(world: World) -> None:
    await world.store("a", 1, [0.1, 0.5])
    world.ledger.generations = {"a": 1}
    first, second = await world.retriever.search("0.45")
    assert (first.document_id, first.text, first.page, first.section) == ("a", "a v1 #1", 2, "s")
    assert first.chunk_id == chunk_id("a", 1, 1)
    assert (first.filename, first.user_id, first.metadata) == ("a.txt", "kim", {"of": "a"})
    assert first.score == pytest.approx(np.cos(0.05), abs=1e-6)
    assert first.score > second.score


async def test_only_the_visible_generation_is_shown(world: World) -> None:
    await world.store("a", 1, [0.1])
    await world.store("a", 2, [0.1])
    await world.store("b", 1, [0.1])  # still being stored: not visible at all
    world.ledger.generations = {"a": 1}
    assert [h.text for h in await world.retriever.search("0.1")] == ["a v1 #0"]
    world.ledger.generations = {"a": 2}
    assert [h.text for h in await world.retriever.search("0.1")] == ["a v2 #0"]


async def test_a_deleted_document_is_gone_before_its_chunks_are(world: World) -> None:
    await world.store("a", 1, [0.1])
    await world.store("b", 1, [0.2])
    world.ledger.generations = {"a": 1, "b": 1}
    assert len(await world.retriever.search("0.1")) == 2
    del world.ledger.generations["a"]
    assert [h.document_id for h in await world.retriever.search("0.1")] == ["b"]


async def test_a_file_that_goes_a_b_a_shows_the_last_a_whole(world: World) -> None:
    for generation in (1, 2, 3):
        await world.store("a", generation, [0.1, 0.2])
    world.ledger.generations = {"a": 3}
    # the late clean-up of the first A
    await world.vectors.delete(HOME, [chunk_id("a", 1, i) for i in range(2)])
    assert {h.text for h in await world.retriever.search("0.1")} == {"a v3 #0", "a v3 #1"}


async def test_it_widens_until_there_are_enough(world: World) -> None:
    for n in range(300):  # nearer than what is visible
        await world.store(f"hidden{n:03}", 1, [0.1])
    for n in range(8):
        await world.store(f"shown{n}", 1, [0.5 + n / 100])
        world.ledger.generations[f"shown{n}"] = 1
    hits = await world.retriever.search("0.1", k=5)
    assert [h.document_id for h in hits] == [f"shown{n}" for n in range(5)]
    assert [k for _, k, _ in world.vectors.asked] == [36, 144, 576]
    assert len(world.ledger.looks) == 3  # one look-up a round, however many documents


async def test_it_ends_when_the_index_has_no_more(world: World) -> None:
    await world.store("a", 1, [0.1] * 3)
    assert await world.retriever.search("0.1", k=200) == []
    world.ledger.generations = {"a": 1}
    assert len(await world.retriever.search("0.1", k=200)) == 3
    assert len(world.vectors.asked) == 2


async def test_widening_ends_somewhere(world: World) -> None:
    count = MAX_LOOK + 5
    await world.store("hidden", 1, [0.1] * count)
    assert await world.retriever.search("0.1", k=1) == []
    assert world.vectors.asked[-1][1] == MAX_LOOK


async def test_a_document_replaced_between_question_and_look_up_does_not_vanish(
    world: World,
) -> None:
    await world.store("a", 1, [0.1])
    world.ledger.generations = {"a": 1}
    query = world.vectors.query
    rounds: list[int] = []

    async def replaced_after(*args: Any, **kwargs: Any) -> list[Candidate]:
        found = await query(*args, **kwargs)
        if not rounds:
            await world.store("a", 2, [0.1])
            world.ledger.generations = {"a": 2}
        rounds.append(len(found))
        return found

    world.vectors.query = replaced_after
    assert [h.text for h in await world.retriever.search("0.1")] == ["a v2 #0"]
    assert len(rounds) == 2


async def test_old_chunks_nearer_than_the_new_ones_cost_one_more_round_only(
    world: World,
) -> None:
    await world.store("a", 1, [0.1] * 40)
    await world.store("a", 2, [2.0])
    world.ledger.generations = {"a": 2}
    hits = await world.retriever.search("0.1", k=1)
    assert [h.text for h in hits] == ["a v2 #0"]
    assert [k for _, k, _ in world.vectors.asked] == [20, 20, 80]


async def test_equal_scores_come_in_a_fixed_order(world: World) -> None:
    for document in ("c", "a", "b"):
        await world.store(document, 1, [0.1, 0.1])
        world.ledger.generations[document] = 1
    hits = await world.retriever.search("0.1", k=5)
    assert [h.text for h in hits] == ["a v1 #0", "a v1 #1", "b v1 #0", "b v1 #1", "c v1 #0"]


async def test_only_the_callers_filter_reaches_the_index(world: World) -> None:
    await world.store("a", 1, [0.1], metadata={"lang": "ko"})
    await world.store("b", 1, [0.1], metadata={"lang": "en"})
    world.ledger.generations = {"a": 1, "b": 1}
    await world.retriever.search("0.1")
    hits = await world.retriever.search("0.1", filter={"lang": "ko"})
    assert [h.document_id for h in hits] == ["a"]
    assert [h.document_id for h in await world.retriever.search("0.1", filter={"document_id": "b"})]
    assert [w for _, _, w in world.vectors.asked] == [None, {"lang": "ko"}, {"document_id": "b"}]


async def test_two_models_are_asked_apart_and_fused_by_rank(world: World) -> None:
    new = NEW.fingerprint.collection
    await world.store("old1", 1, [0.11])
    await world.store("old2", 1, [0.12])
    await world.store("new1", 2, [0.8], collection=new)
    await world.store("new2", 2, [0.9], collection=new)
    await world.store("new1", 1, [0.1])  # its old self, no longer visible
    world.ledger.generations = {"old1": 1, "old2": 1, "new1": 2, "new2": 2}
    world.ledger.pins = [OLD, NEW]
    hits = await world.retriever.search("0.1", k=3)
    assert [h.document_id for h in hits] == ["new1", "old1", "new2"]
    assert {c for c, _, _ in world.vectors.asked} == {HOME, new}


async def test_pins_of_one_model_are_asked_once(world: World) -> None:
    other_chunks = Pin(OLD.fingerprint, 512, 64, "local")
    world.ledger.pins = [OLD, other_chunks]
    await world.store("a", 1, [0.1])
    world.ledger.generations = {"a": 1}
    assert len(await world.retriever.search("0.1")) == 1
    assert len(world.vectors.asked) == 1


async def test_a_model_that_is_away_is_left_out_with_a_note(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.store("a", 1, [0.1])
    world.ledger.generations = {"a": 1}
    world.ledger.pins = [OLD, NEW]
    world.embedder.down["new-model"] = DependencyDown("gone", code="embedding_down")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert len(await world.retriever.search("0.1")) == 1
    assert [r.getMessage() for r in caplog.records] == [
        "search leaves out what is indexed with new-model: gone"
    ]


async def test_no_model_at_all_is_an_error(world: World) -> None:
    world.embedder.down["old-model"] = DependencyDown("gone", code="embedding_down")
    with pytest.raises(DependencyDown, match="gone"):
        await world.retriever.search("0.1")


async def test_before_the_first_document_there_are_no_hits(world: World) -> None:
    world.ledger.pins = []
    assert await world.retriever.search("0.1") == []


@pytest.mark.parametrize(
    ("query", "k", "filter"),
    [("", 5, None), (" \n", 5, None), ("0.1", 0, None), ("0.1", 201, None), ("0.1", 5, {"$x": 1})],
)
async def test_the_callers_mistakes(
    world: World, query: str, k: int, filter: Mapping[str, Any] | None
) -> None:
    world.ledger.pins = []
    with pytest.raises(UsageError):
        await world.retriever.search(query, k, filter)
