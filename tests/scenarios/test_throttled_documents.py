"""An endpoint that answers 429 for a while: documents wait, and nothing is spent on asking."""

from __future__ import annotations

import asyncio

import pytest

from unjam.core.document import State
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.stack import Stack
from unjam.testing.wait import until, until_ended

pytestmark = pytest.mark.thorough

DOCUMENTS = 20
PAUSE_S = 7.0
UNDER_WAY_S = 1.5


async def test_throttled_documents_wait_without_churn_and_then_finish(
    reconciled: Stack, fake_openai: FakeOpenAI
) -> None:
    stack = reconciled
    ledger = stack.services.ledger
    fake_openai.control(fault="429", retry_after_s=PAUSE_S)
    ids = [await stack.add(f"note {n}") for n in range(DOCUMENTS)]
    workers = [stack.worker(), stack.worker()]

    async def waiting() -> list[str]:
        page = await ledger.list(state=State.WAITING)
        return [document.reason for document in page.items]

    reasons = await until("documents wait", waiting, bool, deadline_s=30)
    assert set(reasons) == {"embedding_throttled"}

    async def asked() -> list[float]:
        """Seconds from the first request to each that came when all had heard of the pause."""
        arrivals = sorted((await asyncio.to_thread(fake_openai.stats))["arrivals"])
        return [a - arrivals[0] for a in arrivals if a - arrivals[0] > UNDER_WAY_S]

    again = await until("the endpoint is asked again", asked, bool, deadline_s=30)
    assert min(again) >= PAUSE_S - 0.1
    assert len(again) <= 2  # not one for each document and process
    fake_openai.control(fault="")
    ended = await until_ended(ledger, ids, deadline_s=60)
    assert {document.state for document in ended.values()} == {State.SEARCHABLE}
    assert {document.errors for document in ended.values()} == {0}
    output = "".join(worker.output() for worker in workers)
    assert "ERROR: Embedding API rate limit exceeded" in output
    assert output.count("RAG worker started processing job") <= 3 * DOCUMENTS
