"""Ledger, queue and vectors together, with faults and people as rules: a search for the order of
events in which a document is lost, shown twice, shown never, or left standing.

Workers are the protocol and nothing else (take, claim, store, report, settle), so that they can be
stopped between any two steps, die there, or wake up as zombies. The reconciler is the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import redis
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.fixtures.ledger import PIN, submission
from unjam.core.chunk import Chunk, chunk_id, chunk_ids
from unjam.core.dead_letters import DeadFilter
from unjam.core.document import ENDED, RUNNING, Claim, Document, Pin, State, Ticket
from unjam.core.errors import DependencyDown, LeaseLost, UsageError
from unjam.core.outcome import Dead, Done, Outcome, Release, Retry, Snooze
from unjam.core.ports import ChunkRow, Progress, Vectors, WorkerRef
from unjam.queue.lanes import DEFAULT_LANES
from unjam.queue.memory import MemoryQueue
from unjam.queue.rq_queue import RqQueue
from unjam.search.retrieve import Retriever
from unjam.stores import schema
from unjam.stores.ledger import SqlLedger
from unjam.stores.ledger.tx import Tx
from unjam.stores.memory import MemoryBlobs
from unjam.stores.memory_vectors import MemoryVectors
from unjam.watchdog.reconcile import Reconciler
from unjam.worker.embedded import Server

pytestmark = pytest.mark.thorough

CAP = 6
TICKS = 30
COLLECTION = PIN.fingerprint.collection
UNFINISHED: tuple[Outcome, ...] = (
    Retry("processing_error", "boom", 0.0),
    Snooze("vector_store_down", "away", 0.0),
    Dead("corrupt", "bad"),
    Release(),
)

_picks = st.integers(0, 1000)
_who = st.integers(0, 1)


def vector_of(text: str) -> np.ndarray:
    return np.random.default_rng(sum(text.encode())).standard_normal(8).astype(np.float32)


class TinyEmbedder:
    def expecting(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def passages(self, texts: Sequence[str], pin: Pin, *, alone: bool = False) -> Vectors:
        return np.stack([vector_of(text) for text in texts])

    async def query(self, text: str, pin: Pin) -> Vectors:
        return vector_of(text)

    async def probe(self, pin: Pin) -> None: ...

    async def forget(self, texts: Sequence[str], pin: Pin) -> None: ...

    async def close(self) -> None: ...


@dataclass
class Hold:
    """A claim in a worker's hand, and how many chunks of it the worker stored."""

    claim: Claim
    version: int
    stored: int = 0

    @property
    def size(self) -> int:
        return size_of(self.version)


def size_of(version: int) -> int:
    """Chunks of a version: one to four."""
    return 1 + version % 4


@dataclass
class Hand:
    """One process's life. *taken*: not claimed yet."""

    ref: WorkerRef
    alive: bool = True
    taken: list[Ticket] = field(default_factory=list[Ticket])
    holds: list[Hold] = field(default_factory=list[Hold])


