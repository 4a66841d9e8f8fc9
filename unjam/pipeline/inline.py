"""InlineParser: parses in this very process, for tests and for bytes that are known to be ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from unjam.core.chunk import Chunk
from unjam.core.ports import ParseJob
from unjam.pipeline.job import job_chunks


class InlineParser:
    """`core.ports.Parser` without a child: no caps but the output's."""

    async def chunks(self, job: ParseJob) -> AsyncGenerator[list[Chunk], None]:
        steps = job_chunks(job)
        while (window := await asyncio.to_thread(next, steps, None)) is not None:
            yield window

    async def close(self) -> None: ...
