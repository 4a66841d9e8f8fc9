"""What turns bytes into chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from unjam.core.chunk import Chunk


@dataclass(frozen=True, slots=True)
class ParseJob:
    """What the capped child needs to turn bytes into chunks."""

    path: Path
    filename: str
    media_type: str
    size_bytes: int
    chunk_tokens: int
    overlap_tokens: int
    tokenizer: str
    memory_bytes: int
    cpu_s: float
    wall_s: float
    output_bytes: int


class Parser(Protocol):
    """Runs a parse job in a disposable child (law 11)."""

    def chunks(self, job: ParseJob) -> AsyncGenerator[list[Chunk], None]:
        """Windows of chunks, in order, as they come; at most 256 chunks or 1 MiB a window.

        Raises DocumentRejected (dead reasons of the bytes), DocumentFailed (the child crashed,
        ran out of memory or time: code parser_crashed, parser_memory, parser_timeout).
        """
        ...

    async def close(self) -> None: ...
