"""Tells the ledger how a supervisor's children ended: evidence for the documents they held."""

from __future__ import annotations

import contextlib

from unjam.core.errors import DependencyDown
from unjam.core.ports import Ledger
from unjam.worker.supervisor import Supervisor


async def follow_exits(supervisor: Supervisor, ledger: Ledger) -> None:
    """Until cancelled. What the ledger does not take now is lost: it is evidence, no state."""
    while True:
        process_id, code = await supervisor.endings.get()
        with contextlib.suppress(DependencyDown):
            await ledger.note_exit(process_id, code)
