"""Doubles that forget: the real ledger over a throw-away file, and blobs in a throw-away folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from unjam.stores.ledger import SqlLedger


class _ThrowAway(SqlLedger):
    folder: Path

    async def close(self) -> None:
        await super().close()
        shutil.rmtree(self.folder, ignore_errors=True)


async def memory_ledger() -> SqlLedger:
    """The same code as in production over a file that is gone after ``close``."""
    folder = Path(tempfile.mkdtemp(prefix="unjam-ledger-"))
    ledger = await _ThrowAway.open(f"sqlite:///{folder / 'ledger.db'}", durable=False)
    assert isinstance(ledger, _ThrowAway)
    ledger.folder = folder
    return ledger
