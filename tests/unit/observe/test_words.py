"""The sentences meet the runbook's literal commands, run by real grep, awk and tail."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unjam.core.document import State
from unjam.observe import words
from unjam.observe.logs import configure_logging
from unjam.settings import Settings

DOC = "0193f5a0-0000-7000-8000-000000000001"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """``rag-worker.log`` and ``rag-worker2.log`` in a folder; lines go to the first."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    path = tmp_path / "rag-worker.log"
    (tmp_path / "rag-worker2.log").touch()
    words.repeats.clear()
    with path.open("w", buffering=1, encoding="utf-8") as stream:
        configure_logging(Settings(), process="worker", stream=stream)  # type: ignore[call-arg]
        yield path
        root.handlers[:], root.level = before


def shell(command: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", command.replace("/var/log/", f"{folder}/")],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "LANG": "C"},
    )
    assert done.stderr == ""
    return done.stdout.strip()


def one_healthy_document(ms: float = 1234.4) -> None:
    words.job_started(DOC, 1, "ERROR WARNING Successfully processed.pdf")
    words.job_succeeded(DOC, 1, 35, ms, {"parse": 8.2, "embed": 1100.0})


def test_patterns_of_the_worker_log(log: Path) -> None:
    one_healthy_document()
    seen = shell(
        'tail -n 100 /var/log/rag-worker.log | grep -E "(ERROR|WARNING|started|finished)"',
        log.parent,
    ).splitlines()
    assert len(seen) == 2
    assert f"INFO: RAG worker started processing job {DOC}-1" in seen[0]
    seen = shell(
        'tail -q -n 100 /var/log/rag-worker*.log | grep -E "(Processing|Completed|ERROR|WARNING)"',
        log.parent,
    ).splitlines()
    assert len(seen) == 2 and "Processing job" in seen[0] and "Completed" in seen[1]


def test_counts_of_successes_and_errors(log: Path) -> None:
    for _ in range(3):
        one_healthy_document()
    assert shell('grep -c "Successfully processed" /var/log/rag-worker.log', log.parent) == "3"
    assert shell('grep -c "ERROR" /var/log/rag-worker.log || true', log.parent) == "0"
    assert shell('grep -c "WARNING" /var/log/rag-worker.log || true', log.parent) == "0"
    words.job_parked(DOC, 1, "corrupt", "truncated")
    assert shell('grep -c "ERROR" /var/log/rag-worker.log', log.parent) == "1"


def test_average_processing_time(log: Path) -> None:
    one_healthy_document(1000)
    one_healthy_document(3000.2)
    average = shell(
        "grep \"Processing time:\" /var/log/rag-worker*.log | tail -20 | awk '{print $NF}' | "
        'awk \'{sum+=$1; count++} END {print "Avg:", sum/count "ms"}\'',
        log.parent,
    )
    assert average == "Avg: 2000ms"
    daily = shell(
        "grep \"Processing time:\" /var/log/rag-worker*.log | tail -100 | awk '{print $NF}' | "
        "awk '{sum+=$1; count++} END {print sum/count}'",
        log.parent,
    )
    assert daily == "2000"
    assert log.read_text("utf-8").splitlines()[1].endswith(" Processing time: 1000ms")


@pytest.mark.parametrize(
    ("say", "line"),
    [
        (words.redis_connection_lost, "ERROR: RQ worker connection lost"),
        (words.redis_timeout, "WARNING: Redis connection timeout in RAG worker"),
        (words.embedding_rate_limited, "ERROR: Embedding API rate limit exceeded"),
        (words.chroma_failed, "ERROR: ChromaDB connection failed"),
        (
            lambda: words.worker_terminated("worker-1", 42, "SIGKILL"),
            "WARNING: Worker process terminated unexpectedly",
        ),
        (lambda: words.redis_lost("Timeout reading"), "WARNING: Redis connection timeout"),
        (lambda: words.redis_lost("refused"), "ERROR: RQ worker connection lost"),
        (lambda: words.dependency_lost("queue_down", "x"), "ERROR: RQ worker connection lost"),
        (lambda: words.dependency_lost("vector_store_down"), "ERROR: ChromaDB connection failed"),
        (
            lambda: words.job_waits(DOC, 1, State.WAITING, "embedding_throttled", "429", 5),
            "ERROR: Embedding API rate limit exceeded",
        ),
        (lambda: words.dependency_lost("embedding_down", "x"), "ERROR: A dependency is away"),
        (
            lambda: words.job_waits(DOC, 1, State.WAITING, "processing_error", "odd", 5),
            f"WARNING: Job {DOC}-1 waits",
        ),
        (lambda: words.ledger_unwritable("disk full"), "ERROR: Ledger cannot be written"),
        (lambda: words.job_lost(DOC, 1), "WARNING: Job"),
        (lambda: words.redis_lost_data(1, 2), "WARNING: Redis lost data"),
        (lambda: words.worker_fault(DOC, ValueError("x")), "ERROR: Fault while processing"),
        (lambda: words.watchdog_fault(ValueError("x")), "ERROR: Fault in the watchdog"),
        (lambda: words.documents_recovered(2, "worker_died"), "INFO: 2 documents are put back"),
        (lambda: words.worker_ready("w1", ["rag_high"]), "INFO: Worker listens worker=w1"),
        (lambda: words.worker_drains(3), "INFO: Worker drains in_flight=3"),
        (lambda: words.worker_stopped("w1"), "INFO: Worker stopped cleanly"),
        (lambda: words.job_handed_back(DOC, 1), "INFO: Job"),
    ],
)
def test_each_trouble_has_its_words(log: Path, say: Callable[[], None], line: str) -> None:
    say()
    assert f" {line}" in log.read_text("utf-8")


def test_the_rate_limit_is_found_as_the_runbook_looks_for_it(log: Path) -> None:
    words.embedding_rate_limited("429")
    assert shell('grep -c "rate.*limit" /var/log/rag-worker.log', log.parent) == "1"


def test_fifty_documents_meeting_one_dead_dependency_say_it_once(log: Path) -> None:
    for _ in range(50):
        words.chroma_failed("refused")
    assert log.read_text("utf-8").count("ChromaDB connection failed") == 1


def test_after_a_while_it_is_said_again_with_what_was_left_unsaid(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(words.time, "monotonic", lambda: clock[0])
    for _ in range(3):
        words.chroma_failed("refused")
    clock[0] += words.REPEAT_S
    words.chroma_failed("refused")
    assert "unsaid=2" in log.read_text("utf-8").splitlines()[1]
