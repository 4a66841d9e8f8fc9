"""One URL says which vector store; the house passes it on without its password."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from unjam.app import vector_stores
from unjam.app.house import House, settle_in
from unjam.app.migrate_vectors import in_use
from unjam.app.run_up import _plans
from unjam.app.services import house_of
from unjam.app.vector_stores import look_at, open_vectors
from unjam.core.errors import SetupError
from unjam.settings import Settings
from unjam.stores.vectors_chroma import ChromaVectors


def settings(tmp_path: Path, **given: str) -> Settings:
    return Settings(**{"RAG_DATA_DIR": str(tmp_path), **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "name", "command"),
    [
        ("http://10.0.0.1:8000", "Chroma", "heartbeat"),
        ("lancedb:///srv/vectors", "LanceDB", "ls /srv/vectors"),
        ("postgresql://ann:secret@db/rag", "pgvector", "psql postgresql://ann@db/rag "),
        ("qdrant+https://:secret@q:6333", "Qdrant", "curl -fsS https://q:6333/readyz"),
    ],
)
def test_a_url_names_a_store(tmp_path: Path, url: str, name: str, command: str) -> None:
    here = settings(tmp_path, RAG_VECTOR_STORE_URL=url)
    assert (here.vector_store, here.vectors_url) == (name, url)
    assert command in look_at(here) and "secret" not in look_at(here)


def test_without_one_it_is_chroma(tmp_path: Path) -> None:
    here = settings(tmp_path, RAG_CHROMA_URL="http://c:1")
    assert (here.vector_store, here.vectors_url) == ("Chroma", "http://c:1")
    assert isinstance(open_vectors("http://c:1"), ChromaVectors)
    assert settings(tmp_path).vectors_url is None


@pytest.mark.parametrize("url", ["ftp://x/y", "lancedb://relative/path", "lancedb:"])
def test_what_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(SetupError) as caught:
        open_vectors(url)
    assert "RAG_VECTOR_STORE_URL" in str(caught.value) and caught.value.hint


def test_a_library_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        vector_stores, "find_spec", lambda name: None if name == "lancedb" else known(name)
    )
    with pytest.raises(SetupError) as caught:
        open_vectors("lancedb:///srv/vectors")
    assert "unjam[lancedb]" in caught.value.hint


async def test_no_chroma_is_started_beside_another_store(tmp_path: Path) -> None:
    given = {"RAG_REDIS_URL": "redis://r:1/5", "RAG_VECTOR_STORE_URL": "lancedb:///srv/vectors"}
    assert await _plans(settings(tmp_path, **given)) == []


def test_the_house_tells_the_others(tmp_path: Path) -> None:
    url = "postgresql://ann:secret@db/rag"
    house = house_of(settings(tmp_path, RAG_VECTOR_STORE_URL=url), "ledger-1")
    assert house.vector_store_url == "postgresql://ann@db/rag"
    assert House.from_mapping(house.to_mapping()) == house
    told = settle_in(settings(tmp_path), house)
    assert told.vectors_url == "postgresql://ann@db/rag"
    own = settle_in(settings(tmp_path, RAG_CHROMA_URL="http://c:1"), house)
    assert own.vectors_url == "http://c:1", "who names a Chroma wants no other store"


def test_the_store_in_use_is_the_houses_with_the_environments_password(tmp_path: Path) -> None:
    url = "postgresql://ann:secret@db/rag"
    assert in_use(settings(tmp_path)) == ""
    assert in_use(settings(tmp_path, RAG_VECTOR_STORE_URL=url)) == url
    house_of(settings(tmp_path, RAG_CHROMA_URL="http://c:1"), "ledger-1").write(tmp_path)
    assert in_use(settings(tmp_path, RAG_VECTOR_STORE_URL=url)) == "http://c:1"
    house_of(settings(tmp_path, RAG_VECTOR_STORE_URL=url), "ledger-1").write(tmp_path)
    assert in_use(settings(tmp_path, RAG_VECTOR_STORE_URL=url)) == url
