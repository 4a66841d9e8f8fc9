"""Services: everything a process needs, built from Settings."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from unjam.app.house import House, knobs_set, without_password
from unjam.app.knobs import LiveKnobs
from unjam.app.originals import in_bucket, open_blobs
from unjam.app.vector_stores import open_vectors
from unjam.core import breaker
from unjam.core.breaker import Breaker
from unjam.core.document import Claim, Pin
from unjam.core.errors import DependencyDown, SetupError
from unjam.core.ports import Blobs, Embedder, Ledger, VectorStore
from unjam.embedding.factory import build_embedder, tokenizer_spec
from unjam.embedding.fingerprint import current_pin
from unjam.observe import words
from unjam.pipeline.breakers import Breakers, Check
from unjam.pipeline.intake import Intake, IntakeLimits
from unjam.pipeline.run import Limits, Tools
from unjam.pipeline.sandbox import SandboxParser
from unjam.pipeline.sniff import sniff
from unjam.pipeline.steps import Checkpoint, no_checkpoint
from unjam.pipeline.store import VectorWriter
from unjam.pipeline.verdict import Interrupted
from unjam.queue.lanes import BULK, LARGE, lane_for, parse_type_queues
from unjam.queue.rq_queue import RqQueue
from unjam.search.retrieve import Retriever
from unjam.settings import MIB, Settings
from unjam.stores.ledger import SqlLedger
from unjam.stores.reserve import Reserve
from unjam.stores.vector_cache import SqliteVectorCache

PROBE_OVERDUE_S = 10.0
"""A probe is due every 2 s while a dependency is away."""


@dataclass(frozen=True)
class Services:
    """One process's adapters. ``close`` it."""

    settings: Settings
    ledger: Ledger
    blobs: Blobs
    queue: RqQueue
    vectors: VectorStore
    embedder: Embedder
    retriever: Retriever
    intake: Intake
    knobs: LiveKnobs
    breakers: Breakers
    reserve: Reserve

    def current_pin(self) -> Pin:
        """What a generation that is created now is pinned to."""
        return current_pin(self.settings, self.knobs())

    def tools(self, parser: SandboxParser | None = None) -> tuple[Tools, SandboxParser]:
        """What a worker runs documents with; the parser is to be closed."""
        parser = parser or SandboxParser()
        return (
            Tools(
                blobs=self.blobs,
                parser=parser,
                embedder=self.embedder,
                writer=VectorWriter(self.vectors),
                tokenizer_of=_tokenizer_of,
                limits=Limits(memory_bytes=self.settings.parser_memory_mb * MIB),
                checkpoint=_checkpoint(),
            ),
            parser,
        )

    async def warm(self, parser: SandboxParser) -> None:
        """Load what documents of today's pin need. What hinders it, the first one will say."""
        with contextlib.suppress(DependencyDown):
            await self.embedder.warm_up(self.current_pin())
        with contextlib.suppress(SetupError, Interrupted):
            # In a thread: the local model may have to be built.
            await parser.warm_up(await asyncio.to_thread(tokenizer_spec, self.current_pin()))

    def house(self) -> House:
        return house_of(self.settings, self.ledger.id)

    async def close(self) -> None:
        await self.intake.close()
        await self.breakers.close()
        await self.knobs.close()
        for part in (self.embedder, self.queue, self.vectors, self.blobs, self.ledger):
            with contextlib.suppress(Exception):
                await part.close()


def _checkpoint() -> Checkpoint:
    """Nothing in production; under UNJAM_TESTING=1 the crash point that the environment names."""
    if os.environ.get("UNJAM_TESTING") != "1":
        return no_checkpoint
    from unjam.testing.crash import checkpoint_from_environment

    return checkpoint_from_environment()


def _tokenizer_of(claim: Claim) -> str:
    return tokenizer_spec(claim.pin)


def house_of(settings: Settings, ledger_id: str) -> House:
    """The house that these settings describe."""
    return House(
        ledger_id=ledger_id,
        data_dir=str(settings.data_dir),
        log_dir=str(settings.log_dir),
        redis_url=without_password(settings.redis_url or ""),
        chroma_url=without_password(settings.chroma_url or ""),
        vector_store_url=without_password(settings.vector_store_url or ""),
        database_url=without_password(settings.database_url or ""),
        storage_url=without_password(settings.storage_url or ""),
        knobs=knobs_set(settings),
        embedding="" if settings.uses_local_model else _endpoint_of(settings),
    )


def _endpoint_of(settings: Settings) -> str:
    return f"{settings.model}; text is sent to {without_password(settings.openai_base_url)}"


def ledger_url(settings: Settings) -> str:
    return settings.database_url or f"sqlite:///{settings.data_dir / 'ledger.db'}"


