"""Reciprocal rank fusion."""

from __future__ import annotations

from unjam.search.fuse import reciprocal_rank


def test_being_found_twice_beats_being_first_once() -> None:
    assert reciprocal_rank([["a", "b", "c"], ["d", "b"]])[0] == "b"


def test_disjoint_rankings_interleave_the_first_one_leading() -> None:
    assert reciprocal_rank([["a", "b"], ["x", "y"], []]) == ["a", "x", "b", "y"]


def test_one_ranking_stays_as_it_is() -> None:
    assert reciprocal_rank([["c", "a", "b"]]) == ["c", "a", "b"]
