"""Builds the embedding service out of settings. Providers are made when they are first needed."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

from unjam.core.document import Fingerprint, Pin
from unjam.core.errors import DependencyDown
from unjam.core.ports import Provider, VectorCache
from unjam.embedding.fingerprint import LOCAL_TOKENIZER, clean_endpoint, is_local
from unjam.embedding.governor import Governor, Knobs, Lane, Limiter
from unjam.embedding.keys import KeyPool
from unjam.embedding.service import EmbeddingService, Flow
from unjam.embedding.shared_limiter import SharedLimiter
from unjam.settings import Settings

LOCAL_IN_FLIGHT = 2
"""Requests: the model's one thread computes one while the other's vectors are stored."""

NO_KEY_RETRY_S = 15.0
"""Another worker may have what this one lacks: the document does not wait for long."""


def build_embedder(
    settings: Settings,
    cache: VectorCache,
    knobs: Knobs,
    *,
    limiter: Limiter | None = None,
    model_cache: Path | None = None,
) -> EmbeddingService:
    """The service of one process. *knobs* gives the live values; *cache* is closed with it.

    *limiter*: None counts in Redis where one is set, else in this process alone. *model_cache*:
    where the local model is built.
    """
    if limiter is None and settings.redis_url:
        limiter = SharedLimiter(settings.redis_url)
    governor = Governor(knobs, limiter)
    providers = ConfiguredProviders(settings, governor, knobs, model_cache)
    return EmbeddingService(cache, providers)


def tokenizer_spec(pin: Pin, model_cache: Path | None = None) -> str:
    """What a parsing child counts tokens with: ``local:<path>`` or ``openai:<encoding>``.

    The first call for the local model may build it (2 s); later ones cost nothing.

    Raises:
        SetupError: the local model can neither be found nor built.
    """
    if pin.tokenizer == LOCAL_TOKENIZER:
        return f"local:{_local_tokenizer(model_cache)}"
    return pin.tokenizer


@lru_cache(maxsize=4)
def _local_tokenizer(model_cache: Path | None) -> Path:
    from unjam.embedding.model_build import ensure_model

    return ensure_model(model_cache).tokenizer


class ConfiguredProviders:
    """Providers for the configured model, and for older pins as far as they can still be served."""

    def __init__(
        self, settings: Settings, governor: Governor, knobs: Knobs, model_cache: Path | None
    ) -> None:
        self._settings = settings
        self._governor = governor
        self._knobs = knobs
        self._model_cache = model_cache
        self._keys = KeyPool(settings.api_keys, rotate=settings.use_api_key_rotation)
        self._made: dict[tuple[str, Lane], Provider] = {}

    def get(self, fingerprint: Fingerprint, lane: Lane) -> Provider:
        """Raises DependencyDown: embedding_unauthorised without any key (a stock RQ worker finds
        everything in Redis but secrets), embedding_down when another endpoint is configured."""
        key = (fingerprint.id, lane)
        if key not in self._made:
            self._made[key] = self._make(fingerprint, lane)
        return self._made[key]

    def flow(self, fingerprint: Fingerprint) -> Flow:
        if is_local(fingerprint):
            return Flow(
                size=lambda: self._knobs().get("RAG_EMBEDDING_BATCH_SIZE", 32),
                in_flight=lambda: LOCAL_IN_FLIGHT,
            )
        governor = self._governor
        return Flow(
            size=governor.batch_size,
            in_flight=governor.concurrency,
            latency_s=lambda: governor.adaptive.latency_s,
            too_large=governor.too_large,
        )

    async def close(self) -> None:
        for provider in self._made.values():
            await provider.close()
        await self._governor.close()

    def _make(self, fingerprint: Fingerprint, lane: Lane) -> Provider:
        if is_local(fingerprint):
            return self._local(fingerprint)
        if not len(self._keys):
            raise DependencyDown(
                f"This worker has no key for {fingerprint.model} at {fingerprint.endpoint}: set "
                "OPENAI_API_KEY (and OPENAI_BASE_URL) in its environment",
                code="embedding_unauthorised",
                hint="Set OPENAI_API_KEY and OPENAI_BASE_URL for that worker, and restart it.",
                retry_after_s=NO_KEY_RETRY_S,
                shared=False,
            )
        configured = clean_endpoint(self._settings.openai_base_url)
        if fingerprint.endpoint != configured:
            raise DependencyDown(
                f"Pinned to {fingerprint.model} at {fingerprint.endpoint}, but this worker's "
                f"OPENAI_BASE_URL is {configured}",
                code="embedding_down",
                hint="Set OPENAI_BASE_URL and a key for that endpoint, or upload it again.",
                retry_after_s=NO_KEY_RETRY_S,
                shared=False,
            )
        from unjam.embedding.openai import OpenAIProvider

        return OpenAIProvider(
            base_url=self._settings.openai_base_url,
            model=fingerprint.model,
            keys=self._keys,
            governor=self._governor,
            lane=lane,
            dimension=fingerprint.dimension,
        )

    def _local(self, fingerprint: Fingerprint) -> Provider:
        from unjam.embedding.fingerprint import LOCAL_MODEL, LOCAL_REVISION
        from unjam.embedding.local import LocalProvider
        from unjam.embedding.model_build import ensure_model

        if (fingerprint.model, fingerprint.revision) != (LOCAL_MODEL, LOCAL_REVISION):
            raise DependencyDown(
                f"Pinned to {fingerprint.model} {fingerprint.revision}, "
                f"but {LOCAL_MODEL} {LOCAL_REVISION} is installed",
                code="embedding_down",
                hint="Retry the document: it is then pinned to the installed model.",
                retry_after_s=60.0,
                shared=False,
            )
        return LocalProvider(partial(ensure_model, self._model_cache))
