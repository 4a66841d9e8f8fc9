"""A file whose time says that a process's loop turns: what a container's liveness probe looks at.

A worker and the watchdog have no port. Their probe must not depend on Redis, ledger or Chroma
either, or an outage of those would restart everybody, so it asks for nothing but the file's age.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from unjam.core.errors import SetupError

EVERY_S = 5.0


@contextlib.asynccontextmanager
async def beating(file: Path | None, every_s: float = EVERY_S) -> AsyncGenerator[None]:
    """Touch *file* now and every *every_s* seconds inside the block; it is gone afterwards. None:
    nothing is done.

    Raises:
        SetupError: it cannot be written.
    """
    if file is None:
        yield
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o600)
    except OSError as error:
        raise SetupError(
            f"RAG_BEAT_FILE={file} cannot be written: {error.strerror}",
            hint="Name a file in a folder that this process may write to.",
        ) from None
    task = asyncio.create_task(_touch(file, every_s), name="beat file")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        file.unlink(missing_ok=True)


async def _touch(file: Path, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        with contextlib.suppress(OSError):  # the probe will say so
            file.touch(0o600)
