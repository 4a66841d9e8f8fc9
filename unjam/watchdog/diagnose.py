"""Diagnose: symptoms → causes with evidence; the first is the root cause. Pure.

Two causes at one moment are told apart by what explains what: while Chroma is away nothing moves,
so "nothing moves" is no finding of its own then. What nothing else explains is a root; of several
roots the one of the lower rank (``core.causes``) comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unjam.core.causes import CAUSES
from unjam.core.incident import Diagnosis
from unjam.watchdog.facts import Facts
from unjam.watchdog.symptom import Symptom

MOST_EVIDENCE = 6

_LINE = frozenset({"unknown_stagnation", "too_much_work", "large_documents_block"})
"""What anything that holds up work brings about."""

_REDIS = frozenset({"redis_slow", "redis_lost_data", "lane_unserved"}) | _LINE
_EMBEDDING = frozenset({"embedding_slow", "embedding_throttled", "embedding_down"}) | _LINE
_WORKERS = frozenset({"workers_none", "workers_hung", "lane_unserved"}) | _LINE

EXPLAINS: Mapping[str, frozenset[str]] = {
    "not_running": frozenset(CAUSES)
    - {"not_running", "disk_full", "ledger_down", "redis_wrong_database", "clock_jump"},
    "disk_full": frozenset(
        {"ledger_down", "ledger_slow", "originals_down", "redis_unsafe", "redis_down"}
        | {"chroma_refuses_writes", "chroma_down", "workers_crash_looping"}
    )
    | _LINE,
    "ledger_down": frozenset({"ledger_slow", "workers_crash_looping", "watchdog_none"}) | _WORKERS,
    "ledger_slow": _LINE,
    "originals_down": _LINE,
    "stopped_by_person": _LINE,
    "redis_down": frozenset({"redis_full", "redis_unsafe", "embedding_throttled"}) | _REDIS,
    "redis_wrong_database": frozenset({"redis_unsafe"}) | _REDIS,
    "redis_full": frozenset({"lane_unserved"}) | _LINE,
    "redis_unsafe": frozenset({"redis_lost_data"}),
    "redis_lost_data": frozenset({"lane_unserved"}) | _LINE,
    "redis_slow": _LINE,
    "chroma_down": frozenset(
        {"chroma_slow", "chroma_refuses_writes", "chroma_index_short", "workers_hung"}
    )
    | _LINE,
    "chroma_refuses_writes": frozenset({"chroma_slow", "chroma_index_short"}) | _LINE,
    "chroma_slow": _LINE,
    "embedding_key_bad": _EMBEDDING,
    "embedding_quota": _EMBEDDING,
    "embedding_dimension_changed": frozenset({"chroma_refuses_writes"}) | _EMBEDDING,
    "embedding_down": frozenset({"embedding_slow", "embedding_throttled"}) | _LINE,
    "embedding_throttled": frozenset({"embedding_slow"}) | _LINE,
    "embedding_slow": _LINE,
    "poison_document": frozenset({"workers_crash_looping", "memory_short"}) | _WORKERS,
    "workers_none": frozenset({"lane_unserved"}) | _LINE,
    "workers_crash_looping": frozenset({"memory_short", "chroma_index_short"}) | _WORKERS,
    "workers_hung": frozenset({"lane_unserved"}) | _LINE,
    "memory_short": _LINE,
    "lane_unserved": frozenset({"unknown_stagnation"}),
    "version_mismatch": frozenset({"unknown_stagnation"}),
    "large_documents_block": frozenset({"unknown_stagnation", "too_much_work"}),
    "user_flood": frozenset({"too_much_work"}),
    "too_much_work": frozenset({"unknown_stagnation"}),
    "clock_jump": _WORKERS,  # heartbeats are dated by the clock that jumped, until the next ones
}
"""Cause → what is its effect when both are seen. No two causes explain each other."""


def diagnose(symptoms: Sequence[Symptom], facts: Facts) -> list[Diagnosis]:
    """Causes, root cause first; what another cause explains is among its ``effects`` instead.

    One diagnosis per (cause, subject); *facts* tell the moment where a symptom does not.
    """
    found: dict[tuple[str, str], list[Symptom]] = {}
    for symptom in symptoms:
        found.setdefault((symptom.code, symptom.subject), []).append(symptom)
    present = {code for code, _ in found}
    causing = {s.code for s in symptoms if not s.harmless}
    explained = {e for code in causing for e in EXPLAINS.get(code, ()) if e in present}
    roots = [
        Diagnosis(
            cause=code,
            subject=subject,
            evidence=tuple(dict.fromkeys(s.evidence for s in some))[:MOST_EVIDENCE],
            effects=_effects(code, present) if code in causing else (),
            since=min((s.since or facts.at) for s in some),
        )
        for (code, subject), some in found.items()
        if code not in explained
    ]
    return sorted(roots, key=lambda d: (CAUSES[d.cause].rank, d.cause, d.subject))


def _effects(code: str, present: set[str]) -> tuple[str, ...]:
    """All that follows from it, effects of effects included, by rank."""
    found: set[str] = set()
    open_ = [code]
    while open_:
        for effect in EXPLAINS.get(open_.pop(), frozenset()) & present:
            if effect not in found:
                found.add(effect)
                open_.append(effect)
    return tuple(sorted(found, key=lambda c: CAUSES[c].rank))
