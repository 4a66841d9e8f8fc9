"""The live knobs: what may change while everything runs, and within which bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unjam.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Knob:
    """*name* is the environment variable's; *unit* is for people."""

    name: str
    low: int
    high: int
    unit: str


KNOBS: Mapping[str, Knob] = {
    k.name: k
    for k in (
        Knob("RAG_EMBEDDING_BATCH_SIZE", 1, 2048, "texts per request"),
        Knob("RAG_EMBEDDING_CONCURRENCY", 1, 64, "requests in flight per process"),
        Knob("RAG_EMBEDDING_RATE_LIMIT", 1, 1_000_000, "requests per minute and key group"),
        Knob("RAG_EMBEDDING_TOKENS_PER_MINUTE", 0, 1_000_000_000, "tokens per minute; 0 = none"),
        Knob("RAG_EMBEDDING_DELAY_MS", 0, 60_000, "ms between requests of a process"),
        Knob("RAG_MAX_CHUNK_SIZE", 16, 8191, "tokens; new generations only"),
        Knob("RAG_CHUNK_OVERLAP", 0, 4096, "tokens; new generations only"),
        Knob("RAG_MAX_CONCURRENT_JOBS", 1, 10_000, "documents in flight, whole system"),
    )
}


def check_knob(name: str, value: int) -> int:
    """*value* if it is within the bounds of knob *name*.

    Raises:
        UsageError: unknown knob, or out of bounds; the message gives the bounds.
    """
    knob = KNOBS.get(name)
    if knob is None:
        raise UsageError(
            f"{name} cannot be changed live", hint="Live knobs: " + ", ".join(sorted(KNOBS))
        )
    if not knob.low <= value <= knob.high:
        raise UsageError(
            f"{name}={value} is out of bounds: {knob.low} to {knob.high} {knob.unit}",
            hint=f"Choose a value from {knob.low} to {knob.high}.",
        )
    return value
