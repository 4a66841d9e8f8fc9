"""Jobs: readable by RQ, and by grep."""

from __future__ import annotations

import pickle
import re
import zlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rq.utils import utcparse

from unjam.core.document import Ticket
from unjam.queue.jobs import FUNCTION, current_ticket, encode, parse_payload, payload, stamp


@given(st.text(), st.integers(0, 2**50))
def test_what_rq_unpickles(document_id: str, size: int) -> None:
    ticket = Ticket(document_id, 3, "rag_processing", size)
    data = encode(ticket).encode("ascii")
    function, instance, args, kwargs = pickle.loads(data)
    assert (function, instance, kwargs) == (FUNCTION, None, {})
    assert parse_payload(args[0]) == (document_id, size)
    with pytest.raises(zlib.error):  # RQ falls back to the raw bytes only then
        zlib.decompress(data)


def test_the_runbooks_grep_finds_the_size() -> None:
    data = encode(Ticket("0192f0c1-7a5e", 1, "rag_processing", 123_456))
    assert re.findall(r'"file_size":[0-9]*', data) == ['"file_size":123456']
    assert payload(Ticket("a", 1, "", 5)) == '{"doc_id":"a","file_size":5}'


@pytest.mark.parametrize("text", ["", "[]", '"x"', '{"doc_id":5}', "{}"])
def test_foreign_arguments(text: str) -> None:
    with pytest.raises(ValueError):
        parse_payload(text)


def test_times_are_rqs() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    assert utcparse(stamp(moment)) == moment


def test_outside_of_a_job_there_is_no_ticket() -> None:
    assert current_ticket() is None
