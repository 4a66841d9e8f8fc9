"""Which vector store: one URL says it, and only the library of that one is loaded."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from unjam.app.house import without_password
from unjam.core.errors import SetupError
from unjam.core.ports import VectorStore
from unjam.core.vector_kinds import VECTOR_STORES, vector_store_of
from unjam.settings import Settings


def open_vectors(url: str, turns: Path | None = None) -> VectorStore:
    """The store at *url*: ``http(s)://`` Chroma, ``lancedb:///folder``, ``postgresql://``
    (pgvector), ``qdrant+http(s)://`` (its API key as ``:key@``). Nothing needs to answer yet.

    *turns*: a folder of this host, where those who use Chroma stand in line.

    Raises:
        SetupError: another kind, or its extra is not installed.
    """
    check_vectors(url)
    name = vector_store_of(url)
    return _chroma(url, turns) if name == "Chroma" else _OPEN[name](url)


def check_vectors(url: str) -> None:
    """What ``open_vectors`` would refuse, without loading anything. Raises SetupError."""
    if url.partition("://")[0].lower() not in VECTOR_STORES:
        raise SetupError(
            f"RAG_VECTOR_STORE_URL={without_password(url)} is of a kind that is not supported",
            hint="Use lancedb:///folder, postgresql://… (pgvector), qdrant+http://… or Chroma's "
            "http://….",
        )
    name = vector_store_of(url)
    if name == "LanceDB":
        folder_of(url)
    module = _LIBRARY.get(name)
    if module is not None and find_spec(module) is None:
        raise SetupError(
            f"the library for RAG_VECTOR_STORE_URL is not installed ({module})",
            hint=f"Install it: pip install 'unjam[{name.lower()}]'.",
        )


def look_at(settings: Settings) -> str:
    """A command that shows the store by hand; no passwords in it."""
    url = without_password(settings.vectors_url or "")
    match settings.vector_store:
        case "LanceDB":
            return f"ls {unquote(urlsplit(url).path)}"
        case "pgvector":
            return f"psql {url} -c 'select name, dimension from unjam_collections'"
        case "Qdrant":
            return f"curl -fsS {url.removeprefix('qdrant+')}/readyz"
        case _:
            return "curl -fsS http://127.0.0.1:8000/api/v2/heartbeat"


def folder_of(url: str) -> Path:
    """Of ``lancedb:///folder``. Raises SetupError: no absolute path."""
    place = urlsplit(url)
    if place.netloc or not place.path.startswith("/"):
        raise SetupError(
            f"RAG_VECTOR_STORE_URL={url} names no folder",
            hint="Give an absolute path, with three slashes: lancedb:///srv/vectors.",
        )
    return Path(unquote(place.path))


def _chroma(url: str, turns: Path | None) -> VectorStore:
    from unjam.stores.vectors_chroma import ChromaVectors

    return ChromaVectors(url, turns=turns)


def _lancedb(url: str) -> VectorStore:
    from unjam.stores.vectors_lance import LanceVectors, load_library

    load_library()  # a second or two: not in anybody's first write, nor in a look at the clock
    return LanceVectors(folder_of(url))


def _pgvector(url: str) -> VectorStore:
    from unjam.stores.vectors_pgvector import PgVectors

    return PgVectors(url)


def _qdrant(url: str) -> VectorStore:
    from unjam.stores.vectors_qdrant import QdrantVectors

    place = urlsplit(url.removeprefix("qdrant+"))
    bare = place._replace(netloc=place.netloc.rpartition("@")[2]).geturl()
    return QdrantVectors(bare, unquote(place.password) if place.password else None)


_OPEN: dict[str, Callable[[str], VectorStore]] = {
    "LanceDB": _lancedb,
    "pgvector": _pgvector,
    "Qdrant": _qdrant,
}

_LIBRARY = {"LanceDB": "lancedb", "pgvector": "psycopg", "Qdrant": "qdrant_client"}
"""The extra has the store's name."""
