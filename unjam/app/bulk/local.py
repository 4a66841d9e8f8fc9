"""The engine of one host: texts are registered in this process, workers are its children."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from unjam.app.bulk.register import Registered, Registrar
from unjam.app.bulk.run import BulkOptions
from unjam.app.services import Services
from unjam.queue.lanes import BULK, LARGE
from unjam.stores.bulk_source import Part
from unjam.worker.children import Child, Command, spawn

LANES = (BULK, LARGE)
"""Suspects of the back-fill run alone in the lane of the large ones."""

GRACE_S = 30.0
"""A worker's own drain takes up to 25 s."""

SHORT_S = 10.0
DEATHS = 5
"""A worker that dies so often in a row, each time within SHORT_S, is not started again."""


class LocalEngine:
    def __init__(
        self, services: Services, options: BulkOptions, say: Callable[[str], None]
    ) -> None:
        self._services = services
        self._options = options
        self._say = say
        self._keepers: list[asyncio.Task[str]] = []
        self._children: dict[int, Child] = {}

    async def __aenter__(self) -> LocalEngine:
        for n in range(1, self._options.workers + 1):
            self._keepers.append(asyncio.create_task(self._keep(n), name=f"bulk worker {n}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(c.stop(GRACE_S) for c in self._children.values()))

    def failed(self) -> str:
        if not self._keepers or not all(t.done() for t in self._keepers):
            return ""
        first = self._keepers[0]
        return first.result() if not first.cancelled() else "stopped"

    def registered(self, parts: list[Part]) -> AsyncGenerator[Registered]:
        return self._registered(parts)

    async def _registered(self, parts: list[Part]) -> AsyncGenerator[Registered]:
        registrar = Registrar(self._services, self._options.reading, self._say)
        try:
            for part in parts:
                async for some in registrar.register(part):
                    yield some
        finally:
            await registrar.close()

    async def _keep(self, n: int) -> str:
        """Keep worker *n* alive; why it was given up."""
        settings = self._services.settings
        argv = ["worker", "--queues", ",".join(LANES), "--share", str(self._options.share_percent)]
        env = {
            "RAG_DATA_DIR": str(settings.data_dir),
            "RAG_LOG_DIR": str(settings.log_dir),
            "RAG_REDIS_URL": settings.redis_url or "",
            "RAG_CHROMA_URL": settings.chroma_url or "",
        }
        title = f"rq worker {BULK} (unjam bulk {n})"
        command = Command.python("unjam.cli.main", argv, title=title, env=env)
        log = settings.log_dir / f"rag-bulk{n}.log"
        deaths = 0
        while deaths < DEATHS:
            began = time.monotonic()
            child = self._children[n] = spawn(f"bulk-{n}", command, log)
            code = await child.exited()
            deaths = deaths + 1 if time.monotonic() - began < SHORT_S else 0
            self._say(f"bulk worker {n} ended with {code} and is started again; its log: {log}")
            await asyncio.sleep(min(5.0, 0.5 * 2**deaths))
        return f"worker {n} ended {DEATHS} times within {SHORT_S:.0f} s; its log: {log}"
