"""Lanes: which document goes where, and nobody starves."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unjam.core.errors import UsageError
from unjam.queue.lanes import (
    DEAD,
    DEFAULT_LANES,
    HIGH,
    LARGE,
    LOW,
    PROCESSING,
    lane_for,
    parse_type_queues,
    serving_order,
)

MIB = 1_048_576


@pytest.mark.parametrize(
    ("size", "media", "queues", "lane"),
    [
        (5, "text/plain", {}, PROCESSING),
        (10 * MIB, "application/pdf", {}, PROCESSING),
        (10 * MIB + 1, "application/pdf", {}, LARGE),
        (10 * MIB + 1, "application/pdf", {"pdf": "rag_pdf"}, LARGE),
        (5, "application/pdf", {"pdf": "rag_pdf"}, "rag_pdf"),
        (5, "Application/PDF; charset=x", {"pdf": "rag_pdf"}, "rag_pdf"),
        (5, "text/x-python", {"text/x-python": "rag_code"}, "rag_code"),
        (5, "text/plain", {"txt": "rag_txt"}, "rag_txt"),
        (
            5,
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            {"docx": "rag_office"},
            "rag_office",
        ),
        (5, "text/html", {"pdf": "rag_pdf"}, PROCESSING),
        (5, "", {"pdf": "rag_pdf"}, PROCESSING),
    ],
)
def test_lane_for(size: int, media: str, queues: dict[str, str], lane: str) -> None:
    assert lane_for(size, media, large_bytes=10 * MIB, type_queues=queues) == lane


def test_type_queues() -> None:
    assert parse_type_queues("") == {}
    assert parse_type_queues(" , ") == {}
    parsed = parse_type_queues("pdf=rag_pdf, .DOCX = rag_office ,text/html=rag_web")
    assert parsed == {"pdf": "rag_pdf", "docx": "rag_office", "text/html": "rag_web"}


@pytest.mark.parametrize(
    "text", ["pdf", "=rag_pdf", "pdf=", "pdf=a,pdf=b", "pdf=a b", "pdf=rag_dlq", "pdf=é", "a=b=c"]
)
def test_nonsense_type_queues(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_type_queues(text)
    assert error.value.hint


def test_high_then_normal_then_low() -> None:
    assert serving_order([LOW, PROCESSING, HIGH], 0) == [HIGH, PROCESSING, LOW]
    assert serving_order([LOW, PROCESSING, HIGH], 7)[0] == LOW
    assert serving_order([LOW, PROCESSING, HIGH], 3)[0] == PROCESSING


@given(st.lists(st.sampled_from([*DEFAULT_LANES, "rag_pdf", "rag_web", DEAD])), st.integers(0, 999))
def test_every_lane_once_and_dead_letters_never(lanes: list[str], turn: int) -> None:
    order = serving_order(lanes, turn)
    assert sorted(order) == sorted({*lanes} - {DEAD})


@given(st.sets(st.sampled_from([*DEFAULT_LANES, "rag_pdf", "rag_web"]), min_size=1))
def test_no_lane_starves(lanes: set[str]) -> None:
    """Each lane is asked first within 48 takes, however full the others are."""
    chosen = sorted(lanes)
    firsts = {serving_order(chosen, turn)[0] for turn in range(48)}
    assert firsts == lanes


def test_high_goes_first_most_of_the_time() -> None:
    firsts = [serving_order(DEFAULT_LANES, turn)[0] for turn, _ in zip(count(), range(80))]
    assert firsts.count(HIGH) == 60
    assert firsts.count(LOW) == 10
