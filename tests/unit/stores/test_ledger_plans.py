"""No question of the API or the watchdog walks all documents: read off SQLite's query plans."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.fixtures.ledger import PIN, WORKER, accepted, claimed, searchable
from unjam.core.dead_letters import DeadFilter
from unjam.core.document import State
from unjam.core.errors import NotFound
from unjam.stores.ledger import SqlLedger


async def _forgiven(question: Awaitable[Any]) -> None:
    with contextlib.suppress(NotFound):
        await question


async def _a_gap(ledger: SqlLedger) -> None:
    await ledger.note_gaps(await ledger.visible_chunks())


QUESTIONS: dict[str, Callable[[SqlLedger], Awaitable[Any]]] = {
    "equation": lambda x: x.equation(),
    "state_counts": lambda x: x.state_counts(),
    "get": lambda x: x.get("d00000001"),
    "find_live": lambda x: x.find_live("ann", ["0"]),
    "list": lambda x: x.list(cursor="e"),
    "list by state": lambda x: x.list(state=State.DEAD, cursor="e"),
    "list by user": lambda x: x.list(user_id="ann", cursor="e"),
    "list by both": lambda x: x.list(user_id="ann", state=State.DEAD, cursor="e"),
    "dead_by_reason": lambda x: x.dead_by_reason(),
    "dead_page": lambda x: x.dead_page(DeadFilter(), cursor="e"),
    "dead_page by reason": lambda x: x.dead_page(DeadFilter(reason="empty"), cursor="e"),
    "dead_page by user": lambda x: x.dead_page(DeadFilter(user_id="ann"), cursor="e"),
    "dead_page by both": lambda x: x.dead_page(DeadFilter("empty", "ann"), cursor="e"),
    "count_dead": lambda x: x.count_dead(DeadFilter("empty", "ann", "x/y")),
    "dead_letter": lambda x: _forgiven(x.dead_letter("d00000001")),
    "retry_many": lambda x: x.retry_many(DeadFilter()),
    "retry_many by reason": lambda x: x.retry_many(DeadFilter(reason="empty")),
    "drop_many by user": lambda x: x.drop_many(DeadFilter(user_id="ann")),
    "drop_many by ids": lambda x: x.drop_many(DeadFilter(ids=["d00000001"])),
    "events": lambda x: x.events(None, after=1),
    "events of one": lambda x: x.events("d00000001", after=1),
    "visible": lambda x: x.visible(["d00000001"]),
    "visible_chunks": lambda x: x.visible_chunks(("p", "d"), 10),
    "visible_totals": lambda x: x.visible_totals(),
    "note_gaps": _a_gap,
    "open_gaps": lambda x: x.open_gaps("d"),
    "close_gaps": lambda x: x.close_gaps(),
    "keeping": lambda x: x.keeping([("d00000001", 1)]),
    "note_exit": lambda x: x.note_exit("w", -9),
    "pins_in_use": lambda x: x.pins_in_use(),
    "repin": lambda x: x.repin(PIN, 10),
    "pushable": lambda x: x.pushable(10),
    "queued_slice": lambda x: x.queued_slice("d", 10),
    "wake": lambda x: x.wake(),
    "expire": lambda x: x.expire(["w"]),
    "retire": lambda x: x.retire("w"),
    "count_late": lambda x: x.count_late(),
    "due_cleanups": lambda x: x.due_cleanups(),
    "unreferenced_blobs": lambda x: x.unreferenced_blobs(60),
    "forget_blob": lambda x: x.forget_blob("0"),
    "delete": lambda x: x.delete("d00000001"),
    "completions": lambda x: x.completions(1, 2),
    "vitals": lambda x: x.vitals(["rag_processing"]),
    "in_line_since": lambda x: x.in_line_since(["rag_processing"]),
    "trim": lambda x: x.trim(),
    "adopt_blobs": lambda x: x.adopt_blobs({"0": 1}),
    "rebuild": lambda x: x.rebuild("d"),
    "find_idempotent": lambda x: x.find_idempotent("ann", "k"),
}
BIG = ("documents", "events", "acceptances", "generations", "names", "idempotency", "blobs")
ADDED_UP = "USING COVERING INDEX ix_documents_seen"  # rarely, and never the rows themselves
# Sorts that are small by nature: all counts, the names of one page, one user's equal files.
SORTED = ("FROM tallies", "FROM names", "documents.content_hash =", "documents.content_hash IN")


@pytest.mark.parametrize("question", QUESTIONS)
async def test_walks_an_index(tmp_path: Path, question: str) -> None:
    path = tmp_path / "ledger.db"
    ledger = await SqlLedger.open(f"sqlite:///{path}")
    await searchable(ledger, 1)
    await claimed(ledger, await accepted(ledger, 2), WORKER)
    seen: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            first = parameters[0] if isinstance(parameters, list) else parameters
            seen.append((statement, first))

    for engine in (ledger._reader, ledger._writer._engine):
        sa.event.listen(engine, "before_cursor_execute", note)
    await QUESTIONS[question](ledger)
    await ledger.close()
    assert seen
    plain = sa.create_engine(f"sqlite:///{path}")
    with plain.connect() as conn:
        for statement, parameters in seen:
            plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            for *_, step in plan:
                walks = step.startswith("SCAN") and step.split()[1] in BIG
                walks = walks and not step.endswith(ADDED_UP)
                assert not walks or "PRIMARY KEY" in step, (statement, step)
                sorts = "TEMP B-TREE" in step and not any(s in statement for s in SORTED)
                assert not sorts, (statement, step)
    plain.dispose()
