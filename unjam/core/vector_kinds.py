"""The vector stores there are, by the URLs that name them."""

from __future__ import annotations

VECTOR_STORES = {
    "http": "Chroma",
    "https": "Chroma",
    "lancedb": "LanceDB",
    "postgres": "pgvector",
    "postgresql": "pgvector",
    "qdrant+http": "Qdrant",
    "qdrant+https": "Qdrant",
}
"""Scheme of a URL → the store's name for people."""


def vector_store_of(url: str) -> str:
    """The name of the vector store at *url*; Chroma when the scheme is of none."""
    return VECTOR_STORES.get(url.partition("://")[0].lower(), "Chroma")
