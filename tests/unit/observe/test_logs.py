"""The format of log lines: words, secrets, awkward input."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from unjam.observe.logs import FIELDS, TAIL, configure_logging
from unjam.settings import Settings


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], root.level, logging.raiseExceptions = before
    structlog.reset_defaults()


def configured(log_format: str = "text", **settings: Any) -> io.StringIO:
    stream = io.StringIO()
    values = {"RAG_LOG_FORMAT": log_format, **settings}
    configure_logging(Settings(**values), process="worker", stream=stream)
    return stream


def test_a_text_line_has_time_level_sentence_fields_and_tail() -> None:
    out = configured()
    fields = {"lane": "rag_processing", "note": "two words", TAIL: "Processing time: 12ms"}
    logging.getLogger("unjam.worker").info("Something happened", extra={FIELDS: fields})
    stamp, rest = out.getvalue().rstrip("\n").split(" ", 1)
    assert stamp.endswith("Z") and len(stamp) == len("2026-11-23T03:15:00.123Z")
    assert (
        rest
        == 'INFO: Something happened lane=rag_processing note="two words" Processing time: 12ms'
    )


def test_json_lines_parse_and_carry_the_same() -> None:
    out = configured("json")
    logging.getLogger("unjam.worker").warning("한글 문장", extra={FIELDS: {"chunks": 3}})
    line = json.loads(out.getvalue())
    assert line.items() >= {"level": "WARNING", "event": "한글 문장", "chunks": 3}.items()
    assert line["process"] == "worker"


def test_a_healthy_line_never_contains_alarming_words() -> None:
    out = configured()
    logging.getLogger("some.library").info("no ERROR here, one WARNING there")
    logging.getLogger("unjam").info("fine", extra={FIELDS: {"file": "ERROR WARNING.pdf"}})
    assert "ERROR" not in out.getvalue() and "WARNING" not in out.getvalue()
    logging.getLogger("unjam").error("an ERROR stays one")
    assert out.getvalue().count("ERROR") == 2


def test_one_event_is_one_line_whatever_it_holds() -> None:
    out = configured()
    logging.getLogger("unjam").info(
        "a\nb", extra={FIELDS: {"detail": "x\r\n2026 ERROR: forged\x1b[0m"}}
    )
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:hunter2hunter2@example:6379/5",
        "postgresql://u:hunter2hunter2@db/x",
        "Authorization: Bearer hunter2hunter2",
        "https://api.example/v1?api_key=hunter2hunter2&x=1",
        '{"token": "hunter2hunter2"}',
        "https://hooks.slack.com/services/hunter2hunter2/B/C",
        "Incorrect API key provided: sk-hunter2hunter2",
    ],
)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_cut_by_their_shape(text: str, log_format: str) -> None:
    out = configured(log_format)
    logging.getLogger("unjam").error(text, extra={FIELDS: {"detail": [text]}})
    assert "hunter2hunter2" not in out.getvalue()
    assert "***" in out.getvalue()


def test_secrets_are_cut_by_name_and_by_the_settings_values() -> None:
    out = configured(OPENAI_API_KEYS="team:plainkey123,other456789", ADMIN_TOKEN="opensesame")
    log = logging.getLogger("unjam")
    log.info("said plainkey123 other456789 opensesame", extra={FIELDS: {"api_key": "q1w2e3"}})
    try:
        raise RuntimeError("opensesame in an exception")
    except RuntimeError:
        log.exception("failed")
    for secret in ("plainkey123", "other456789", "opensesame", "q1w2e3"):
        assert secret not in out.getvalue()
    assert "RuntimeError" in out.getvalue()


def test_structlog_loggers_come_out_in_the_same_form() -> None:
    out = configured()
    structlog.get_logger("unjam.api").warning("Careful", code="x")
    assert out.getvalue().split(" ", 1)[1] == "WARNING: Careful code=x\n"


def test_a_closed_stream_costs_lines_only() -> None:
    out = configured()
    out.close()
    logging.getLogger("unjam").error("into the void")


def test_chatty_libraries_are_quiet() -> None:
    out = configured()
    logging.getLogger("httpx").info("HTTP Request: POST …")
    assert out.getvalue() == ""
