"""A text said over and over is kept a few times; nothing else is touched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unjam.core.chunk import Chunk
from unjam.pipeline.repeats import COPIES, REMEMBERED, without_repeats


def chunks(texts: list[str]) -> list[Chunk]:
    return [Chunk(n, text, 1, n * 10, n * 10 + 10) for n, text in enumerate(texts)]


@given(st.lists(st.sampled_from("abcdef")))
def test_at_most_so_many_copies_in_order(texts: list[str]) -> None:
    kept = list(without_repeats(chunks(texts)))
    assert [c.index for c in kept] == list(range(len(kept)))
    assert [c.start for c in kept] == sorted(c.start for c in kept)
    for text in set(texts):
        places = [n * 10 for n, other in enumerate(texts) if other == text]
        assert [c.start for c in kept if c.text == text] == places[:COPIES]


def test_what_repeats_often_is_remembered_among_many_others() -> None:
    texts = [text for n in range(3 * REMEMBERED) for text in (f"own {n}", "the same")]
    kept = list(without_repeats(chunks(texts)))
    assert sum(c.text == "the same" for c in kept) == COPIES
    assert len(kept) == 3 * REMEMBERED + COPIES