class System(RuleBasedStateMachine):
    url: str
    queue_url: str  # "" = the double
    admin_url: str

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.ledger: SqlLedger = self.do(SqlLedger.open(self.url, durable=False))
        self.do(self.empty_ledger())
        self.flush_now()
        self.queue: Any = self.do(self.make_queue())
        self.vectors, self.embedder = MemoryVectors(), TinyEmbedder()
        self.reconciler = Reconciler(
            ledger=self.ledger,
            queue=self.queue,
            vectors=self.vectors,
            blobs=MemoryBlobs(),
            embedder=self.embedder,
            current_pin=lambda: PIN,
            is_alive=self.is_alive,
        )
        self.retriever = Retriever(self.ledger, self.vectors, self.embedder, lambda: PIN)
        self.lives = 0
        self.hands = [self.new_hand(), self.new_hand()]
        self.everybody = list(self.hands)
        self.frozen: list[Hand] = []
        self.late: list[Hold] = []  # upserts that are on their way and may land whenever
        self.versions = 0
        self.told: dict[str, int] = {}  # document → newest version that was accepted
        self.flipped: dict[str, int] = {}  # document → version that was flipped last
        self.deleted: set[str] = set()
        for _ in range(3):
            self.upload("a", rung=True)

    async def make_queue(self) -> Any:
        return RqQueue(self.queue_url) if self.queue_url else MemoryQueue()

    def do(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def try_(self, coroutine: Any) -> Any:
        """What it gives, or the error that a caller has to live with."""
        try:
            return self.do(coroutine)
        except (UsageError, LeaseLost, DependencyDown) as error:
            return error

    async def empty_ledger(self) -> None:
        def run(tx: Tx) -> None:
            for table in reversed(schema.metadata.sorted_tables):
                if table.name not in ("alembic_version", "tallies", "meta"):
                    tx.execute(sa.delete(table))
            tx.execute(sa.update(schema.tallies).values(n=0))

        await self.ledger._committer.submit(run)

    def flush_now(self) -> None:
        if self.queue_url:
            with redis.Redis.from_url(self.admin_url) as admin:
                admin.flushall()
        elif hasattr(self, "queue"):
            self.queue.lose_everything()

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        try:
            self.come_to_rest()
        finally:
            self.do(self.queue.close())
            self.do(self.ledger.close())
            self.do(self.loop.shutdown_default_executor())
            self.loop.close()

    # -- processes --------------------------------------------------------------------------
    def new_hand(self) -> Hand:
        self.lives += 1
        name = f"worker-{self.lives}"
        hand = Hand(WorkerRef(name, "host", self.lives, "1", "worker"))
        self.ledger.renew(hand.ref, {}, ())
        return hand

    def replace_hand(self, who: int) -> Hand:
        gone = self.hands[who]
        self.hands[who] = self.new_hand()
        self.everybody.append(self.hands[who])
        return gone

    def is_alive(self, ref: WorkerRef) -> bool | None:
        return next((hand.alive for hand in self.everybody if hand.ref.id == ref.id), None)

    # -- people -----------------------------------------------------------------------------
    @rule(user=st.sampled_from("ab"), rung=st.booleans())
    def upload(self, user: str, rung: bool) -> None:
        self.versions += 1
        upload = submission(self.versions, user=user, content=self.versions)
        (answer,) = self.do(self.ledger.accept([upload]))
        self.told[answer.document_id] = self.versions
        if rung:
            self.ring(10)

    @rule(pick=_picks)
    def update(self, pick: int) -> None:
        document_id = self.someone(pick)
        self.versions += 1
        fresh = submission(self.versions, content=self.versions)
        if not isinstance(self.try_(self.ledger.replace(document_id, fresh)), Exception):
            self.told[document_id] = self.versions
            self.ring(10)

    @rule(verb=st.sampled_from(["cancel", "delete", "retry"]), pick=_picks)
    def ask(self, verb: str, pick: int) -> None:
        document_id = self.someone(pick)
        answer = self.try_(getattr(self.ledger, verb)(document_id))
        if verb == "delete" and not isinstance(answer, Exception):
            self.deleted.add(document_id)

    @rule(verb=st.sampled_from(["retry_many", "drop_many"]))
    def ask_for_the_dead(self, verb: str) -> None:
        self.do(getattr(self.ledger, verb)(DeadFilter()))

    def ring(self, limit: int) -> None:
        """The doorbell of whoever asked."""
        tickets = self.do(self.ledger.pushable(limit))
        if tickets and not isinstance(self.try_(self.queue.push(tickets)), Exception):
            self.do(self.ledger.mark_pushed(tickets))

    def someone(self, pick: int) -> str:
        ids = sorted(self.told)
        return ids[pick % len(ids)] if ids else "nobody"

    # -- workers ----------------------------------------------------------------------------
    @rule(who=_who, parts=st.integers(0, 3))
    def begin_work(self, who: int, parts: int) -> None:
        """Take, claim and store as much, in one go."""
        self.take(who, 3)
        self.claim(who)
        for n in range(parts):
            self.store(who, n)

    @rule(who=_who, renewed=st.booleans(), pick=_picks)
    def quiet_moment(self, who: int, renewed: bool, pick: int) -> None:
        """Nothing is down: what is in hand and in line gets done; then somebody may update it."""
        self.nothing_is_down()
        self.tick()
        for hand in (who, 1 - who):
            self.begin_work(hand, 0)
            while self.hands[hand].holds:
                self.finish(hand, 0, whole=True, killed=False)
        if renewed:
            self.update(pick)

    def nothing_is_down(self) -> None:
        self.vectors_go(False)
        self.queue_goes(False)
        self.pause(False)

    @rule(who=_who, limit=st.integers(1, 4))
    def take(self, who: int, limit: int) -> None:
        hand = self.hands[who]
        some = self.try_(self.queue.take(list(DEFAULT_LANES), limit, hand.ref.id))
        if not isinstance(some, Exception):
            hand.taken += some

    @rule(who=_who)
    def claim(self, who: int) -> None:
        hand = self.hands[who]
        tickets, hand.taken = hand.taken, []
        if not tickets:
            return
        answers = self.do(self.ledger.claim(tickets, hand.ref, CAP))
        held = {h.claim.document_id for h in self.holds()}
        for answer in answers:
            if answer.claim is None:
                continue
            row = self.row(answer.claim.document_id)
            assert row["token"] == answer.claim.token
            if answer.claim.document_id in held:
                assert not self.valid_elsewhere(answer.claim), "two valid claims of one document"
            hand.holds.append(Hold(answer.claim, int(answer.claim.content_hash, 16)))
        by_kind = {kind: [a.ticket for a in answers if a.kind == kind] for kind in KINDS}
        self.try_(self.queue.started(by_kind["claimed"], hand.ref.id))
        self.try_(self.queue.discard(by_kind["stale"], hand.ref.id))
        self.try_(self.queue.put_back(by_kind["no_slot"], hand.ref.id))

    @rule(who=_who, pick=_picks)
    def store(self, who: int, pick: int) -> None:
        """One more chunk, confirmed, and told."""
        hand = self.hands[who]
        hold = self.one(hand.holds, pick)
        if hold is None or hold.stored == hold.size:
            return
        if isinstance(self.try_(self.upsert(hold, hold.stored)), Exception):
            return
        hold.stored += 1
        self.tell(hand, hold)

    @rule(who=_who, pick=_picks, whole=st.booleans(), killed=st.booleans())
    def finish(self, who: int, pick: int, whole: bool, killed: bool) -> None:
        """All of the rest and the flip; *killed* right after, before the queue is told."""
        hand = self.hands[who]
        hold = self.one(hand.holds, pick)
        if hold is None:
            return
        outcome: Outcome = UNFINISHED[pick % len(UNFINISHED)]
        if whole:
            rest = [self.try_(self.upsert(hold, n)) for n in range(hold.stored, hold.size)]
            outcome = (
                Snooze("vector_store_down", "away", 0.0)
                if any(isinstance(r, Exception) for r in rest)
                else Done(hold.size)
            )
        hand.holds.remove(hold)
        settled = self.settle(hold, outcome)
        if killed:
            self.die(who, landing=False)
            return
        claim = hold.claim
        ticket = Ticket(claim.document_id, claim.enqueue_seq, claim.lane)
        self.try_(self.queue.finished([ticket], hand.ref.id, ok=isinstance(outcome, Done)))
        if settled.ticket is not None:
            dead = settled.state is State.DEAD
            self.try_((self.queue.park if dead else self.queue.push)([settled.ticket]))

    @rule(who=_who)
    def renew(self, who: int) -> None:
        hand = self.hands[who]
        tokens = {h.claim.document_id: h.claim.token for h in hand.holds}
        lost = self.ledger.renew(hand.ref, tokens, ())
        hand.holds = [h for h in hand.holds if h.claim.document_id not in lost]

    def tell(self, hand: Hand, hold: Hold) -> None:
        claim = hold.claim
        progress = Progress(claim.document_id, claim.token, State.STORING, hold.stored, hold.size)
        valid = self.is_valid(claim)
        lost = isinstance(self.try_(self.ledger.report(progress)), LeaseLost)
        assert lost is not valid
        if lost and hold in hand.holds:
            hand.holds.remove(hold)

    def settle(self, hold: Hold, outcome: Outcome) -> Any:
        """A zombie's word must change nothing; a valid flip is what is shown from now on."""
        valid = self.is_valid(hold.claim)
        before = self.row(hold.claim.document_id)
        settled = self.do(self.ledger.settle(hold.claim, outcome))
        assert settled.moved is valid
        if not valid:
            assert self.row(hold.claim.document_id) == before, "a zombie wrote"
        elif isinstance(outcome, Done):
            self.flipped[hold.claim.document_id] = hold.version
        return settled

    async def upsert(self, hold: Hold, index: int) -> None:
        claim, text = hold.claim, f"v{hold.version} part {index}"
        row = ChunkRow(
            chunk_id(claim.document_id, claim.generation, index),
            claim.document_id,
            claim.generation,
            claim.user_id,
            Chunk(index, text, 3, index * 10, index * 10 + 9),
            claim.filename,
        )
        await self.vectors.upsert(COLLECTION, [row], np.stack([vector_of(text)]))

    # -- faults -----------------------------------------------------------------------------
    @rule(who=_who, landing=st.booleans())
    def die(self, who: int, landing: bool) -> None:
        """kill -9; *landing*: an upsert of it is on its way."""
        gone = self.replace_hand(who)
        gone.alive = False
        if landing:
            self.late += gone.holds

    @rule(who=_who, taken_over=st.booleans())
    def freeze(self, who: int, taken_over: bool) -> None:
        """Longer than its lease; somebody else is started meanwhile, and may be at its work."""
        gone = self.replace_hand(who)
        self.frozen.append(gone)
        self.do(self.ledger._committer.submit(expired(gone.ref.id)))
        if taken_over:
            self.tick()
            self.begin_work(who, 1)

    @rule(pick=_picks, outcome=st.sampled_from([Done(0), *UNFINISHED]))
    def wake_up(self, pick: int, outcome: Outcome) -> None:
        """A frozen one goes on where it was: stores, tells, settles, claims what it had taken."""
        hand = self.one(self.frozen, pick)
        if hand is None:
            return
        self.frozen.remove(hand)
        for hold in list(hand.holds):
            for index in range(hold.stored, hold.size):
                self.try_(self.upsert(hold, index))
            whole = isinstance(outcome, Done) and not self.vectors.down
            self.settle(hold, Done(hold.size) if whole else UNFINISHED[pick % 4])
        for answer in self.do(self.ledger.claim(hand.taken, hand.ref, CAP)) if hand.taken else []:
            if answer.claim is not None:
                self.settle(Hold(answer.claim, int(answer.claim.content_hash, 16)), Release())
        hand.alive = False
        self.do(self.ledger.retire(hand.ref.id))

    @rule(pick=_picks)
    def land(self, pick: int) -> None:
        """An upsert of somebody long dead."""
        hold = self.one(self.late, pick)
        if hold is not None:
            self.late.remove(hold)
            self.try_(self.upsert(hold, min(hold.stored, hold.size - 1)))

    @rule()
    def lose_the_queue(self) -> None:
        self.flush_now()

    @rule(down=st.booleans())
    def vectors_go(self, down: bool) -> None:
        away = DependencyDown("Chroma is away", code="vector_store_down")
        self.vectors.down = away if down else None

    @rule(away=st.booleans())
    def queue_goes(self, away: bool) -> None:
        if isinstance(self.queue, MemoryQueue):
            self.queue.away = away

    @rule(suspended=st.booleans())
    def pause(self, suspended: bool) -> None:
        """``rq suspend`` and ``rq resume``."""
        if self.queue_url:
            with redis.Redis.from_url(self.admin_url) as admin:
                _ = admin.set("rq:suspended", 1) if suspended else admin.delete("rq:suspended")

    # -- the watchdog -----------------------------------------------------------------------
    @rule()
    def tick(self) -> None:
        self.do(self.reconciler.tick())

    @rule()
    def ring_and_be_killed(self) -> None:
        """A doorbell that rang, and whose ringer died before the ledger knew."""
        tickets = self.do(self.ledger.pushable(2))
        if tickets:
            self.try_(self.queue.push(tickets))

    # -- what must hold at every moment -------------------------------------------------------
    @invariant()
    def the_equation(self) -> None:
        if not hasattr(self, "deleted"):
            return
        e = self.do(self.ledger.equation())
        assert e.missing == 0
        assert e.accepted == len(self.told)
        ends = e.searchable + e.dead + e.cancelled + e.deleted
        assert e.accepted == ends + e.running + e.queued + e.waiting

    @invariant()
    def one_version_is_shown(self) -> None:
        """The one that was flipped last, whole; never both, and never neither."""
        if not hasattr(self, "deleted") or self.vectors.down is not None:
            return
        for document_id in self.told:
            hits = self.do(self.retriever.search("part", k=40, filter={"document_id": document_id}))
            shown = sorted(hit.text for hit in hits)
            version = self.flipped.get(document_id)
            if version is None or document_id in self.deleted:
                assert shown == [], (document_id, shown)
            else:
                assert shown == [f"v{version} part {n}" for n in range(size_of(version))]

    # -- the end ----------------------------------------------------------------------------
    def come_to_rest(self) -> None:
        """The faults stop; after some rounds everything stands at its end, exactly once."""
        self.nothing_is_down()
        while self.frozen:
            self.wake_up(0, Done(0))
        while self.late:
            self.land(0)
        for who in (0, 1):
            self.die(who, landing=False)
        for _ in range(TICKS):
            self.do(self.ledger._committer.submit(time_passes))
            self.do(self.reconciler.tick())
            self.take(0, 4)
            self.claim(0)
            while self.hands[0].holds:
                self.finish(0, 0, whole=True, killed=False)
            if self.at_rest():
                break
        self.the_equation()
        self.one_version_is_shown()
        left = [d for d in map(self.document, self.told) if d.state not in ENDED]
        assert left == [], "stuck"
        held = {i for rows in self.vectors._rows.values() for i in rows}
        assert held == self.wanted_chunks()
        lengths = self.do(self.queue.lengths())
        assert sum(lengths[lane] for lane in DEFAULT_LANES) == 0
        dead = sum(self.document(i).state is State.DEAD for i in self.told)
        assert lengths["rag_dlq"] == dead

    def at_rest(self) -> bool:
        if any(self.document(i).state not in ENDED for i in self.told):
            return False
        lengths = self.do(self.queue.lengths())
        return not sum(lengths[x] for x in DEFAULT_LANES) and not self.do(
            self.ledger.due_cleanups()
        )

    def wanted_chunks(self) -> set[str]:
        wanted: set[str] = set()
        for document_id in self.told:
            document = self.document(document_id)
            if document.visible_generation and document_id not in self.deleted:
                wanted |= set(chunk_ids(document_id, document.visible_generation, document.chunks))
        return wanted

    # -- facts ------------------------------------------------------------------------------
    def document(self, document_id: str) -> Document:
        found = self.do(self.ledger.get(document_id))
        assert found is not None
        return found

    def row(self, document_id: str) -> dict[str, Any]:
        query = sa.select(schema.documents).where(schema.documents.c.id == document_id)
        return self.do(self.ledger._read(lambda c: dict(c.execute(query).mappings().one())))

    def is_valid(self, claim: Claim) -> bool:
        row = self.row(claim.document_id)
        return row["token"] == claim.token and State(row["state"]) in RUNNING

    def valid_elsewhere(self, claim: Claim) -> bool:
        return any(
            self.is_valid(h.claim)
            for h in self.holds()
            if h.claim.document_id == claim.document_id and h.claim.token != claim.token
        )

    def holds(self) -> list[Hold]:
        return [h for hand in [*self.hands, *self.frozen] for h in hand.holds]

    @staticmethod
    def one(some: list[Any], pick: int) -> Any:
        return some[pick % len(some)] if some else None


KINDS = ("claimed", "stale", "no_slot")


def expired(worker: str) -> Any:
    def run(tx: Tx) -> None:
        table = schema.documents
        mine = (table.c.worker == worker) & table.c.lease_until.is_not(None)
        tx.execute(sa.update(table).where(mine).values(lease_until=0))

    return run


def time_passes(tx: Tx) -> None:
    """What waits is due, and nothing that was sent can land any more."""
    table = schema.documents
    waiting = table.c.next_step_at.is_not(None)
    tx.execute(sa.update(table).where(waiting).values(next_step_at=tx.now - 1))
    tx.execute(sa.update(schema.cleanups).values(due_at=tx.now))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["memory", "rq"])
def test_any_order_of_faults(ledger_url: str, valkey_server: Server, kind: str) -> None:
    search(ledger_url, valkey_server, kind, 8 if ledger_url.startswith("sqlite") else 4)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["memory", "rq"])
def test_any_order_of_faults_for_long(ledger_url: str, valkey_server: Server, kind: str) -> None:
    search(ledger_url, valkey_server, kind, 100)


def search(ledger_url: str, valkey_server: Server, kind: str, examples: int) -> None:
    urls = {
        "url": ledger_url,
        "queue_url": valkey_server.url if kind == "rq" else "",
        "admin_url": valkey_server.admin_url,
    }
    run_state_machine_as_test(
        type("Machine", (System,), urls),
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            phases=(Phase.explicit, Phase.generate),  # shrinking would take minutes
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
