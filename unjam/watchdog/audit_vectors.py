"""The audit of vectors against the ledger: what search should find and cannot comes back, and
what belongs to nobody goes.

In slices: a round asks the vector store for at most ``SLICE`` ids (12–20 ms at 30,000 rows) and
walks ``ROWS`` rows. When a collection is gone, was made anew, or holds fewer rows than the ledger
has visible chunks, everything is looked at without delay, ``WHOLE_S`` a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from unjam.core.chunk import chunk_ids
from unjam.core.lease import CLEANUP_AGAIN_S
from unjam.core.ports import CollectionFacts, Ledger, StoredId, VectorStore, VisibleChunks
from unjam.observe import words

SLICE = 2_000
"""Chunk ids a question, and a round's share of the slow walk."""

DOCUMENTS = 200
"""Documents a question to the ledger."""

WHOLE_S = 0.8
"""What of a round a whole audit may take: leases and lanes must not wait for it."""

COUNT_EVERY_S = 2.0
"""Between two looks at the number of rows: a look a round …"""

COUNT_REST = 50
"""… and so many times as long as the look took: two percent of the time, however much there is."""

GAPS_AT_ONCE = 50
"""Documents noted as missing that a round looks at again."""

CLOSE_EVERY_S = 30.0
"""Notes that ended by themselves count for nothing; they are swept this often."""

ROWS = 500
"""Rows a step of the walk after foreign chunks: 30–70 ms of the vector store."""

WALK_EVERY_S = 10.0

FOREIGN_S = CLEANUP_AGAIN_S + 20.0
"""A chunk without an owner goes when it is still without one after this long: by then every
clean-up that was due has run, and every late write has landed."""

FOREIGN_AT_ONCE = 10_000
"""Chunks in doubt at a time: what is beyond is met by the next walk."""


