"""Order: who stands where. Documents change lanes in the ledger first, then in Redis.

The ledger is the truth: a document whose lane changed there while its job still waits in the old
one (the process died in between) is absent from its lane, so the audit rings for it anew in the
right one, and whoever meets the old job finds it stale.
"""

from __future__ import annotations

from collections.abc import Sequence

from unjam.core.document import Ticket
from unjam.core.ports import Ledger, Queue
from unjam.queue.lanes import check_lane

PART = 1000


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
