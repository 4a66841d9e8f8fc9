"""Stack: a throw-away system whose processes a test or a drill starts and kills one by one.

The servers are given by their URLs; worker and watchdog are real processes of the real command
line. ``unjam up`` is not used here, so that nothing is restarted unless the caller says so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from unjam.app.run_watchdog import reconciler_of
from unjam.app.services import Services, open_services
from unjam.settings import Settings


@dataclass(slots=True)
class Process:
    """A process of the stack; *log* is its output."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def signal(self, signum: int) -> None:
        self.popen.send_signal(signum)

    async def ended(self, deadline_s: float = 30.0) -> int:
        """Its exit code (−9 after a kill -9), once it ended."""
        return await asyncio.to_thread(self.popen.wait, deadline_s)

    async def stop(self, deadline_s: float = 40.0) -> int:
        """SIGTERM and wait: the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        return await self.ended(deadline_s)

    def output(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Stack:
    """``async with Stack(...) as stack``: services in this process, workers beside."""

    data_dir: Path
    redis_url: str
    chroma_url: str
    openai_url: str = ""
    database_url: str = ""
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    processes: list[Process] = field(default_factory=list[Process])
    _services: Services | None = None

    def environment(self) -> dict[str, str]:
        """The stack's own variables, without those of the caller."""
        env = {
            "RAG_DATA_DIR": str(self.data_dir),
            "RAG_REDIS_URL": self.redis_url,
            "RAG_CHROMA_URL": self.chroma_url,
            **self.extra,
        }
        if self.openai_url:
            env |= {"OPENAI_BASE_URL": self.openai_url, "OPENAI_API_KEY": "sk-stack"}
        if self.database_url:
            env["RAG_DATABASE_URL"] = self.database_url
        return env

    @property
    def settings(self) -> Settings:
        return Settings(**self.environment())  # type: ignore[arg-type]

    @property
    def services(self) -> Services:
        assert self._services is not None, "use `async with`"
        return self._services

    async def __aenter__(self) -> Stack:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._services = await open_services(self.settings, role="api")
        self.services.house().write(self.data_dir)
        await self.services.queue.write_house(self.services.house().to_mapping())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes:
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait()
        await self.services.close()

    def start(
        self, *command: str, env: Mapping[str, str] | None = None, inside: Sequence[str] = ()
    ) -> Process:
        """``unjam COMMAND…`` as a process; *inside* goes before the command line."""
        log = self.data_dir / f"{command[0]}-{len(self.processes)}.log"
        inherited = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("RAG_", "OPENAI_", "SLACK_", "UNJAM_"))
        }
        with log.open("wb") as out:
            popen = subprocess.Popen(
                [*inside, sys.executable, "-m", "unjam.cli.main", *command],
                env={**inherited, **self.environment(), **(env or {})},
                stdout=out,
                stderr=out,
            )
        process = Process(popen, log)
        self.processes.append(process)
        return process

    def worker(self, env: Mapping[str, str] | None = None) -> Process:
        return self.start("worker", env=env)

    def watchdog(self) -> Process:
        return self.start("watchdog")

    async def reconcile(self) -> None:
        """One round of the reconciler, here and now."""
        await reconciler_of(self.services).tick()

    async def add(self, text: str | bytes, filename: str = "note.txt", user_id: str = "") -> str:
        """Accept one document as an upload would; its id."""
        data = text.encode() if isinstance(text, str) else text
        staged = await self.services.intake.open(filename)
        await staged.writer.write(data)
        receipts = await self.services.intake.accept([staged], user_id=user_id)
        return receipts[0].document_id

    async def chunk_ids(self, document_id: str, upto: int = 2000) -> set[str]:
        """Ids of the document's chunks that the vector store holds, over all generations."""
        from unjam.core.chunk import chunk_ids

        document = await self.services.ledger.get(document_id)
        assert document is not None
        held: set[str] = set()
        collection = self.services.current_pin().fingerprint.collection
        for generation in range(1, document.generation + 1):
            ids: Sequence[str] = chunk_ids(document_id, generation, upto)
            absent = set(await self.services.vectors.missing(collection, ids))
            held |= set(ids) - absent
        return held