@dataclass(slots=True)
class VectorAudit:
    """Call ``check`` every round, and ``walk``; both go on where the last call ended."""

    ledger: Ledger
    vectors: VectorStore
    clock: Callable[[], float] = time.monotonic
    foreign_s: float = FOREIGN_S
    walk_every_s: float = WALK_EVERY_S
    count_every_s: float = COUNT_EVERY_S
    _at: tuple[str, str] = ("", "")
    _inside: tuple[VisibleChunks, int] | None = None  # a long document, looked at up to there
    _gap_at: str = ""
    _close_due: float = float("-inf")
    _whole: bool = False
    _known: dict[str, CollectionFacts] = field(default_factory=dict[str, CollectionFacts])
    _short: dict[str, int] = field(default_factory=dict[str, int])  # rows, at the last look
    _expected: dict[str, int] = field(default_factory=dict[str, int])  # of them known to be absent
    _count_due: float = float("-inf")
    _walk_due: float | None = None
    _walk_at: tuple[int, int] = (0, 0)  # collection, offset
    _doubtful: dict[tuple[str, str], tuple[StoredId, float]] = field(
        default_factory=dict[tuple[str, str], tuple[StoredId, float]]
    )

    @property
    def whole(self) -> bool:
        """Whether a whole audit is under way."""
        return self._whole

    def ask_for_all(self) -> None:
        """Begin a whole audit now."""
        self._whole, self._at, self._inside = True, ("", ""), None

    async def check(self) -> None:
        """One slice, or as many as the time allows while a whole audit is under way.

        Raises DependencyDown.
        """
        if self.clock() >= self._count_due:
            began = self.clock()
            before = dict(self._short)
            await self._look_at_collections()
            if any(n > before.get(name, 0) for name, n in self._short.items()):
                await self._look_at_collections()  # two are no chance, see there
            took_s = self.clock() - began
            self._count_due = self.clock() + max(self.count_every_s, took_s * COUNT_REST)
        await self._look_at_gaps()
        until = self.clock() + WHOLE_S
        while await self._slice() and self._whole and self.clock() < until:
            pass

    # -- the cheap look ----------------------------------------------------------------------
    async def _look_at_collections(self) -> None:
        """The wanted numbers are read first: what becomes visible meanwhile only adds rows."""
        for name, chunks in (await self.ledger.visible_totals()).items():
            now = await self.vectors.facts(name)
            before = self._known.get(name)
            anew = now is None or (before is not None and now.identity != before.identity)
            short = max(0, chunks - (now.rows if now else 0))
            # A document that is deleted in between makes one look too short; two are no chance.
            lost = short if anew else min(short, self._short.get(name, 0))
            self._short[name] = short
            if lost > self._expected.get(name, 0):
                words.vectors_lost(name, chunks, now.rows if now else 0)
                self._expected[name] = short
                self.ask_for_all()
            else:  # what is on its way back is no news, but must not hide the next loss
                self._expected[name] = min(short, self._expected.get(name, 0))
            if now is None:
                self._known.pop(name, None)
                continue
            self._known[name] = now
            if self.ledger.id not in now.owners:
                await self.vectors.sign(name, self.ledger.id)

    # -- what is missing ---------------------------------------------------------------------
    async def _slice(self) -> bool:
        """One question to the vector store; False when the end was reached."""
        budget = SLICE
        if self._inside is None:
            batch = await self.ledger.visible_chunks(self._at, DOCUMENTS)
            if not batch:
                self._at, self._whole = ("", ""), False
                return False
        else:
            batch = [self._inside[0]]
        asked: list[tuple[VisibleChunks, int, int]] = []
        for one in batch:
            first = self._inside[1] if self._inside else 0
            last = min(one.chunks, first + budget)
            asked.append((one, first, last))
            budget -= last - first
            self._at = (one.pin_id, one.document_id)
            self._inside = (one, last) if last < one.chunks else None
            if budget <= 0:
                break
        await self._restore(await self._absent(asked))
        return True

    async def _absent(self, asked: Sequence[tuple[VisibleChunks, int, int]]) -> list[VisibleChunks]:
        """Those of which chunks first … last - 1 are not all there."""
        by_collection: dict[str, list[tuple[VisibleChunks, Sequence[str]]]] = {}
        for one, first, last in asked:
            ids = chunk_ids(one.document_id, one.generation, last, first)
            by_collection.setdefault(one.collection, []).append((one, ids))
        found: list[VisibleChunks] = []
        for collection, some in by_collection.items():
            every = [i for _, ids in some for i in ids]
            absent = set(await self.vectors.missing(collection, every))
            found += [one for one, ids in some if not absent.isdisjoint(ids)]
        return found

    async def _restore(self, found: Sequence[VisibleChunks]) -> None:
        """The ledger looks again: what became visible anew meanwhile is left alone."""
        if not found:
            return
        tickets = await self.ledger.note_gaps(found)
        if tickets:
            words.documents_recovered(len(tickets), "vectors_missing")

    async def _look_at_gaps(self) -> None:
        """Chunks that are back (a disk that was mounted again) are missing no more."""
        some = await self.ledger.open_gaps(self._gap_at, GAPS_AT_ONCE)
        self._gap_at = some[-1].document_id if len(some) == GAPS_AT_ONCE else ""
        small = [one for one in some if one.chunks <= SLICE]
        absent = await self._absent([(one, 0, one.chunks) for one in small]) if small else []
        whole = [one for one in small if one not in absent]
        if whole or self.clock() >= self._close_due:
            self._close_due = self.clock() + CLOSE_EVERY_S
            await self.ledger.close_gaps(whole)
        await self._restore(absent)

    # -- what is foreign ---------------------------------------------------------------------
    async def walk(self) -> None:
        """A step of the walk over all rows, and the end of those that stayed without an owner.

        Raises DependencyDown.
        """
        if self._walk_due is None:  # nothing is so urgent that a fresh leader must begin with it
            self._walk_due = self.clock() + self.walk_every_s
        if self.clock() < self._walk_due:
            return
        self._walk_due = self.clock() + self.walk_every_s
        await self._remove_foreign()
        names = await self._ours()
        number, offset = self._walk_at
        if number >= len(names):
            self._walk_at = (0, 0)
            return
        rows = await self.vectors.stored(names[number], offset, ROWS)
        self._walk_at = (number, offset + ROWS) if len(rows) == ROWS else (number + 1, 0)
        for row in await self._foreign(names[number], rows):
            if len(self._doubtful) < FOREIGN_AT_ONCE:
                self._doubtful.setdefault((names[number], row.id), (row, self.clock()))

    async def _ours(self) -> list[str]:
        """Collections in which the ledger has chunks, or had some since this process began."""
        here = set(await self.vectors.collections())
        wanted = {*await self.ledger.visible_totals(), *self._known}
        return sorted(here & wanted)

    async def _foreign(self, collection: str, rows: Sequence[StoredId]) -> list[StoredId]:
        """Rows that nobody needs. Of a collection that another ledger uses, too, only what this
        one knows to be over."""
        facts = await self.vectors.facts(collection)
        if not rows or facts is None or self.ledger.id not in facts.owners:
            return []
        alone = facts.owners == frozenset({self.ledger.id})
        pairs = {(r.document_id, r.generation) for r in rows if r.document_id}
        judged = await self.ledger.keeping(sorted(pairs))
        gone = {"over", "unknown"} if alone else {"over"}
        return [
            row
            for row in rows
            if (judged[row.document_id, row.generation] if row.document_id else "unknown") in gone
        ]

    async def _remove_foreign(self) -> None:
        """Those in doubt for long enough, judged again."""
        now = self.clock()
        due = {k: row for k, (row, at) in self._doubtful.items() if now - at >= self.foreign_s}
        for collection in sorted({name for name, _ in due}):
            rows = [row for (name, _), row in due.items() if name == collection]
            for start in range(0, len(rows), ROWS):
                again = await self._foreign(collection, rows[start : start + ROWS])
                if again:
                    await self.vectors.delete(collection, [row.id for row in again])
                    words.foreign_chunks_removed(collection, len(again))
        for key in due:
            del self._doubtful[key]
