"""A 300-page Korean PDF becomes searchable, and its hits cite their pages."""

from __future__ import annotations

import pytest

from unjam.core.document import State
from unjam.testing.openai_process import FakeOpenAI
from unjam.testing.pdf import korean_pdf
from unjam.testing.stack import Stack
from unjam.testing.wait import until_ended


@pytest.mark.slow
async def test_a_korean_pdf_of_300_pages_is_found_with_its_page_numbers(
    reconciled: Stack, fake_openai: FakeOpenAI
) -> None:
    stack = reconciled
    fake_openai.control(mode="bag")
    document_id = await stack.add(korean_pdf(300), "창고 계획.pdf")
    stack.worker()
    document = (await until_ended(stack.services.ledger, [document_id]))[document_id]
    assert (document.state, document.reason) == (State.SEARCHABLE, "")
    assert document.chunks >= 300
    for page in (1, 150, 300):
        query = f"{page}쪽 3째 줄은 창고의 재고와 운송 계획을 설명합니다."
        hits = await stack.services.retriever.search(query, k=5)
        assert page in {hit.page for hit in hits}
        assert {hit.filename for hit in hits} == {"창고 계획.pdf"}
