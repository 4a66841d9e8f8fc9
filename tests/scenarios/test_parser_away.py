"""The parser of one worker does not start: its trouble, and never a document's."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fixtures.outage import Scene
from unjam.testing.wait import until, until_ended

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(180)]

NO_ATTEMPTS = {"errors": 0, "deaths": 0, "throttles": 0}

BROKEN = """
import os, sys
if any("zygote" in word for word in sys.orig_argv) and os.path.exists({flag!r}):
    os._exit(3)
"""


async def test_a_parser_that_does_not_start_costs_no_document_anything(
    scene: Scene, tmp_path: Path
) -> None:
    flag, site = tmp_path / "no-parser", tmp_path / "site"
    site.mkdir()
    flag.touch()
    (site / "sitecustomize.py").write_text(BROKEN.format(flag=str(flag)))
    broken = scene.stack.worker({"PYTHONPATH": str(site)})
    scene.stack.watchdog()
    ids = await scene.upload(8)

    # Seen, by people and by a diagnosis, while start after start fails.
    async def waiting() -> int:
        vitals = await scene.stack.services.ledger.vitals(["rag_processing"])
        return vitals.waiting_for.get("worker_unfit", 0)

    await until("documents wait for the worker", waiting, deadline_s=60)

    def starts() -> int:
        return broken.output().count("This worker cannot parse")

    async def tried() -> int:
        return starts()

    await until("several starts", tried, lambda n: n >= 3, deadline_s=60)
    shown = [await scene.shown(i) for i in ids]
    assert all(d["attempts"] == NO_ATTEMPTS for d in shown)
    reasons = {d["reason"] for d in shown if d["state"] == "waiting"}
    assert reasons <= {"worker_unfit"}
    assert "exit status 3" in broken.output()
    assert starts() < 10  # it rests, longer each time

    # A healthy worker beside it does all of them: the broken one does not take them away.
    healthy = scene.stack.worker()
    found = await until_ended(scene.stack.services.ledger, ids, deadline_s=60)
    scene.chunks = found[ids[0]].chunks
    await scene.all_well(time.monotonic())

    # Alone again and cured, it goes on by itself.
    flag.unlink()
    assert await healthy.stop() == 0
    ids += await scene.upload(1)
    await scene.all_well(time.monotonic(), first_s=40, all_s=60)
    shown = [await scene.shown(i) for i in ids]
    assert all(d["attempts"] == NO_ATTEMPTS for d in shown)
