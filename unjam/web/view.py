"""Documents as a caller sees them now: with what holds them up, and when they will be ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Request

from unjam.core.document import Document
from unjam.observe.forecast import Forecaster
from unjam.web.house import house_of, language_of
from unjam.web.schemas import document_json


async def shown(request: Request, documents: Sequence[Document]) -> list[dict[str, Any]]:
    """One :class:`unjam.web.schemas.DocumentOut` each, in the caller's language."""
    forecaster: Forecaster = request.app.state.forecaster
    forecast = await forecaster.now()
    keeps = house_of(request).breakers.keeps
    lang = language_of(request)
    return [document_json(document, lang, keeps, forecast) for document in documents]
