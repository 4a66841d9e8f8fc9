"""``unjam spare``: a worker that has loaded everything and waits to take a dead one's place.

A worker needs some seconds of CPU for its imports and its parsing parent, which on a busy machine
are what users wait for after a kill. The supervisor keeps one of these; it reads one line of JSON
(``title``, ``log``) from its standard input and is that worker from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import sys
from typing import Any

from unjam.app import run_worker
from unjam.app.house import found
from unjam.app.knobs import start_values
from unjam.app.vector_stores import open_vectors
from unjam.core.errors import SetupError, UnjamError
from unjam.embedding.factory import tokenizer_spec
from unjam.embedding.fingerprint import current_pin
from unjam.pipeline.process_title import set_title
from unjam.pipeline.sandbox import SandboxParser
from unjam.pipeline.verdict import Interrupted
from unjam.settings import Settings

_OF_THE_ENDPOINT = ("httpx", "limits.aio.storage", "limits.aio.strategies", "redis.asyncio")


def main() -> int:
    """Blocks until it is wanted, and then as a worker; 0."""
    import uvloop

    return uvloop.run(_main())


async def _main() -> int:
    settings = found(Settings())  # type: ignore[call-arg]
    parser = SandboxParser()
    loading = asyncio.create_task(_load(parser, settings))
    line = await asyncio.to_thread(sys.stdin.buffer.readline)
    if not line:  # the supervisor is gone
        return 0
    wanted: dict[str, Any] = json.loads(line)
    _become(str(wanted["title"]), str(wanted["log"]))
    await loading
    # What was found at the start may be of another day: the house is looked up again.
    try:
        return await run_worker.work(found(Settings()), parser=parser)  # type: ignore[call-arg]
    except SetupError as error:  # said as `unjam worker` does, without a trace
        sys.stderr.write(f"{error}: {error.hint}\n")
        return 2


async def _load(parser: SandboxParser, settings: Settings) -> None:
    """What a worker's first document would wait for. It needs no ledger and no server."""
    if settings.vectors_url:
        with contextlib.suppress(SetupError):  # the worker will say it
            await open_vectors(settings.vectors_url).close()
    try:
        await parser.warm_up(await asyncio.to_thread(_tokenizer, settings))
    except (UnjamError, Interrupted):
        return  # the first document will say what hinders it


def _tokenizer(settings: Settings) -> str:
    if not settings.uses_local_model:
        for name in _OF_THE_ENDPOINT:  # the first request would wait for them
            importlib.import_module(name)
    return tokenizer_spec(current_pin(settings, start_values(settings)))


def _become(title: str, log: str) -> None:
    """Show the worker's title, and write to its log."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    set_title(title)


if __name__ == "__main__":
    sys.exit(main())
