"""The whole house on another vector store, filled from the one before without paying twice."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.stack import FAST, model_of
from unjam.app.doctor import examine
from unjam.core.chunk import chunk_ids
from unjam.core.document import State
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended

pytestmark = pytest.mark.thorough

WORDS = ("harbour", "lantern", "orchard", "granite", "compass", "feather")


def text(word: str) -> str:
    return "\n\n".join(f"{word} part {n} lies behind the mill. " * 6 for n in range(8))


@pytest.fixture(params=["lancedb", "pgvector"])
def another_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "lancedb":
        pytest.importorskip("lancedb", reason="unjam[lancedb] is not installed")
        return f"lancedb://{tmp_path / 'lance'}"
    return request.getfixturevalue("pgvector_url")


async def unjam(stack: Stack, *command: str, code: int = 0) -> Any:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "OPENAI_"))}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "unjam.cli.main", *command, "--json"],
        env={**env, **stack.environment()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


async def found(stack: Stack, word: str) -> str:
    (hit, *_) = await stack.services.retriever.search(f"{word} part 1 lies behind the mill.", k=1)
    return hit.document_id


async def test_a_store_is_filled_beside_and_then_serves(
    tmp_path: Path,
    redis_url: str,
    chroma_url: str,
    fake_openai: FakeOpenAI,
    another_url: str,
) -> None:
    fake_openai.control(mode="bag")
    extra = {"RAG_EMBEDDING_MODEL": model_of(tmp_path), "RAG_MAX_CHUNK_SIZE": "64", **FAST}
    first = Stack(tmp_path / "data", redis_url, chroma_url, fake_openai.url, extra=extra)
    async with first as stack:
        worker = stack.worker()
        ids = [await stack.add(text(w), f"{w}.txt", user_id="ann") for w in WORDS]
        ended = await until_ended(stack.services.ledger, ids)
        assert {d.state for d in ended.values()} == {State.SEARCHABLE}
        paid = fake_openai.stats()["texts"]
        chunks = sum(d.chunks for d in ended.values())
        assert chunks > 2 * len(ids)

        said = await unjam(stack, "migrate-vectors", another_url)
        assert (said["documents"], said["written"], said["left"]) == (len(ids), chunks, [])
        again = await unjam(stack, "migrate-vectors", another_url)
        assert (again["chunks"], again["written"], again["left"]) == (chunks, 0, [])
        await worker.stop()

    second = replace(first, extra={**extra, "RAG_VECTOR_STORE_URL": another_url}, processes=[])
    async with second as stack:
        vectors, ledger = stack.services.vectors, stack.services.ledger
        collection = stack.services.current_pin().fingerprint.collection
        assert [await found(stack, w) for w in WORDS] == ids
        facts = await vectors.facts(collection)
        assert facts is not None and ledger.id in facts.owners
        assert fake_openai.stats()["texts"] - paid <= len(WORDS), "only the questions"

        stack.worker()
        stack.watchdog()
        late = await stack.add(text("meadow"), "meadow.txt")
        await until_ended(ledger, [late])
        assert await found(stack, "meadow") == late
        names = {c.name: c for c in (await examine(stack.settings)).checks}
        store = stack.settings.vector_store
        assert names[store.lower()].level == "ok" and "chroma" not in names

        # Rows are lost behind everybody's back: they come back from the cache.
        paid = fake_openai.stats()["texts"]
        await vectors.delete(collection, chunk_ids(ids[0], 1, ended[ids[0]].chunks)[1:])
        said = await unjam(stack, "migrate-vectors")
        assert (said["documents"], said["left"]) == (len(ids) + 1, [])
        assert fake_openai.stats()["texts"] == paid
        assert await found(stack, WORDS[0]) == ids[0]

        await ledger.delete(ids[1])
        gone = chunk_ids(ids[1], 1, ended[ids[1]].chunks)

        async def absent() -> list[str]:
            return await vectors.missing(collection, gone)

        await until("its chunks are gone", absent, lambda a: len(a) == len(gone), deadline_s=20)


async def test_a_run_that_was_cut_off_goes_on(
    stack: Stack, tmp_path: Path, fake_openai: FakeOpenAI
) -> None:
    pytest.importorskip("lancedb", reason="unjam[lancedb] is not installed")
    from unjam.stores.vectors_lance import LanceVectors

    stack.worker()
    ids = [await stack.add(text(w), f"{w}.txt") for w in WORDS]
    ended = await until_ended(stack.services.ledger, ids)
    url = f"lancedb://{tmp_path / 'lance'}"
    whole = await unjam(stack, "migrate-vectors", url)
    paid = fake_openai.stats()["texts"]
    target = LanceVectors(tmp_path / "lance")
    collection = stack.services.current_pin().fingerprint.collection
    lost = [i for document in ids[2:] for i in chunk_ids(document, 1, ended[document].chunks)]
    await target.delete(collection, lost)
    # One document lacks a chunk in the store in use, too: it is named, and left to the workers.
    await stack.services.vectors.delete(collection, chunk_ids(ids[5], 1, 1))

    said = await unjam(stack, "migrate-vectors", url, code=1)

    assert said["left"] == [ids[5]]
    assert said["written"] == len(lost) - 1 and said["chunks"] == whole["chunks"]
    assert await target.missing(collection, lost) == [chunk_ids(ids[5], 1, 1)[0]]
    assert fake_openai.stats()["texts"] == paid
    await target.close()
