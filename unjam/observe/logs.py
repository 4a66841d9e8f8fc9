"""Log lines: one format for all processes, without secrets.

Text, one line an event::

    2026-11-23T03:15:00.123Z INFO: RAG worker started processing job 0193…-1 lane=rag_processing

The level with its colon stands before the sentence, since operators' greps look for
``ERROR: …``. A line of level INFO never contains the words ERROR or WARNING, whatever a file
name or a library's message says: ``grep -c ERROR`` counts errors. JSON has the same fields.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO
from urllib.parse import parse_qsl, unquote, urlsplit

import structlog
from pydantic import SecretStr

from unjam.settings import Settings

FIELDS = "fields"
"""``extra={FIELDS: {...}}`` of a stdlib record holds its key=value pairs."""

TAIL = "tail"
"""A field whose value ends the line, bare: for ``awk '{print $NF}'``."""

_LEVELS: Mapping[str, str] = {"critical": "ERROR", "exception": "ERROR", "warn": "WARNING"}
_LOUD_LIBRARIES = (
    "httpx",
    "httpcore",
    "urllib3",
    "uvicorn.access",
    "chromadb",
    "watchfiles",
    "asyncio",
    "alembic",
)

Event = MutableMapping[str, Any]


def configure_logging(settings: Settings, *, process: str, stream: TextIO | None = None) -> None:
    """Send all of this process's log lines to *stream* (stderr), replacing earlier handlers.

    *process* names the kind of process (``worker``, ``api``, …) in JSON lines. Logging never
    raises: a full disk or a closed pipe costs lines, not documents.
    """
    logging.raiseExceptions = False
    render: Callable[[Any, str, Event], str] = _json if settings.log_format == "json" else _text
    shared: list[Any] = [structlog.stdlib.add_log_level, _fields_of_record, _stamp]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _of_process(process),
            _Redactor(settings),
            _calm,
            render,
        ],
    )
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in _LOUD_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


# -- steps of a line, in order --------------------------------------------------------------
def _fields_of_record(_logger: Any, _method: str, event: Event) -> Event:
    record = event.get("_record")
    if record is None:
        return event
    event.update(getattr(record, FIELDS, {}))
    if not record.name.startswith("unjam"):
        event["logger"] = record.name
    return event


def _stamp(_logger: Any, _method: str, event: Event) -> Event:
    record = event.get("_record")
    at = datetime.fromtimestamp(record.created, UTC) if record else datetime.now(UTC)
    event["timestamp"] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return event


def _of_process(process: str) -> Callable[[Any, str, Event], Event]:
    def add(_logger: Any, _method: str, event: Event) -> Event:
        event["process"] = process
        return event

    return add


_SECRET_NAMES = re.compile(r"(?i)(^|_)(api_?keys?|token|password|secret|authorization|cookie)$")
_SECRET_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), r"\1:***@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{4,}"), r"\1 ***"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{6,}"), "sk-***"),
    (re.compile(r"(hooks\.slack\.com/services)/[^\s\"']+"), r"\1/***"),
    (
        re.compile(
            r"(?i)\b((?:api[_-]?key|token|password|secret)\"?'?\s*[=:]\s*\"?'?)[^\s\"',&}]+"
        ),
        r"\1***",
    ),
)
_MAYBE_SECRET = re.compile(r"(?i)://|bearer|basic|sk-|hooks\.|key|token|password|secret")
"""What every shape holds a piece of: most values are looked at once."""

_LEAST_SECRET = 6  # shorter values would cut ordinary words


@lru_cache(maxsize=1024)
def _names_secret(key: str) -> bool:
    return _SECRET_NAMES.search(key) is not None


class _Redactor:
    """Cuts what is shaped like a secret, what is named like one, and this house's own ones."""

    def __init__(self, settings: Settings) -> None:
        self._values = sorted(_secrets_of(settings), key=len, reverse=True)

    def __call__(self, _logger: Any, _method: str, event: Event) -> Event:
        for key, value in event.items():
            event[key] = "***" if _names_secret(key) else self._cut(value)
        return event

    def _cut(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(k): "***" if _names_secret(str(k)) else self._cut(v)
                    for k, v in value.items()}  # fmt: skip
        if isinstance(value, list | tuple | set | frozenset):
            return [self._cut(v) for v in value]
        if isinstance(value, int | float | None):
            return value
        text = str(value)
        for secret in self._values:
            text = text.replace(secret, "***")
        if _MAYBE_SECRET.search(text):
            for shape, instead in _SECRET_SHAPES:
                text = shape.sub(instead, text)
        return text


