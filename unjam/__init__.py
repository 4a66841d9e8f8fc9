"""unjam: RAG ingestion that never silently stalls.

The public names are resolved on first use, so that ``import unjam`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unjam.client import Client, Document, Hit
    from unjam.core.errors import UnjamError
    from unjam.settings import Settings

__version__ = "0.1.0"
__all__ = ["Client", "Document", "Hit", "Settings", "UnjamError", "__version__"]

_HOMES = {
    "Client": "unjam.client",
    "Document": "unjam.client",
    "Hit": "unjam.client",
    "Settings": "unjam.settings",
    "UnjamError": "unjam.core.errors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'unjam' has no attribute {name!r}")
    return getattr(import_module(home), name)
