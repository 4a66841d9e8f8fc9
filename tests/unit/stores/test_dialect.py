"""What RAG_DATABASE_URL may say about a PostgreSQL of several hosts."""

from __future__ import annotations

import pytest

from unjam.stores.ledger.dialect import Postgres, dialect_of


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://u:p@h1:5433,h2:5434/db", "h1,h2", "5433,5434"),
        ("postgresql://u@h1,h2:5434/db?sslmode=require", "h1,h2", ",5434"),
        ("postgresql://u@/db?host=h1:5433&host=h2:5434", "h1,h2", "5433,5434"),
        ("postgresql://u@h1:5433/db", "h1", 5433),
    ],
)
def test_hosts_reach_libpq(url: str, host: str, port: object) -> None:
    dialect = dialect_of(url)
    assert isinstance(dialect, Postgres)
    engine = dialect.writer()
    found = engine.dialect.create_connect_args(engine.url)[1]
    assert (found["host"], found["dbname"], found["user"]) == (host, "db", "u")
    assert found.get("port") == port
