"""Several documents in one question."""

from __future__ import annotations

from tests.fixtures.ledger import submission
from unjam.core.document import State
from unjam.core.ports import Ledger


async def test_get_many_gives_those_that_exist(ledger: Ledger) -> None:
    answers = await ledger.accept([submission(n) for n in range(3)])
    ids = [a.document_id for a in answers]
    await ledger.delete(ids[1])
    found = {d.id: d.state for d in await ledger.get_many([*ids, "nobody"])}
    assert found == {
        ids[0]: State.RECEIVED,
        ids[1]: State.DELETED,
        ids[2]: State.RECEIVED,
    }
    assert await ledger.get_many([]) == []
