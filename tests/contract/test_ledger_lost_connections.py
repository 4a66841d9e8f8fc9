"""PostgreSQL goes away, or becomes a standby, at the worst moment: everything happens once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from tests.fixtures.ledger import WORKER, accepted, claimed, submission
from unjam.core.document import AcceptKind, State
from unjam.core.errors import DependencyDown
from unjam.core.outcome import Done
from unjam.stores.ledger import SqlLedger
from unjam.stores.ledger.dialect import dialect_of


@pytest.fixture
async def on_pg(pg_url: str) -> AsyncIterator[SqlLedger]:
    opened = await SqlLedger.open(pg_url)
    yield opened
    await opened.close()


def kill_sessions(server: Any, url: str) -> None:
    """Every session of the database ends, as at a restart of the server."""
    said = server.psql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        f" WHERE datname = '{name_of(url)}' AND pid <> pg_backend_pid();"
    )
    assert int(next(line for line in said.split("\n") if line.strip().isdigit())) > 0, said


def name_of(url: str) -> str:
    return str(sa.make_url(url).database)


def at_commit(ledger: SqlLedger, act: Callable[[sa.Connection], None]) -> None:
    """*act* once, when the writer is about to send its next COMMIT."""
    acted: list[bool] = []

    def commit(conn: sa.Connection) -> None:
        if not acted:
            acted.append(True)
            act(conn)

    event.listen(ledger._writer._engine, "commit", commit)


async def kinds(ledger: SqlLedger, document_id: str) -> Counter[str]:
    return Counter(e.kind.value for e in await ledger.events(document_id))


async def test_a_restart_between_two_writes_is_not_noticed(
    on_pg: SqlLedger, pg_server: Any, pg_url: str
) -> None:
    ticket = await accepted(on_pg, 1)
    on_pg.renew(WORKER, {}, [])
    kill_sessions(pg_server, pg_url)
    claim = await claimed(on_pg, ticket)
    assert on_pg.renew(WORKER, {claim.document_id: claim.token}, []) == set()
    assert (await on_pg.equation()).running == 1


@pytest.mark.parametrize("committed", [False, True])
async def test_a_commit_whose_answer_is_lost_counts_once(
    on_pg: SqlLedger, pg_server: Any, pg_url: str, committed: bool
) -> None:
    def lose(conn: sa.Connection) -> None:
        if committed:
            conn.connection.dbapi_connection.commit()  # type: ignore[union-attr]
        kill_sessions(pg_server, pg_url)

    at_commit(on_pg, lose)
    (answer,) = await on_pg.accept([submission(1)])
    assert answer.kind is AcceptKind.CREATED
    (ticket,) = await on_pg.pushable(10)

    at_commit(on_pg, lose)
    claim = await claimed(on_pg, ticket)
    assert claim.token == 1

    at_commit(on_pg, lose)
    settled = await on_pg.settle(claim, Done(3))
    assert (settled.moved, settled.state) == (True, State.SEARCHABLE)

    assert await kinds(on_pg, claim.document_id) == {"accepted": 1, "claimed": 1, "searchable": 1}
    counters = await on_pg.counters()
    assert counters["jobs_started", "rag_processing"] == 1
    assert counters["jobs_completed", "rag_processing"] == 1
    equation = await on_pg.equation()
    assert (equation.accepted, equation.searchable, equation.missing) == (1, 1, 0)


async def test_a_server_that_stays_away_leaves_no_claim_of_success(
    on_pg: SqlLedger, pg_server: Any, pg_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unjam.stores.ledger.doubt.FIND_OUT_S", 0.1)
    name = name_of(pg_url)

    def lose(_: sa.Connection) -> None:
        pg_server.psql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false;")
        kill_sessions(pg_server, pg_url)

    at_commit(on_pg, lose)
    with pytest.raises(DependencyDown) as caught:
        await on_pg.accept([submission(1)])
    assert caught.value.code == "ledger_unwritable"
    pg_server.psql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true;")
    assert await on_pg.get("d00000001") is None
    await on_pg.accept([submission(1)])
    assert (await on_pg.equation()).accepted == 1


async def test_a_demoted_server_is_left_for_the_one_that_takes_writes(on_pg: SqlLedger) -> None:
    """Old sessions to a server that became read-only (SQLSTATE 25006) are given up at once."""
    await accepted(on_pg, 1)
    conn = on_pg._writer._conn
    assert conn is not None
    conn.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    conn.commit()
    await accepted(on_pg, 2)
    assert on_pg._writer._conn is not conn


async def test_a_read_only_server_is_waited_for(
    on_pg: SqlLedger, pg_server: Any, pg_url: str
) -> None:
    await accepted(on_pg, 1)
    name = name_of(pg_url)
    pg_server.psql(f"ALTER DATABASE {name} SET default_transaction_read_only = on;")
    kill_sessions(pg_server, pg_url)
    for _ in range(2):
        with pytest.raises(DependencyDown) as caught:
            await on_pg.accept([submission(2)])
        assert caught.value.code == "ledger_unwritable"
        assert "read-only" in caught.value.detail
    assert (await on_pg.equation()).accepted == 1
    pg_server.psql(f"ALTER DATABASE {name} RESET default_transaction_read_only;")
    await accepted(on_pg, 2)


async def test_a_row_that_a_stuck_session_holds_keeps_nobody_else_asleep(
    on_pg: SqlLedger, pg_url: str
) -> None:
    """The reconciler's looks pass by what somebody has locked, and find it the next time."""
    tickets = [await accepted(on_pg, n) for n in (1, 2)]
    for ticket in tickets:
        await claimed(on_pg, ticket)
    await on_pg._committer.submit(lambda tx: tx.execute(_LAPSE))
    engine = dialect_of(pg_url).writer()
    try:
        with engine.connect() as conn, conn.begin():
            lock = "SELECT id FROM documents WHERE id = %s FOR UPDATE"
            conn.exec_driver_sql(lock, (tickets[0].document_id,))
            found = await asyncio.wait_for(on_pg.expire(), 2)
            assert [t.document_id for t in found] == [tickets[1].document_id]
        found = await on_pg.expire()
        assert [t.document_id for t in found] == [tickets[0].document_id]
    finally:
        engine.dispose()


_LAPSE = sa.text("UPDATE documents SET lease_until = 0 WHERE worker <> ''")
