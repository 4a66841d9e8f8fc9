"""Which model embeds, and what a new generation is pinned to. Imports next to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from unjam.core.document import Fingerprint, Pin
from unjam.settings import Settings

LOCAL_ENDPOINT = "local"
LOCAL_MODEL = "multilingual-e5-small"
LOCAL_DIMENSION = 384
LOCAL_REVISION = "q4-int8-2"
"""Grows when the recipe of ``model_build`` changes what a vector is."""
PASSAGE_PREFIX = "passage: "
QUERY_PREFIX = "query: "
"""E5 was trained with these two (arXiv 2212.03533, section 4)."""
LOCAL_TOKENIZER = "local"

LOCAL_MAX_TOKENS = 512
_LOCAL_RESERVE = 8
"""Tokens of ``<s>``, ``</s>`` and the role prefix (5), and a margin: cutting a text out of its
surroundings may change how its edges split into tokens."""

_OPENAI_MAX_TOKENS = 8191
_OPENAI_RESERVE = 8


@dataclass(frozen=True, slots=True)
class KnownModel:
    """*dimension* of its vectors, *max_tokens* of one text, *encoding* of its tokenizer."""

    dimension: int
    max_tokens: int = _OPENAI_MAX_TOKENS
    encoding: str = "cl100k_base"


KNOWN_MODELS: Mapping[str, KnownModel] = {
    "text-embedding-3-small": KnownModel(1536),
    "text-embedding-3-large": KnownModel(3072),
    "text-embedding-ada-002": KnownModel(1536),
}
_UNKNOWN = KnownModel(0)


def current_pin(settings: Settings, knobs: Mapping[str, int]) -> Pin:
    """What a generation made now is pinned to; *knobs* (live values) win over *settings*."""
    fingerprint, tokenizer, limit = _model(settings)
    wanted = knobs.get("RAG_MAX_CHUNK_SIZE", settings.chunk_tokens)
    chunk_tokens = max(1, min(wanted, limit))
    overlap = knobs.get("RAG_CHUNK_OVERLAP", settings.overlap_tokens)
    return Pin(
        fingerprint=fingerprint,
        chunk_tokens=chunk_tokens,
        overlap_tokens=max(0, min(overlap, chunk_tokens // 2)),
        tokenizer=tokenizer,
    )


def clean_endpoint(url: str) -> str:
    """*url* without credentials, query, fragment and trailing slash, in canonical case."""
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    if parts.port is not None:
        host = f"{host}:{parts.port}"
    return urlunsplit((parts.scheme.lower(), host, parts.path.rstrip("/"), "", ""))


def is_local(fingerprint: Fingerprint) -> bool:
    """True when no text leaves the machine for these vectors."""
    return fingerprint.endpoint == LOCAL_ENDPOINT


def query_prefix(fingerprint: Fingerprint) -> str:
    """What a search text carries, where passages carry ``fingerprint.role_prefix``."""
    return QUERY_PREFIX if fingerprint.role_prefix == PASSAGE_PREFIX else ""


def _model(settings: Settings) -> tuple[Fingerprint, str, int]:
    """Fingerprint, tokenizer, and the most tokens that a chunk may have."""
    if settings.uses_local_model:
        fingerprint = Fingerprint(
            endpoint=LOCAL_ENDPOINT,
            model=LOCAL_MODEL,
            revision=LOCAL_REVISION,
            dimension=LOCAL_DIMENSION,
            role_prefix=PASSAGE_PREFIX,
        )
        return fingerprint, LOCAL_TOKENIZER, LOCAL_MAX_TOKENS - _LOCAL_RESERVE
    known = KNOWN_MODELS.get(settings.model, _UNKNOWN)
    fingerprint = Fingerprint(
        endpoint=clean_endpoint(settings.openai_base_url),
        model=settings.model,
        dimension=known.dimension,
    )
    return fingerprint, f"openai:{known.encoding}", known.max_tokens - _OPENAI_RESERVE
