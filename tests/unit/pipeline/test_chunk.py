"""The chunker: never above the limit, nothing lost, cut where a reader would cut."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unjam.core.chunk import Chunk
from unjam.pipeline.chunk import chunk_sections
from unjam.pipeline.sanitise import sanitise
from unjam.pipeline.sections import Section
from unjam.pipeline.tokens import OpenAICounter, token_counter


@pytest.fixture(scope="module")
def counter() -> OpenAICounter:
    found = token_counter("openai:cl100k_base")
    assert isinstance(found, OpenAICounter)
    return found


def assert_whole(text: str, chunks: list[Chunk]) -> None:
    """Chunks are in order, quote the text exactly, and leave out nothing but white space."""
    covered = 0
    for number, chunk in enumerate(chunks):
        assert chunk.index == number
        assert chunk.end > covered, "each chunk brings something new"
        assert chunk.text.endswith(text[chunk.start : chunk.end])
        assert not text[covered : max(covered, chunk.start)].strip()
        covered = chunk.end
    assert not text[covered:].strip()


ALPHABET = "abc XYZ 012 .,;!?-#|`\n\t가나다라마바사 。、，漢字 éß 🙂ﷺ"
PIECES = [
    "연차는 15일이다. ", "A sentence here. ", "\n\n", "word ", "ㅋㅋㅋㅋ" * 9, "x" * 90,
    "| a | b |\n",
]  # fmt: skip
TEXTS = st.one_of(
    st.text(alphabet=ALPHABET, max_size=3000),
    st.lists(st.sampled_from(PIECES), max_size=300).map("".join),
)
SECTIONS = st.lists(
    st.tuples(
        TEXTS,
        st.sampled_from([None, 1, 1, 2]),
        st.sampled_from(["", "Guide", "Guide > Part", "아주 긴 제목 " * 8]),
        st.sampled_from(["text", "text", "table", "code", "heading"]),
        st.sampled_from(["", "name | value\n"]),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(rows=SECTIONS, size=st.integers(16, 200), overlap=st.integers(0, 120))
def test_chunks_cover_the_text_and_keep_the_limit(
    counter: OpenAICounter,
    rows: list[tuple[str, int | None, str, str, str]],
    size: int,
    overlap: int,
) -> None:
    sections = [
        Section(sanitise(text), page, path.strip(), kind, header if kind == "table" else "")  # type: ignore[arg-type]
        for text, page, path, kind, header in rows
    ]
    chunks = list(chunk_sections(sections, counter, size, overlap))
    assert_whole("".join(s.text for s in sections), chunks)
    for chunk in chunks:
        assert chunk.tokens == counter.count(chunk.text) <= size


def test_a_chunk_never_spans_two_pages(counter: OpenAICounter) -> None:
    sections = [Section(f"Page {n} says {n * 7}.\n\n", page=n) for n in range(1, 40)]
    chunks = list(chunk_sections(sections, counter, 256, 32))
    assert [c.page for c in chunks] == list(range(1, 40))
    assert all(f"Page {c.page} " in c.text for c in chunks)


def test_a_long_table_repeats_its_header(counter: OpenAICounter) -> None:
    rows = "".join(f"item {n} | {n * 3} won | shelf {n % 9}\n" for n in range(300))
    header = "name | price | place\n"
    table = Section(header + rows, section="Stock", kind="table", header=header)
    chunks = list(chunk_sections([table], counter, 128, 32))
    assert len(chunks) > 10
    for chunk in chunks:
        assert header in chunk.text
        assert chunk.text.rstrip().rsplit("\n", 1)[-1].count("|") == 2, "no row is cut"
    assert_whole(header + rows, chunks)


def test_a_chunk_within_a_section_names_its_headings(counter: OpenAICounter) -> None:
    body = "The pump must be bled before the valve is opened. " * 60
    sections = [
        Section("Manual\n\n", section="Manual", kind="heading"),
        Section("Start-up\n\n", section="Manual > Start-up", kind="heading"),
        Section(body, section="Manual > Start-up"),
    ]
    chunks = list(chunk_sections(sections, counter, 128, 0))
    assert len(chunks) > 3
    assert all(chunk.text.startswith("Manual > Start-up\n") for chunk in chunks[1:])
    assert chunks[0].text.startswith("Manual\n\nStart-up")


def test_small_sections_share_a_chunk_and_headings_are_not_left_behind(
    counter: OpenAICounter,
) -> None:
    sections: list[Section] = []
    for n in range(30):
        sections.append(Section(f"Topic {n}\n\n", section=f"Topic {n}", kind="heading"))
        sections.append(Section(f"It is about number {n}. " + "\n\n", section=f"Topic {n}"))
    chunks = list(chunk_sections(sections, counter, 128, 16))
    assert 5 < len(chunks) < 15
    for chunk in chunks:
        assert chunk.text.startswith("Topic")
        assert not chunk.text.rsplit("\n", 1)[-1].startswith("Topic")


def test_sentences_are_kept_whole_in_both_languages(counter: OpenAICounter) -> None:
    for sentence in (
        "서버실 문은 항상 두 사람이 함께 열어야 합니다. ",
        "The door needs two keys to open. ",
    ):
        chunks = list(chunk_sections([Section(sentence * 200)], counter, 128, 32))
        assert all(chunk.text.endswith(".") for chunk in chunks)
        assert all(chunk.text.startswith(sentence[:3]) for chunk in chunks)
        overlapping = [a.end - b.start for a, b in itertools.pairwise(chunks)]
        assert all(0 < shared < 200 for shared in overlapping)


def test_one_line_of_five_megabytes(counter: OpenAICounter) -> None:
    text = "가나다라마" * 400_000 + "x" * 3_000_000
    chunks = list(chunk_sections([Section(text)], counter, 1024, 128))
    assert_whole(text, chunks)
    assert max(chunk.tokens for chunk in chunks) <= 1024


def test_memory_stays_bounded_while_a_long_text_streams(counter: OpenAICounter) -> None:
    import tracemalloc

    block = "All work and no play makes a dull text, says the reader. " * 1000 + "\n"

    def endless() -> Iterator[Section]:
        for _ in range(400):
            yield Section(block)

    tracemalloc.start()
    try:
        count = sum(1 for _ in chunk_sections(endless(), counter, 1024, 128))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count > 4000
    assert peak < 8 << 20, f"{peak:,} bytes for {len(block) * 400:,} of text"


@pytest.mark.slow
def test_chunking_is_fast(counter: OpenAICounter) -> None:
    text = (
        "The reviewer reads each page twice, marks doubts in red, and signs the last one.\n"
        * 60_000
    )
    blocks = [Section(text[at : at + 65_536]) for at in range(0, len(text), 65_536)]
    began = time.perf_counter()
    chunks = list(chunk_sections(blocks, counter, 1024, 128))
    speed = len(text) / (time.perf_counter() - began) / 1e6
    print(f"\n{speed:.1f} MB/s, {len(chunks)} chunks")
    assert speed > 3, "a third of what an idle core of 2025 does"
