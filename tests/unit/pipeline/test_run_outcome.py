"""What each error makes of an attempt: wait, try again, or park. Pure decisions."""

from __future__ import annotations

import errno

import pytest

from unjam.core.document import Claim, Fingerprint, Pin
from unjam.core.errors import (
    DependencyDown,
    DocumentFailed,
    DocumentRejected,
    SetupError,
    WorkerUnfit,
)
from unjam.core.outcome import Dead, Retry, Snooze
from unjam.core.reasons import REASONS
from unjam.pipeline.run import SETUP_WAIT_S, outcome_of


def claim(errors: int = 0) -> Claim:
    pin = Pin(Fingerprint("local", "m"), 256, 32, "local")
    return Claim(
        *("doc", 1, 1, 1, "", "a.txt", "text/plain", 3, "00", pin, "rag_processing", 0),
        *(errors, 0, False, {}, 0.0, 0.0),
    )


def test_a_dependency_s_trouble_waits_as_long_as_it_says_and_costs_nothing() -> None:
    error = DependencyDown("429", code="embedding_throttled", retry_after_s=7.0, throttled=True)
    assert outcome_of(claim(), error) == Snooze("embedding_throttled", "429", 7.0, True)


def test_bytes_that_cannot_become_text_are_parked_at_once() -> None:
    assert outcome_of(claim(), DocumentRejected("two words", code="needs_ocr")) == Dead(
        "needs_ocr", "two words"
    )


@pytest.mark.parametrize("code", ["parser_crashed", "parser_memory", "parser_timeout"])
def test_a_child_that_dies_is_tried_once_more_then_parked_under_its_own_name(code: str) -> None:
    error = DocumentFailed("signal 11", code=code)
    assert isinstance(outcome_of(claim(errors=0), error), Retry)
    assert outcome_of(claim(errors=1), error) == Dead(code, "signal 11")


@pytest.mark.parametrize(
    "error",
    [
        WorkerUnfit("no parser", retry_after_s=5.0),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.EAGAIN, "Resource temporarily unavailable"),
        MemoryError(),
        RuntimeError("can't start new thread"),
    ],
)
def test_a_starved_worker_lets_its_documents_wait_and_nothing_counts(error: Exception) -> None:
    outcome = outcome_of(claim(errors=4), error)
    assert isinstance(outcome, Snooze)
    assert (outcome.reason, outcome.after_s, outcome.shared) == ("worker_unfit", 5.0, False)


def test_what_the_installation_lacks_is_no_error_of_the_document() -> None:
    outcome = outcome_of(claim(errors=4), SetupError("no tokenizer"))
    assert outcome == Snooze("setup_incomplete", "no tokenizer", SETUP_WAIT_S, shared=False)


def test_an_unknown_error_is_the_document_s_and_is_tried_again_later() -> None:
    outcome = outcome_of(claim(errors=2), ZeroDivisionError("division by zero"))
    assert isinstance(outcome, Retry)
    assert outcome.detail == "ZeroDivisionError: division by zero"
    assert 0 < outcome.after_s <= 8.0


def test_the_evidence_of_an_error_reaches_the_outcome() -> None:
    child = {"signal": "SIGSEGV", "max_rss_bytes": 1}
    rejected = DocumentRejected("x", code="corrupt", evidence=child)
    failed = DocumentFailed("x", code="parser_crashed", evidence=child)
    for outcome in (
        outcome_of(claim(), rejected),
        outcome_of(claim(), failed),
        outcome_of(claim(errors=1), failed),
    ):
        assert isinstance(outcome, Dead | Retry)
        assert outcome.evidence == child
    try:
        raise ZeroDivisionError("division by zero")
    except ZeroDivisionError as error:
        unexpected = outcome_of(claim(), error)
    assert isinstance(unexpected, Retry)
    assert unexpected.evidence["exception"] == "ZeroDivisionError"
    assert "test_run_outcome.py" in unexpected.evidence["traceback"]


def test_every_outcome_names_a_reason_that_the_table_explains() -> None:
    for error in (
        DependencyDown("x", code="vector_store_down"),
        DocumentRejected("x", code="corrupt"),
        DocumentFailed("x"),
        RuntimeError("x"),
    ):
        assert outcome_of(claim(), error).reason in REASONS
