"""Anything in any order: a stateful search for a sequence that breaks the ledger."""

from __future__ import annotations

import asyncio
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.fixtures.ledger import WORKER, submission
from unjam.core.document import Claim, State, is_legal
from unjam.core.errors import LeaseLost, UsageError
from unjam.core.outcome import Dead, Done, Outcome, Release, Retry, Snooze
from unjam.core.ports import Progress
from unjam.stores import schema
from unjam.stores.ledger import SqlLedger
from unjam.stores.ledger.tx import Tx

_outcomes = st.sampled_from(
    [
        Done(3),
        Retry("processing_error", "boom", 0.0),
        Snooze("queue_down", "away", 0.0, throttle=True),
        Dead("corrupt", "bad"),
        Release(),
    ]
)
_steps = st.sampled_from([State.PARSING, State.CHUNKING, State.EMBEDDING, State.STORING])
_contents = st.integers(1, 4)
_picks = st.integers(0, 1000)


class LedgerMachine(RuleBasedStateMachine):
    url: str

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.ledger: SqlLedger = self.do(SqlLedger.open(self.url, durable=False))
        self.do(self.empty())
        self.count = 0
        self.claims: list[Claim] = []
        self.seen: dict[str, int] = {}
        self.after = 0
        self.states: dict[str, str] = {}

    def do(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    async def empty(self) -> None:
        """One database serves all runs of the machine."""

        def run(tx: Tx) -> None:
            for table in reversed(schema.metadata.sorted_tables):
                if table.name not in ("alembic_version", "tallies", "meta"):
                    tx.execute(sa.delete(table))
            tx.execute(sa.update(schema.tallies).values(n=0))

        await self.ledger._committer.submit(run)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.do(self.ledger.close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    def someone(self, pick: int) -> str:
        ids = sorted(self.states)
        return ids[pick % len(ids)] if ids else "nobody"

    def try_(self, coroutine: Any) -> Any:
        try:
            return self.do(coroutine)
        except (UsageError, LeaseLost) as error:
            return error

    # -- what can happen ---------------------------------------------------------------------
    @rule(content=_contents, user=st.sampled_from("ab"), durable=st.booleans())
    def accept(self, content: int, user: str, durable: bool) -> None:
        self.count += 1
        upload = submission(self.count, user=user, content=content, blob_durable=durable)
        self.do(self.ledger.accept([upload, upload]))

    @rule(pick=_picks, content=_contents)
    def replace(self, pick: int, content: int) -> None:
        self.try_(self.ledger.replace(self.someone(pick), submission(0, content=content)))

    @rule(verb=st.sampled_from(["cancel", "delete", "retry"]), pick=_picks)
    def ask(self, verb: str, pick: int) -> None:
        self.try_(getattr(self.ledger, verb)(self.someone(pick)))

    @rule(limit=st.integers(1, 3))
    def push(self, limit: int) -> None:
        self.do(self.ledger.mark_pushed(self.do(self.ledger.pushable(limit))))

    @rule(limit=st.integers(1, 3), pushed=st.booleans())
    def claim(self, limit: int, pushed: bool) -> None:
        question = self.ledger.queued_slice("", limit) if pushed else self.ledger.pushable(limit)
        answers = self.do(self.ledger.claim(self.do(question), WORKER, 4))
        self.claims += [a.claim for a in answers if a.claim]

    @rule(pick=_picks, outcome=_outcomes)
    def settle(self, pick: int, outcome: Outcome) -> None:
        if self.claims:
            held = self.claims[pick % len(self.claims)]
            before = self.do(self.ledger.get(held.document_id))
            mine = self.is_mine(held, before)
            settled = self.do(self.ledger.settle(held, outcome))
            assert settled.moved is mine
            if not mine:
                assert self.do(self.ledger.get(held.document_id)) == before

    @rule(pick=_picks, step=_steps, done=st.integers(0, 3), alone=st.booleans())
    def report(self, pick: int, step: State, done: int, alone: bool) -> None:
        if self.claims:
            held = self.claims[pick % len(self.claims)]
            before = self.do(self.ledger.get(held.document_id))
            progress = Progress(held.document_id, held.token, step, done, 3, alone)
            answer = self.try_(self.ledger.report(progress))
            assert isinstance(answer, LeaseLost) is not self.is_mine(held, before)

    @rule()
    def renew(self) -> None:
        tokens = {c.document_id: c.token for c in self.claims}
        lost = self.ledger.renew(WORKER, tokens, [])
        for document_id, token in tokens.items():
            held = next(c for c in self.claims if c.document_id == document_id and c.token == token)
            mine = self.is_mine(held, self.do(self.ledger.get(document_id)))
            assert (document_id in lost) is not mine

    def is_mine(self, held: Claim, document: Any) -> bool:
        """Whether the claim's token is the row's, and the row is running."""
        query = sa.select(schema.documents.c.token).where(schema.documents.c.id == held.document_id)
        token = self.do(self.ledger._read(lambda conn: conn.execute(query).scalar_one()))
        running = (State.PARSING, State.CHUNKING, State.EMBEDDING, State.STORING)
        return token == held.token and document.state in running

    @rule()
    def die(self) -> None:
        self.do(self.ledger.expire([WORKER.id]))

    @rule()
    def end_cleanly(self) -> None:
        self.do(self.ledger.retire(WORKER.id))

    @rule()
    def wake(self) -> None:
        self.do(self.ledger.wake())

    @rule()
    def requeue(self) -> None:
        self.do(self.ledger.requeue(self.do(self.ledger.queued_slice("", 2)), "orphan"))

    @rule()
    def late(self) -> None:
        self.do(self.ledger.count_late(slo_s=-1))

    # -- what must hold ----------------------------------------------------------------------
    @invariant()
    def nothing_is_missing(self) -> None:
        if not hasattr(self, "ledger"):
            return
        equation = self.do(self.ledger.equation())
        assert equation.missing == 0
        parts = [getattr(equation, f) for f in equation.__slots__ if f != "accepted"]
        assert sum(parts) == equation.accepted

    @invariant()
    def counts_are_those_of_the_rows(self) -> None:
        if not hasattr(self, "ledger"):
            return
        table = schema.documents
        query = sa.select(table.c.state, sa.func.count()).group_by(table.c.state)
        rows = dict(self.do(self.ledger._read(lambda c: [tuple(r) for r in c.execute(query)])))
        counts = {k.value: n for k, n in self.do(self.ledger.state_counts()).items() if n}
        assert counts == rows

    def the_log_tells_legal_moves_only(self) -> None:
        for event in self.do(self.ledger.events(None, after=self.after)):
            self.after = event.seq
            if "to" in event.data:
                source = event.data.get("from")
                assert self.states.get(event.document_id) == source, event
                if source is not None:
                    assert is_legal(State(source), State(event.data["to"])), event
                self.states[event.document_id] = event.data["to"]

    @invariant()
    def rows_make_sense(self) -> None:
        if not hasattr(self, "ledger"):
            return
        self.the_log_tells_legal_moves_only()
        table = schema.documents
        rows = self.do(
            self.ledger._read(lambda c: c.execute(sa.select(table)).mappings().fetchall())
        )
        for row in rows:
            assert self.states[row["id"]] == row["state"]
            assert row["visible_generation"] >= self.seen.get(row["id"], 0)
            self.seen[row["id"]] = row["visible_generation"]
            assert row["visible_generation"] <= row["generation"]
            running = row["state"] in ("parsing", "chunking", "embedding", "storing")
            assert bool(row["worker"]) is running
            assert (row["lease_until"] is not None) is running
            assert (row["next_step_at"] is not None) is (row["state"] == "waiting")
            if row["state"] in ("waiting", "dead"):
                assert row["reason"]
            if row["state"] == "searchable":
                assert row["visible_generation"] == row["generation"]


def test_any_order(ledger_url: str) -> None:
    machine = type("Machine", (LedgerMachine,), {"url": ledger_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
