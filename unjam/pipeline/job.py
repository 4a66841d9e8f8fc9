"""One parse job from file to windows of chunks: what the child runs, and the inline double."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from unjam.core.chunk import Chunk
from unjam.core.errors import DocumentFailed
from unjam.core.ports import ParseJob
from unjam.pipeline.chunk import chunk_sections
from unjam.pipeline.fault import FAULT
from unjam.pipeline.parse import parse
from unjam.pipeline.repeats import without_repeats
from unjam.pipeline.tokens import token_counter

WINDOW_CHUNKS = 256
WINDOW_BYTES = 1 << 20


def job_chunks(job: ParseJob) -> Iterator[list[Chunk]]:
    """The whole work of *job*, as windows of at most 256 chunks or 1 MiB.

    Raises DocumentRejected; DocumentFailed (parser_output) above ``job.output_bytes``; SetupError
    when the tokenizer is missing.
    """
    if job.media_type == FAULT and os.environ.get("UNJAM_TESTING") == "1":
        from unjam.pipeline.fault import misbehave

        misbehave(job.path.read_text("utf-8"))
        job = _as_text(job)
    counter = token_counter(job.tokenizer)
    chunks = chunk_sections(parse(job), counter, job.chunk_tokens, job.overlap_tokens)
    yield from windows(without_repeats(bounded(chunks, job.output_bytes)))


def bounded(chunks: Iterable[Chunk], output_bytes: int) -> Iterator[Chunk]:
    """*chunks* while their text is within *output_bytes*; 0 = no limit. Repeats count, too.

    Raises DocumentFailed (parser_output).
    """
    total = 0
    for chunk in chunks:
        total += len(chunk.text.encode())
        if 0 < output_bytes < total:
            raise DocumentFailed(
                f"The document's text exceeds {output_bytes:,} bytes.", code="parser_output"
            )
        yield chunk


def windows(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Group *chunks*; a window closes before it would exceed a bound."""
    window: list[Chunk] = []
    size = 0
    for chunk in chunks:
        length = len(chunk.text.encode())
        if window and (len(window) >= WINDOW_CHUNKS or size + length > WINDOW_BYTES):
            yield window
            window, size = [], 0
        window.append(chunk)
        size += length
    if window:
        yield window


def _as_text(job: ParseJob) -> ParseJob:
    from dataclasses import replace

    return replace(job, media_type="text/plain")