def secrets_cut(settings: Settings) -> Callable[[str], str]:
    """What makes any text fit to be shown: without secrets, as in the log."""
    redact = _Redactor(settings)
    return lambda text: str(redact(None, "", {"text": text})["text"])


def _secrets_of(settings: Settings) -> Iterable[str]:
    values: list[str] = list(settings.api_keys)
    values += [key.partition(":")[2] for key in settings.api_keys if ":" in key]
    values += [
        value.get_secret_value()
        for name in type(settings).model_fields
        if isinstance(value := getattr(settings, name), SecretStr)
    ]
    urls = (settings.redis_url, settings.chroma_url, settings.vector_store_url)
    for url in (*urls, settings.database_url):
        place = urlsplit(url or "")
        login = place.netloc.rpartition("@")[0].partition(":")[2]
        options = (v for k, v in parse_qsl(place.query) if k.endswith(("password", "token")))
        values += [login, unquote(login), *options]
    return {value for value in values if len(value) >= _LEAST_SECRET}


_ALARMING = re.compile("ERROR|WARNING|CRITICAL")


def _calm(_logger: Any, _method: str, event: Event) -> Event:
    """Levels become the contract's words; a healthy line loses alarming ones."""
    level = str(event.get("level", "info"))
    event["level"] = _LEVELS.get(level, level.upper())
    if event["level"] in ("INFO", "DEBUG"):
        for key, value in event.items():
            event[key] = _soften(value)
    return event


def _soften(value: Any) -> Any:
    if isinstance(value, str):
        return _ALARMING.sub(lambda m: m[0].lower(), value)
    if isinstance(value, Mapping):
        return {_soften(str(k)): _soften(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_soften(v) for v in value]
    return value


# -- the two renderings ---------------------------------------------------------------------
def _json(_logger: Any, _method: str, event: Event) -> str:
    head = {k: event.pop(k) for k in ("timestamp", "level", "process", "event")}
    tail = event.pop(TAIL, "")
    if tail:
        head["event"] = f"{head['event']} {tail}"
    return json.dumps({**head, **event}, ensure_ascii=False, default=str)


_BARE = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f]+")


def _text(_logger: Any, _method: str, event: Event) -> str:
    stamp, level = event.pop("timestamp"), event.pop("level")
    sentence, tail, trace = event.pop("event"), event.pop(TAIL, ""), event.pop("exception", "")
    event.pop("process", None)
    parts = [f"{stamp} {level}: {_one_line(str(sentence))}"]
    parts += [f"{key}={_value(value)}" for key, value in event.items() if value not in ("", None)]
    if tail:
        parts.append(str(tail))
    line = " ".join(parts)
    if trace:
        line += "\n" + "\n".join(f"    {row}" for row in str(trace).splitlines())
    return line


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(_visible(c) for c in text)


def _visible(char: str) -> str:
    return char if char.isprintable() else repr(char)[1:-1]


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping | list):
        text = json.dumps(value, ensure_ascii=False, default=str, separators=(",", ":"))
        return _one_line(text)
    text = str(value)
    return text if _BARE.fullmatch(text) else _one_line(json.dumps(text, ensure_ascii=False))
