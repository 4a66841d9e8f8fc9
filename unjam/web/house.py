"""What the web asks of the services behind it, and the few things all its parts share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from fastapi import Request

from unjam.core.document import Pin
from unjam.core.ports import Blobs, Ledger, Queue, VectorStore
from unjam.pipeline.breakers import Breakers
from unjam.pipeline.intake import Intake
from unjam.settings import Settings


class HitLike(Protocol):
    """One search hit; the attributes of ``unjam.search.retrieve.Hit``."""

    @property
    def document_id(self) -> str: ...
    @property
    def chunk_id(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def text(self) -> str: ...
    @property
    def filename(self) -> str: ...
    @property
    def page(self) -> int | None: ...
    @property
    def section(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def user_id(self) -> str: ...


class RetrieverLike(Protocol):
    async def search(
        self, query: str, k: int, filter: Mapping[str, Any] | None
    ) -> Sequence[HitLike]: ...


class House(Protocol):
    """``unjam.app.services.Services``, as far as the web needs it."""

    @property
    def settings(self) -> Settings: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def blobs(self) -> Blobs: ...
    @property
    def queue(self) -> Queue: ...
    @property
    def vectors(self) -> VectorStore: ...
    @property
    def retriever(self) -> RetrieverLike: ...
    @property
    def intake(self) -> Intake: ...
    @property
    def breakers(self) -> Breakers: ...
    def current_pin(self) -> Pin: ...
    async def close(self) -> None: ...


@dataclass(slots=True)
class Binding:
    """Where a server listens; decides which host names it answers to and what is open."""

    host: str = "127.0.0.1"
    port: int = 8002
    exposed: bool = False  # reachable from other machines
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # ends event streams


def house_of(request: Request) -> House:
    return cast(House, request.app.state.house)


def language_of(request: Request) -> str:
    """ "ko" or "en": the first of Accept-Language that is ours, else RAG_LANG."""
    return pick_language(
        request.headers.get("accept-language", ""), house_of(request).settings.lang
    )


def pick_language(accept: str, default: str) -> str:
    """RFC 9110 §12.5.4: the listed language of the highest weight, first one on a tie."""
    best, best_weight = default, 0.0
    for item in accept.split(","):
        tag, _, parameter = item.strip().partition(";")
        language = tag.strip().lower().partition("-")[0]
        if language not in ("en", "ko"):
            continue
        weight = 1.0
        if parameter.strip().startswith("q="):
            try:
                weight = float(parameter.strip()[2:])
            except ValueError:
                weight = 0.0
        if weight > best_weight:
            best, best_weight = language, weight
    return best
