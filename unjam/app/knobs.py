"""Live knobs: settings that reach every process within seconds, without a restart (law 13)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from unjam.core.errors import DependencyDown
from unjam.core.ports import Ledger
from unjam.settings import Settings

REFRESH_S = 1.0


def start_values(settings: Settings) -> dict[str, int]:
    """What each knob stands at until somebody changes it."""
    return {
        "RAG_EMBEDDING_BATCH_SIZE": settings.embedding_batch_size,
        "RAG_EMBEDDING_CONCURRENCY": settings.embedding_concurrency,
        "RAG_EMBEDDING_RATE_LIMIT": settings.embedding_rate_limit,
        "RAG_EMBEDDING_TOKENS_PER_MINUTE": settings.embedding_tokens_per_minute,
        "RAG_EMBEDDING_DELAY_MS": settings.embedding_delay_ms,
        "RAG_MAX_CHUNK_SIZE": settings.chunk_tokens,
        "RAG_CHUNK_OVERLAP": settings.overlap_tokens,
        "RAG_MAX_CONCURRENT_JOBS": settings.max_concurrent_jobs,
    }


_BATCH = "RAG_EMBEDDING_BATCH_SIZE"


class LiveKnobs:
    """Call it for the values in force: start values of the settings, changed by the ledger's."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._start = start_values(settings)
        self._ledger = ledger
        self._now: Mapping[str, int] = dict(self._start)
        self._task: asyncio.Task[None] | None = None
        self.allow: Callable[[int], int] | None = None
        """How much of a batch this process may hold now; None: all of it."""

    def __call__(self) -> Mapping[str, int]:
        if self.allow is None:
            return self._now
        return {**self._now, _BATCH: self.allow(self._now[_BATCH])}

    async def refresh(self) -> None:
        self._now = {**self._start, **await self._ledger.knobs()}

    def follow(self) -> None:
        """Refresh in the background from now on."""
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(DependencyDown):  # the last known values stay in force
                await self.refresh()
            await asyncio.sleep(REFRESH_S)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
