"""The storm of the promise: a minute over 400 documents, on SQLite and on PostgreSQL.

    make soak SEED=7 SECONDS=60

Without SEED it is another one each time; the failure names it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from unjam.testing.storm import Storm, StormPlan, storm_or_raise

SEED = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
SECONDS = float(os.environ.get("SECONDS") or 60.0)
DOCUMENTS_PER_S = 400 / 60


@pytest.mark.soak
async def test_a_storm_loses_nothing(ledger_url: str, tmp_path: Path) -> None:
    database = "" if ledger_url.startswith("sqlite") else ledger_url
    plan = StormPlan(SEED, SECONDS, documents=round(DOCUMENTS_PER_S * SECONDS))
    storm = Storm(plan, tmp_path / "stack", database)
    verdict = await storm_or_raise(storm)
    print(f"\nseed {SEED}\n{storm.timeline}\n{dict(storm.faults)}\n{verdict}")
    assert verdict.accepted == plan.documents
