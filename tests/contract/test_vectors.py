"""What every vector store must do, run over each of them and the double in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
import pytest

from tests.fixtures.vectors import STORES, store_of
from unjam.core.chunk import Chunk, chunk_id
from unjam.core.errors import DependencyDown, UsageError
from unjam.core.ports import ChunkRow, Vectors, VectorStore

DIMENSION = 16


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[VectorStore]:
    made = await store_of(request)
    yield made
    await made.close()


def unit(seed: int, dimension: int = DIMENSION) -> Vectors:
    vector = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    return vector / np.linalg.norm(vector)


def row(
    document: str,
    index: int,
    *,
    generation: int = 1,
    user: str = "",
    text: str = "some text",
    page: int | None = None,
    section: str = "",
    filename: str = "a.txt",
    metadata: Mapping[str, Any] | None = None,
) -> ChunkRow:
    return ChunkRow(
        id=chunk_id(document, generation, index),
        document_id=document,
        generation=generation,
        user_id=user,
        chunk=Chunk(index, text, 3, 0, len(text), page, section),
        filename=filename,
        metadata=metadata or {},
    )


def stack(count: int, start: int = 0) -> Vectors:
    return np.stack([unit(start + i) for i in range(count)])


async def test_a_chunk_comes_back_as_it_went_in(store: VectorStore, collection: str) -> None:
    texts = [
        "plain English",
        "한국어 문장과 emoji 🙂",
        "quotes \" ' and \\ and\nnewlines\t",
        "긴 글. " * 500,
        " ",
    ]
    rows = [
        row("d1", i, text=t, page=i or None, section="1장 › Intro", generation=7)
        for i, t in enumerate(texts)
    ]
    await store.upsert(collection, rows, stack(len(rows)))

    got = await store.get(collection, [r.id for r in rows])

    assert [c.text for c in got] == texts
    assert [(c.document_id, c.generation, c.index) for c in got] == [
        ("d1", 7, i) for i in range(len(texts))
    ]
    assert [c.page for c in got] == [None, 1, 2, 3, 4]
    assert {c.section for c in got} == {"1장 › Intro"}


async def test_get_keeps_the_order_asked_for_and_leaves_out_what_is_not_there(
    store: VectorStore, collection: str
) -> None:
    rows = [row("d1", i) for i in range(5)]
    await store.upsert(collection, rows, stack(5))
    asked = [rows[3].id, "0" * 32, rows[0].id, rows[4].id]
    assert [c.id for c in await store.get(collection, asked)] == [
        rows[3].id,
        rows[0].id,
        rows[4].id,
    ]


async def test_missing_names_exactly_what_is_not_there(store: VectorStore, collection: str) -> None:
    rows = [row("d1", i) for i in range(4)]
    await store.upsert(collection, rows[:2], stack(2))
    assert await store.missing(collection, [r.id for r in rows]) == [rows[2].id, rows[3].id]
    assert await store.missing(collection, []) == []


async def test_a_collection_that_is_not_there_is_empty(store: VectorStore, collection: str) -> None:
    assert await store.missing(collection, ["a" * 32]) == ["a" * 32]
    assert await store.get(collection, ["a" * 32]) == []
    assert await store.query(collection, unit(1), 5) == []
    await store.delete(collection, ["a" * 32])
    assert collection not in await store.collections()


async def test_upsert_twice_is_once(store: VectorStore, collection: str) -> None:
    rows = [row("d1", i) for i in range(3)]
    await store.upsert(collection, rows, stack(3))
    await store.upsert(collection, rows, stack(3))
    hits = await store.query(collection, unit(0), 10)
    assert sorted(h.chunk.id for h in hits) == sorted(r.id for r in rows)
    assert collection in await store.collections()


async def test_query_gives_the_nearest_first_with_their_cosine(
    store: VectorStore, collection: str
) -> None:
    rows = [row("d1", i, text=f"text {i}") for i in range(40)]
    vectors = stack(40)
    await store.upsert(collection, rows, vectors)
    wanted = unit(999)
    exact = np.argsort(-(vectors @ wanted))[:5]

    hits = await store.query(collection, wanted, 5)

    assert [h.chunk.index for h in hits] == exact.tolist()
    assert [h.score for h in hits] == pytest.approx((vectors @ wanted)[exact].tolist(), abs=5e-4)
    assert hits[0].chunk.text == f"text {exact[0]}"


async def test_query_for_more_than_there_is_gives_what_there_is(
    store: VectorStore, collection: str
) -> None:
    await store.upsert(collection, [row("d1", i) for i in range(3)], stack(3))
    assert len(await store.query(collection, unit(5), 200)) == 3


async def test_deleted_chunks_are_gone_and_deleting_again_is_no_error(
    store: VectorStore, collection: str
) -> None:
    rows = [row("d1", i) for i in range(4)]
    await store.upsert(collection, rows, stack(4))
    for _ in range(2):
        await store.delete(collection, [rows[0].id, rows[1].id])
    await store.delete(collection, [])
    assert await store.missing(collection, [r.id for r in rows]) == [rows[0].id, rows[1].id]
    assert {h.chunk.index for h in await store.query(collection, unit(0), 10)} == {2, 3}


async def test_generations_do_not_meet(store: VectorStore, collection: str) -> None:
    old, new = row("d1", 0, generation=1, text="A"), row("d1", 0, generation=3, text="A")
    await store.upsert(collection, [old, new], stack(2))
    await store.delete(collection, [old.id])
    assert [c.generation for c in await store.get(collection, [old.id, new.id])] == [3]


async def test_another_dimension_is_said_so(store: VectorStore, collection: str) -> None:
    await store.upsert(collection, [row("d1", 0)], stack(1))
    with pytest.raises(DependencyDown) as caught:
        await store.upsert(collection, [row("d1", 1)], unit(1, 8)[None, :])
    assert caught.value.code == "embedding_dimension_changed"
    with pytest.raises(DependencyDown) as caught:
        await store.query(collection, unit(1, 8), 3)
    assert caught.value.code == "embedding_dimension_changed"


async def test_a_large_batch_is_split(store: VectorStore, collection: str) -> None:
    count = 6000  # more than Chroma's greatest batch, 5461
    rows = [row("d1", i) for i in range(count)]
    vectors = np.random.default_rng(1).standard_normal((count, 4)).astype(np.float32)
    await store.upsert(collection, rows, vectors)
    ids = [r.id for r in rows]
    assert await store.missing(collection, [*ids, "nope"]) == ["nope"]
    await store.delete(collection, ids)
    assert await store.missing(collection, ids) == ids


FILTERS: list[tuple[Mapping[str, Any], set[int]]] = [
    ({}, {0, 1, 2, 3, 4}),
    ({"user_id": "kim"}, {0, 1}),
    ({"user_id": ""}, {4}),
    ({"document_id": {"$in": ["d0", "d3"]}}, {0, 3}),
    ({"filename": "보고서.pdf"}, {1}),
    ({"lang": "ko"}, {0, 2}),
    ({"lang": {"$ne": "ko"}}, {1, 3, 4}),
    ({"lang": {"$nin": ["ko", "en"]}}, {3, 4}),
    ({"year": 2020}, {0}),
    ({"year": 2020.0}, {0}),
    ({"year": {"$gte": 2020, "$lt": 2022}}, {0, 1}),
    ({"year": {"$gt": 2020.5}}, {1, 2}),
    ({"year": {"$lte": 2020}}, {0}),
    ({"draft": True}, {2}),
    ({"draft": {"$eq": False}}, {0}),
    ({"draft": {"$ne": True}}, {0, 1, 3, 4}),
    ({"year": "2020"}, set()),
    ({"lang": "ko", "year": {"$gt": 2020}}, {2}),
    ({"$or": [{"lang": "en"}, {"year": 2022}]}, {1, 2}),
    ({"$and": [{"lang": "ko"}, {"$or": [{"year": 2020}, {"user_id": "lee"}]}]}, {0, 2}),
    ({"metadata.user_id": "shadow"}, {3}),
    ({"부서": "영업"}, {3}),
    ({"tags": "x"}, set()),
    ({"user_id": {"$ne": "kim"}}, {2, 3, 4}),
    ({"user_id": {"$nin": ["kim", "lee"]}}, {4}),
    ({"user_id": {"$in": [1, 2]}}, set()),
    ({"filename": {"$ne": 3}}, {0, 1, 2, 3, 4}),
    ({"year": {"$ne": 2020}}, {1, 2, 3, 4}),
    ({"year": {"$in": [2020, 2022.0]}}, {0, 2}),
    ({"year": {"$in": [2022.0]}}, {2}),
    ({"a.b": {"$in": [-1, -1.5]}}, {4}),
    ({"year": {"$nin": [2020, 2021]}}, {2, 3, 4}),
    ({"draft": 1}, set()),
    ({"draft": {"$gt": 0}}, set()),
    ({"lang": {"$lt": 5}}, set()),
    ({"big": {"$gt": 1e29}}, {4}),
    ({'it\'s a "key" [0].x': "v'1"}, {4}),
    ({'it\'s a "key" [0].x': {"$in": ["v'1", "%"]}}, {4}),
    ({"a.b": {"$gte": -1.5, "$lte": -1.5}}, {4}),
    ({"$or": [{"nobody": 1}, {"$and": [{"a.b": -1.5}, {"lang": {"$ne": "ko"}}]}]}, {4}),
]


async def test_filters(store: VectorStore, collection: str) -> None:
    rows = [
        row("d0", 0, user="kim", metadata={"lang": "ko", "year": 2020, "draft": False}),
        row("d1", 1, user="kim", filename="보고서.pdf", metadata={"lang": "en", "year": 2021}),
        row("d2", 2, user="lee", metadata={"lang": "ko", "year": 2022, "draft": True}),
        row("d3", 3, user="lee", metadata={"user_id": "shadow", "부서": "영업", "tags": ["x"]}),
        row(
            "d4",
            4,
            metadata={
                "big": 10**30,
                "long": "x" * 1000,
                "none": None,
                'it\'s a "key" [0].x': "v'1",
                "a.b": -1.5,
            },
        ),
    ]
    await store.upsert(collection, rows, stack(5))
    for where, expected in FILTERS:
        hits = await store.query(collection, unit(0), 10, where)
        assert {h.chunk.index for h in hits} == expected, where


WRONG: list[tuple[Mapping[str, Any], str]] = [
    ({"year": {"$near": 3}}, "$near"),
    ({"$not": [{"a": 1}]}, "$not"),
    ({"lang": {"$gt": "a"}}, "lang"),
    ({"lang": {"$in": []}}, "lang"),
    ({"lang": {"$in": ["a", 1]}}, "lang"),
    ({"lang": None}, "lang"),
    ({"lang": ["a"]}, "lang"),
    ({"lang": {}}, "lang"),
    ({"$or": []}, "$or"),
    ({"$and": {"a": 1}}, "$and"),
    ({"n": float("nan")}, "n"),
]


async def test_a_wrong_filter_is_the_callers_mistake(store: VectorStore, collection: str) -> None:
    await store.upsert(collection, [row("d0", 0)], stack(1))
    for where, named in WRONG:
        with pytest.raises(UsageError) as caught:
            await store.query(collection, unit(0), 10, where)
        assert named in str(caught.value)


async def test_strange_characters_are_no_trouble(store: VectorStore, collection: str) -> None:
    rows = [row("d0", 0, filename="a\ud800b\0.txt", user="u\udfff", metadata={"k\udc00": "v\0"})]
    await store.upsert(collection, rows, stack(1))
    assert len(await store.get(collection, [rows[0].id])) == 1


async def test_ping_answers(store: VectorStore) -> None:
    await store.ping()


async def test_a_collection_tells_what_it_holds_and_whose_it_is(
    store: VectorStore, collection: str
) -> None:
    assert await store.facts(collection) is None
    await store.sign(collection, "me")  # nothing to sign
    await store.upsert(collection, [row("d", i) for i in range(3)], stack(3))
    facts = await store.facts(collection)
    assert facts is not None
    assert (facts.rows, facts.owners) == (3, frozenset())
    for owner in ("me", "you", "me"):
        await store.sign(collection, owner)
    signed = await store.facts(collection)
    assert signed is not None
    assert (signed.identity, signed.owners) == (facts.identity, {"me", "you"})
    await store.upsert(collection, [row("d", 3)], stack(1, 3))
    (near,) = await store.query(collection, unit(3), 1)
    assert near.chunk.id == chunk_id("d", 1, 3)


async def test_all_rows_are_met_by_a_walk(store: VectorStore, collection: str) -> None:
    assert await store.stored(collection, 0, 10) == []
    rows = [row("d", i, generation=2) for i in range(7)]
    await store.upsert(collection, rows, stack(7))
    seen = [r for start in (0, 3, 6) for r in await store.stored(collection, start, 3)]
    assert sorted(r.id for r in seen) == sorted(r.id for r in rows)
    assert {(r.document_id, r.generation) for r in seen} == {("d", 2)}
    assert await store.stored(collection, 7, 3) == []
    again = [r for start in (0, 2, 4) for r in await store.stored(collection, start, 2)]
    assert again == seen[:6]
    for start in (3, 0, 5):  # no walk: anywhere
        assert await store.stored(collection, start, 2) == seen[start : start + 2]
