"""Order: who stands where. Documents change lanes in the ledger first, then in Redis.

The ledger is the truth: a document whose lane changed there while its job still waits in the old
one (the process died in between) is absent from its lane, so the audit rings for it anew in the
right one, and whoever meets the old job finds it stale. Each step in Redis is one script: workers
that take meanwhile find every job once, in one place or the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from unjam.core.breaker import paused_lanes
from unjam.core.document import State, Ticket
from unjam.core.errors import UsageError
from unjam.core.ports import InLine, Ledger, Queue, Strategy
from unjam.queue.lanes import DEAD, DEFAULT_LANES, HIGH, LOW, check_lane
from unjam.queue.rq_queue import chunks
from unjam.queue.rules import Priority, Rule, priority_of

EVERYTHING = 1_000_000

PART = 1000
"""Documents at once: a change of lanes leaves the ledger to others in between."""


# -- changing lanes ---------------------------------------------------------------------------
async def move(ledger: Ledger, queue: Queue, tickets: Sequence[Ticket], lane: str) -> list[Ticket]:
    """Documents that still stand in line under these tickets go to *lane*; those that the queue
    moved come back. Safe to repeat, and to be cut off anywhere.

    Raises:
        UsageError: no lane can have that name. DependencyDown: the ledger may know the new lane
            already; the audit brings the queue after it.
    """
    check_lane(lane)
    changed = await ledger.change_lane(tickets, lane)
    return await queue.move(changed, lane) if changed else []


async def move_all(ledger: Ledger, queue: Queue, source: str, lane: str) -> int:
    """All that stand in line in *source* go to *lane*; how many that were. Raises as :func:`move`.

    For a lane that nobody serves any more; with its documents gone it is empty in Redis, too.
    """
    check_lane(lane)
    count = 0
    while source != lane and (tickets := await ledger.standing_in(source, PART)):
        changed = await ledger.change_lane(tickets, lane)
        await queue.move(changed, lane)
        count += len(changed)
        if not changed:  # all of them were taken meanwhile
            break
    return count


async def separate(
    ledger: Ledger, queue: Queue, larger_than: int, lane: str, sources: Sequence[str] = ()
) -> list[str]:
    """Waiting documents of more than *larger_than* bytes go to *lane*, out of *sources* or from
    anywhere; their ids. Suspects stay where they are.

    Raises:
        UsageError: nobody serves *lane*, or no lane can have that name. DependencyDown.
    """
    check_lane(lane)
    await require_served(queue, lane)
    ids: list[str] = []
    async for part in _in_line(ledger, larger_than):
        wanted = [d.ticket for d in part if not sources or d.ticket.lane in sources]
        changed = await ledger.change_lane([t for t in wanted if t.lane != lane], lane)
        await queue.move(changed, lane)
        ids += [t.document_id for t in changed]
    return ids


async def prioritise(ledger: Ledger, queue: Queue, rules: Sequence[Rule]) -> dict[str, int]:
    """Waiting documents go where the first rule that matches sends them: ``rag_high``,
    ``rag_low``, or (normal) where they belong by size and type. No match stays; suspects stay.

    How many ``{"high", "normal", "low", "unmatched"}`` there are now. Raises as :func:`separate`.
    """
    fixed: dict[Priority, str] = {"high": HIGH, "low": LOW}
    for priority in dict.fromkeys(rule.priority for rule in rules):
        if priority in fixed:
            await require_served(queue, fixed[priority])
    counts = Counter[str]()
    now = ledger.now()
    async for part in _in_line(ledger):
        by_lane: dict[str, list[Ticket]] = {}
        for document in part:
            priority = priority_of(document, rules, now)
            counts[priority or "unmatched"] += 1
            if priority is not None:
                lane = fixed.get(priority, document.home_lane)
                by_lane.setdefault(lane, []).append(document.ticket)
        for lane, tickets in by_lane.items():
            changed = await ledger.change_lane([t for t in tickets if t.lane != lane], lane)
            await queue.move(changed, lane)
    return {name: counts[name] for name in ("high", "normal", "low", "unmatched")}


async def _in_line(ledger: Ledger, larger_than: int = -1) -> AsyncIterator[list[InLine]]:
    cursor: str | None = ""
    while cursor is not None:
        part, cursor = await ledger.in_line(cursor, 20 * PART, larger_than=larger_than)
        yield part


async def require_served(queue: Queue, lane: str) -> None:
    """Raises UsageError (lane_unserved): no live worker serves *lane*."""
    facts = await queue.lane_facts([lane])
    if not facts[lane].workers:
        served = sorted(f.name for f in facts.values() if f.workers and f.name != DEAD)
        raise UsageError(
            f"no live worker serves {lane}; served now: {', '.join(served) or 'none'}",
            code="lane_unserved",
        )


# -- within a lane ----------------------------------------------------------------------------
async def reorder(ledger: Ledger, queue: Queue, lane: str, by: Strategy, limit: int) -> list[str]:
    """The first *limit* documents of *lane* in that order stand at its head; their ids.

    What a worker took meanwhile is not among them. Raises UsageError, DependencyDown.
    """
    check_lane(lane)
    tickets = await ledger.ordered(lane, by, limit)
    turns: list[int] = []
    if by == "fair" and len(tickets) < limit:  # the whole lane: newcomers take their turns, too
        served = Counter[str]()
        for ticket in tickets:
            turns.append(served[ticket.user_id])
            served[ticket.user_id] += 1
    return [t.document_id for t in await queue.to_front(lane, tickets, turns)]


# -- ringing again ----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Rung:
    """*requeued*: ids that no lane held and one does now; *in_line*: how many stood there anyway;
    *skipped*: ids that do not wait for a worker."""

    requeued: list[str]
    in_line: int
    skipped: list[str]


async def ring_again(ledger: Ledger, queue: Queue, document_ids: Sequence[str]) -> Rung:
    """Make sure that a lane holds each of these documents. Idempotent. Raises DependencyDown."""
    found = {d.id: d for d in await ledger.get_many(list(dict.fromkeys(document_ids)))}
    tickets = [
        Ticket(d.id, d.enqueue_seq, d.lane, d.size_bytes, d.user_id)
        for d in found.values()
        if d.state in (State.RECEIVED, State.QUEUED)
    ]
    skipped = [i for i in dict.fromkeys(document_ids) if i not in {t.document_id for t in tickets}]
    return Rung(*await _ring(ledger, queue, tickets), skipped)


async def ring_lane(ledger: Ledger, queue: Queue, lane: str) -> Rung:
    """The same for all that stand in line in *lane*."""
    requeued: list[str] = []
    in_line = 0
    for some in chunks(await ledger.standing_in(lane, EVERYTHING), PART):
        rung, stood = await _ring(ledger, queue, some)
        requeued += rung
        in_line += stood
    return Rung(requeued, in_line, [])


async def _ring(ledger: Ledger, queue: Queue, tickets: Sequence[Ticket]) -> tuple[list[str], int]:
    if not tickets:
        return [], 0
    there = await queue.present(tickets)
    absent = [t for t, present in zip(tickets, there, strict=True) if not present]
    # A received one keeps its sequence: nobody rang for it yet.
    again = await ledger.requeue(absent, "asked")
    fresh = {t.document_id for t in again}
    rung = [*again, *(t for t in absent if t.document_id not in fresh)]
    await queue.push(rung)
    await ledger.mark_pushed(rung)
    return [t.document_id for t in rung], len(tickets) - len(rung)


# -- pauses -----------------------------------------------------------------------------------
async def check_known(queue: Queue, lane: str) -> str:
    """*lane*, if such a lane exists. Raises UsageError, which names those that do."""
    check_lane(lane)
    names = [n for n in await queue.lengths() if n != DEAD]
    if lane not in {*names, *DEFAULT_LANES}:
        raise UsageError(
            f"there is no queue {lane!r}; there are {', '.join(names)}", code="unknown_lane"
        )
    return lane


async def show_pauses(ledger: Ledger, queue: Queue, *, resume: bool = False) -> list[str]:
    """Tell the queue which lanes are paused; their names ("*": all). Raises DependencyDown."""
    paused = paused_lanes(await ledger.dependency_states())
    await queue.show_pauses(paused, resume=resume)
    return sorted(paused)
