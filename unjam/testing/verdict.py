"""Verdict: whether a system that was hurt kept its promises, judged from outside.

Compared are the ids that were accepted, a search for a text that stands in one document only, and
the *set* of chunk ids in the vector store with what a parse of the same bytes here and now gives.

Texts get random vectors (mode ``hash``). Bags of words are too much alike: of 9,316 such chunks of
a run without any fault the approximate index could not reach 5, of random ones it reached all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import httpx
import orjson

from unjam.app.services import Services
from unjam.core.chunk import Chunk, chunk_ids
from unjam.core.document import Document, State
from unjam.core.errors import DependencyDown
from unjam.core.ports import Equation, ParseJob
from unjam.embedding.factory import tokenizer_spec
from unjam.settings import MIB
from unjam.stores.chroma_http import ChromaHttp
from unjam.testing.openai_process import FakeOpenAI

PAGE = 2000
AT_ONCE = 8


class Judged(Protocol):
    """What is looked at: services of this process, on the ledger and stores of the system."""

    @property
    def services(self) -> Services: ...
    @property
    def chroma_url(self) -> str: ...
    @property
    def endpoint(self) -> FakeOpenAI: ...


@dataclass
class Verdict:
    """Every list holds ids with what is wrong; all are empty when nothing is."""

    accepted: int
    settled_s: float = 0.0  # 0: it did not settle in time
    searchable_s: float = 0.0  # until the last document was searchable
    not_searchable: list[str] = field(default_factory=list[str])
    not_found: list[str] = field(default_factory=list[str])
    wrong_count: list[str] = field(default_factory=list[str])
    missing_chunks: list[str] = field(default_factory=list[str])
    foreign_chunks: list[str] = field(default_factory=list[str])
    equation: Equation | None = None
    last: str = ""  # what befell the document that was searchable last
    embedded: int = 0
    embedded_twice: int = 0
    dead: int = 0  # further documents that had to end parked

    @property
    def ok(self) -> bool:
        return not self.problems()

    def problems(self) -> list[str]:
        """What is broken, one line each."""
        lines = [
            f"{name.replace('_', ' ')}: {len(some)}, e.g. {some[:3]}"
            for name in (
                "not_searchable",
                "not_found",
                "wrong_count",
                "missing_chunks",
                "foreign_chunks",
            )
            if (some := getattr(self, name))
        ]
        if not self.settled_s:
            lines.append("it did not settle in time")
        e = self.equation
        wanted = (self.accepted + self.dead, self.accepted, self.dead, 0)
        if e is None or (e.accepted, e.searchable, e.dead, e.missing) != wanted:
            lines.append(f"the equation: {e}, with {self.accepted} accepted")
        return lines

    def __str__(self) -> str:
        if self.ok:
            return (
                f"{self.accepted} documents searchable, chunks exact; settled after "
                f"{self.settled_s:.1f} s; {self.embedded_twice} of {self.embedded} texts were "
                "embedded twice"
            )
        return "\n".join(self.problems())


async def judge(
    stack: Judged, expected: Mapping[str, str], within_s: float, *, dead: int = 0
) -> Verdict:
    """Wait until everything is at its end, at most *within_s* seconds, then look at all of it.

    *expected*: id → text of those that must be searchable; *dead*: how many others are parked.
    """
    began = time.monotonic()
    verdict = Verdict(len(expected), dead=dead)
    documents = await _searchable(stack, expected, began + within_s, verdict)
    verdict.searchable_s = time.monotonic() - began
    last = max(documents.values(), key=lambda d: d.searchable_at or 0.0)
    verdict.last = await _story(stack, last.id, last)
    wanted, openings = await _wanted(stack, expected, documents, verdict)
    while True:
        held = await _held(stack)
        settled = held is not None and held == set(wanted)
        if settled and not verdict.not_searchable:
            verdict.settled_s = time.monotonic() - began
        if settled or time.monotonic() > began + within_s:
            break
        await asyncio.sleep(0.2)
    held = held or set()
    verdict.missing_chunks = sorted({wanted[i] for i in set(wanted) - held})
    verdict.foreign_chunks = sorted(held - set(wanted))
    stats = stack.endpoint.stats()  # before the queries, which are embedded, too
    verdict.embedded, verdict.embedded_twice = stats["embedded"], stats["repeated"]
    verdict.not_found = await _not_found(stack, openings)
    verdict.equation = await stack.services.ledger.equation()
    return verdict


async def _searchable(
    stack: Judged, expected: Mapping[str, str], end: float, verdict: Verdict
) -> dict[str, Document]:
    """All documents, as they stand once all are searchable, one is dead or time is up."""
    while True:
        found: dict[str, Document] = {}
        for document_id in expected:
            document = await stack.services.ledger.get(document_id)
            if document is not None:
                found[document_id] = document
        states = {i: found[i].state if i in found else None for i in expected}
        bad = [i for i, state in states.items() if state is not State.SEARCHABLE]
        given_up = bad and all(states[i] is State.DEAD for i in bad)
        if not bad or given_up or time.monotonic() > end:
            verdict.not_searchable = [await _story(stack, i, found.get(i)) for i in bad]
            return found
        await asyncio.sleep(0.1)


async def _story(stack: Judged, document_id: str, document: Document | None) -> str:
    if document is None:
        return f"{document_id}: not in the ledger"
    events = await stack.services.ledger.events(document_id)
    told = [f"{e.at:.2f} {e.kind}{dict(e.data)}" for e in events[-24:]]
    state = f"{document.state} reason={document.reason!r} detail={document.detail!r}"
    return f"{document_id}: {state} deaths={document.deaths}\n      " + "\n      ".join(told)


async def _wanted(
    stack: Judged,
    expected: Mapping[str, str],
    documents: Mapping[str, Document],
    verdict: Verdict,
) -> tuple[dict[str, str], dict[str, str]]:
    """By a parse of our own: chunk id → document, of all that must be in the vector store, and
    document → text of its first chunk."""
    tools, parser = stack.services.tools()
    pin = stack.services.current_pin()
    turn = asyncio.Semaphore(AT_ONCE)

    async def chunks_of(document_id: str) -> list[Chunk]:
        document = documents[document_id]
        body = expected[document_id].encode()
        job = ParseJob(
            path=await tools.blobs.path(document.content_hash),
            filename=document.filename,
            media_type=document.media_type,
            size_bytes=len(body),
            chunk_tokens=pin.chunk_tokens,
            overlap_tokens=pin.overlap_tokens,
            tokenizer=tokenizer_spec(pin),
            memory_bytes=512 * MIB,
            cpu_s=60.0,
            wall_s=60.0,
            output_bytes=64 * MIB,
        )
        async with turn:
            if (await asyncio.to_thread(job.path.read_bytes)) != body:
                verdict.wrong_count.append(f"{document_id}: the original is another one")
            return [chunk async for window in parser.chunks(job) for chunk in window]

    try:
        present = [i for i in expected if i in documents]
        parsed = dict(zip(present, await asyncio.gather(*map(chunks_of, present)), strict=True))
    finally:
        await parser.close()
    wanted: dict[str, str] = {}
    for document_id, chunks in parsed.items():
        document = documents[document_id]
        if document.state is State.SEARCHABLE and document.chunks != len(chunks):
            verdict.wrong_count.append(f"{document_id}: {document.chunks} instead of {len(chunks)}")
        generation = document.visible_generation or document.generation
        wanted |= dict.fromkeys(chunk_ids(document_id, generation, len(chunks)), document_id)
    return wanted, {i: chunks[0].text for i, chunks in parsed.items()}


async def _held(stack: Judged) -> set[str] | None:
    """Every id in every collection of the vector store; None while it is away."""
    client = ChromaHttp(stack.chroma_url)
    try:
        ids: list[str] = []
        for name in await client.names(10.0):
            collection = await client.find(name, 10.0)
            for offset in count(0, PAGE):
                body = orjson.dumps({"include": [], "limit": PAGE, "offset": offset})
                page: Sequence[str] = (await client.on(collection, "get", body, 30.0))["ids"]
                ids += page
                if len(page) < PAGE:
                    break
    except (DependencyDown, httpx.HTTPError):
        return None
    finally:
        await client.close()
    return set(ids)


async def _not_found(stack: Judged, openings: Mapping[str, str]) -> list[str]:
    """Documents that a search for their first chunk's text does not show among the first five."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def look(opening: str) -> set[str]:
        async with turn:
            hits = await stack.services.retriever.search(opening, k=5)
        return {hit.document_id for hit in hits}

    found = await asyncio.gather(*map(look, openings.values()))
    return [i for i, shown in zip(openings, found, strict=True) if i not in shown]
