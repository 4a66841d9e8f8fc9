"""``GET /api/queues``: every lane, from RQ's books and the ledger."""

from __future__ import annotations

from typing import Any

from unjam.core.breaker import paused_lanes
from unjam.web.house import House

DEAD_LETTERS = "rag_dlq"
LANES = ("rag_high", "rag_processing", "rag_low", "rag_large_docs")


async def queue_list(house: House) -> list[dict[str, Any]]:
    """Every lane, the standard ones always and first, the dead letters last.

    *count*: jobs that wait; *oldest_age_s*: since when (seconds) the longest waiting document
    stands in line, null when none does; *started, failed, scheduled, deferred, finished*: RQ's
    registries; *workers*: live ones that serve it; *paused*: by a person, here or with
    ``rq suspend``. Raises DependencyDown (queue_down).
    """
    facts = await house.queue.lane_facts(LANES)
    names = [name for name in dict.fromkeys((*LANES, *sorted(facts))) if name != DEAD_LETTERS]
    since = await house.ledger.in_line_since(names)
    paused = paused_lanes(await house.ledger.dependency_states())
    now = house.ledger.now()
    return [
        {
            "name": name,
            "count": (lane := facts[name]).count,
            "oldest_age_s": round(max(0.0, now - since[name]), 1) if name in since else None,
            "started": lane.started,
            "failed": lane.failed,
            "scheduled": lane.scheduled,
            "deferred": lane.deferred,
            "finished": lane.finished,
            "workers": lane.workers,
            "paused": lane.paused or not paused.isdisjoint((name, "*")),
        }
        for name in (*names, DEAD_LETTERS)
    ]
