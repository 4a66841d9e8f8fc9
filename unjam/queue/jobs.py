"""Jobs as RQ stores them, in the form that an operator can grep, and the ticket inside one.

``data`` is an uncompressed protocol-0 pickle around one compact JSON string, so that
``HGET rq:job:<id> data | grep -o '"file_size":[0-9]*'`` finds the size. RQ tries zlib first and
falls back to the raw bytes; the first two bytes of ours can never be a zlib header.
"""

from __future__ import annotations

import json
import pickle
import pickletools
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from unjam._redis import url_of
from unjam.core.document import Ticket

FUNCTION = "unjam.rq_job.process_document"
"""What a stock RQ worker calls, with the JSON string as its only argument."""

_MARK = "<payload>"

DESCRIPTION = "process_document"
"""RQ's workers print it; without one they crash on a terminal."""


def payload(ticket: Ticket) -> str:
    """The job's one argument: ``{"doc_id":…,"file_size":…}``."""
    fields = {"doc_id": ticket.document_id, "file_size": ticket.size_bytes}
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True)


def encode(ticket: Ticket, function: str = FUNCTION) -> str:
    """``data`` of the job's hash; ASCII."""
    return _frame(function).replace(_MARK, payload(ticket).replace("\\", "\\u005c"))


@lru_cache(maxsize=4)
def _frame(function: str) -> str:
    """The pickle of a call with _MARK as its argument. In protocol 0 a line of ASCII stands as it
    is but for its backslashes; pickling each job anew took most of a push's time."""
    call = (function, None, (_MARK,), {})
    return pickletools.optimize(pickle.dumps(call, protocol=0)).decode("ascii")


def stamp(moment: datetime) -> str:
    """A time in RQ's format, UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_payload(text: str) -> tuple[str, int]:
    """(document id, size in bytes) of a job's argument.

    Raises:
        ValueError: it is not one of ours.
    """
    raw: Any = json.loads(text)
    if not isinstance(raw, dict) or not isinstance(raw.get("doc_id"), str):
        raise ValueError(f"not the argument of a document's job: {text[:100]!r}")
    return raw["doc_id"], int(raw.get("file_size", 0))


def current_ticket() -> tuple[Ticket, str] | None:
    """Ticket of the RQ job that this process is executing, and the URL of the Redis that it came
    from: a stock worker knows nothing else of the house. None outside of a job."""
    from rq import get_current_job  # half a second of imports that only a stock worker needs

    job = get_current_job()
    if job is None:
        return None
    ticket = Ticket.parse(str(job.id), job.origin or "")
    if ticket is None:
        return None
    try:
        _, size = parse_payload(str(job.args[0]))
    except (IndexError, ValueError):
        size = 0
    return replace(ticket, size_bytes=size), url_of(job.connection.connection_pool)