async def open_ledger(settings: Settings) -> SqlLedger:
    """The ledger, created or migrated where needed.

    Raises:
        LedgerVersionError: it is newer than this program.
        DependencyDown: ledger_unwritable.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return await SqlLedger.open(
        ledger_url(settings),
        gate_dir=settings.data_dir,
        freed=lambda it: words.writer_freed(it.how, it.pid, it.title, it.stood_s),
    )


async def open_services(settings: Settings, *, role: str) -> Services:
    """Build every adapter; nothing needs to answer yet but the ledger.

    Raises:
        SetupError: no Redis or vector store is known, its library is not installed, or the blob
            folder belongs to another ledger.
        DependencyDown: ledger_unwritable.
    """
    if settings.redis_url is None or settings.vectors_url is None:
        raise SetupError(
            "no running system was found",
            hint="Start one with `unjam up`, or set RAG_REDIS_URL and RAG_CHROMA_URL.",
        )
    vectors = open_vectors(settings.vectors_url, settings.data_dir)
    ledger = await open_ledger(settings)
    blobs = await _settled_blobs(settings, ledger)
    knobs = LiveKnobs(settings, ledger)
    await knobs.refresh()
    knobs.follow()
    queue = RqQueue(settings.redis_url)
    cache = SqliteVectorCache(settings.data_dir / "embeddings.db", settings.cache_mb * MIB)
    embedder = build_embedder(settings, cache, knobs)
    pin = partial(_pin_now, settings, knobs)
    reserve = Reserve(settings.data_dir, 0 if settings.database_url else settings.reserve_bytes)
    checks: dict[str, Check] = {
        breaker.LEDGER: lambda: asyncio.to_thread(reserve.restore),
        breaker.REDIS: queue.ping,
        breaker.BLOBS: blobs.ping,
        breaker.EMBEDDING: lambda: embedder.probe(pin()),
        breaker.CHROMA: vectors.ping,
    }
    breakers = Breakers(ledger, checks, relieve=reserve.release, changed=_tell)
    breakers.follow(probe=role != "api", write_check=role == "api")
    intake = Intake(
        ledger,
        blobs,
        queue,
        sniff=sniff,
        lane_for=_lanes(settings),
        current_pin=pin,
        max_upload_bytes=settings.max_upload_bytes,
        limits=limits_of(settings),
        held=partial(_uploads_held, breakers, in_bucket(settings), ledger.now),
        met=breakers.met,
    )
    return Services(
        settings=settings,
        ledger=ledger,
        blobs=blobs,
        queue=queue,
        vectors=vectors,
        embedder=embedder,
        retriever=Retriever(ledger, vectors, embedder, pin),
        intake=intake,
        knobs=knobs,
        breakers=breakers,
        reserve=reserve,
    )


def _uploads_held(breakers: Breakers, in_bucket: bool, now: Callable[[], float]) -> Breaker | None:
    """Why no upload is begun now. A bucket is away for every host alike, and asking it again takes
    seconds each; of a folder, each host asks its own."""
    if (held := breakers.of(breaker.LEDGER)) is not None:
        return held
    away = breakers.of(breaker.BLOBS) if in_bucket else None
    # No worker and no watchdog runs that would probe it: uploads find out by themselves.
    unasked = away is not None and now() > (away.until or 0.0) + PROBE_OVERDUE_S
    return None if unasked else away


def limits_of(settings: Settings) -> IntakeLimits:
    """When uploads are asked to come back later."""
    return IntakeLimits(
        documents=settings.max_queued_documents,
        size_bytes=settings.max_queued_mb * MIB,
        oldest_s=settings.max_queue_age_s,
        free_bytes=settings.min_free_disk_mb * MIB,
    )


def _tell(changed: Breaker) -> None:
    if changed.name.startswith(breaker.PAUSE):
        words.lane_paused(changed.name.removeprefix(breaker.PAUSE), changed.holds, changed.detail)
    elif changed.holds:
        words.dependency_lost(changed.reason, changed.detail)
    else:
        words.dependency_back(changed.name)


async def _settled_blobs(settings: Settings, ledger: SqlLedger) -> Blobs:
    """The originals' store, marked as this ledger's or verified to be. Closes *ledger* when it
    raises SetupError."""
    try:
        blobs = open_blobs(settings)
        await blobs.settle(ledger.id, known=(await ledger.equation()).accepted > 0)
    except SetupError:
        await ledger.close()
        raise
    return blobs


def _pin_now(settings: Settings, knobs: LiveKnobs) -> Pin:
    return current_pin(settings, knobs())


def _lanes(settings: Settings):
    type_queues: Mapping[str, str] = parse_type_queues(settings.type_queues)
    return partial(lane_for, large_bytes=settings.large_document_bytes, type_queues=type_queues)


def bulk_intake(services: Services) -> Intake:
    """Takes documents into ``rag_bulk``; large ones go where all large ones go. Close it."""
    settings = services.settings
    return Intake(
        services.ledger,
        services.blobs,
        services.queue,
        sniff=sniff,
        lane_for=lambda size, _: LARGE if size > settings.large_document_bytes else BULK,
        current_pin=services.current_pin,
        max_upload_bytes=settings.max_upload_bytes,
        limits=limits_of(settings),
        met=services.breakers.met,
    )
