"""Fusing rankings whose scores do not compare."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

RRF_K = 60
"""The constant of Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and
individual Rank Learning Methods" (SIGIR 2009)."""

Key = TypeVar("Key", bound=Hashable)


def reciprocal_rank(rankings: Sequence[Sequence[Key]]) -> list[Key]:
    """All keys, best first, by Σ 1 / (60 + rank) over the rankings, ranks from 1.

    Ties keep the order of the rankings: the earlier ranking first.
    """
    weight: dict[Key, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            weight[key] = weight.get(key, 0.0) + 1.0 / (RRF_K + rank)
    return sorted(weight, key=lambda key: -weight[key])
