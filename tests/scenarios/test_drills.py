"""Every drill, as ``unjam drill`` plays it; what it promises is checked again by other means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import httpx
import pytest

from unjam.cli.drill import NAMES
from unjam.core.chunk import chunk_ids
from unjam.testing.drills import DRILLS, DrillReport, Scene, run_drill
from unjam.testing.drills.report import Promise
from unjam.testing.drills.scene import FOREIGN, clean_environment

pytestmark = pytest.mark.thorough

PAGE = 1000
BY_COMMAND = "redis-flush"


async def look_closely(scene: Scene) -> None:
    """The test's own account, over HTTP alone: states, a search per document, sets of ids."""
    held = await ids_in(scene.stack.plans["chroma"].url)
    wanted: set[str] = set()
    for document_id, text in scene.expected.items():
        told = (await scene.http.get(f"/api/rag/documents/{document_id}")).json()
        assert told["state"] == "searchable", told
        document = await scene.stack.services.ledger.get(document_id)
        assert document is not None
        assert (document.generation, document.visible_generation) == (1, 1)
        wanted |= set(chunk_ids(document_id, 1, told["chunks"]))
        if len(text) < 100_000:
            await found_by_its_words(scene, document_id, text)
    assert held == wanted
    for document_id, reason in scene.parked.items():
        told = (await scene.http.get(f"/api/rag/documents/{document_id}")).json()
        assert (told["state"], told["reason"]) == ("dead", reason)
        assert told["hint"]


async def found_by_its_words(scene: Scene, document_id: str, text: str) -> None:
    """A search that only this document can answer, and every paragraph of it is there."""
    asked = {"query": text, "k": 50, "filter": {"document_id": document_id}}
    hits = (await scene.http.post("/api/rag/search", json=asked)).json()["hits"]
    shown = " ".join(hit["text"] for hit in hits)
    lines = text.split("\n\n")
    assert all(f"{line.split(',')[0]}," in shown for line in lines), document_id


async def ids_in(chroma_url: str) -> set[str]:
    """Every id in every collection, by Chroma's own HTTP API."""
    base = f"{chroma_url}/api/v2/tenants/default_tenant/databases/default_database/collections"
    ids: list[str] = []
    async with httpx.AsyncClient(timeout=30) as http:
        for collection in (await http.get(base)).json():
            for offset in count(0, PAGE):
                body = {"include": [], "limit": PAGE, "offset": offset}
                page = (await http.post(f"{base}/{collection['id']}/get", json=body)).json()["ids"]
                ids += page
                if len(page) < PAGE:
                    break
    assert len(ids) == len(set(ids))
    return set(ids)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "name",
    # The ordinary run plays this one through the command line, below.
    [pytest.param(n, marks=pytest.mark.soak if n == BY_COMMAND else ()) for n in NAMES],
)
async def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    report = await run_drill(DRILLS[name], folder=tmp_path, inspect=look_closely)
    assert report.ok, str(report)
    assert report.lost == 0
    assert report.documents >= 12
    assert report.noticed_s is not None
    assert report.recovered_s is not None


def test_the_command_knows_every_drill() -> None:
    assert list(NAMES) == list(DRILLS)
    assert all(drill.what and drill.what_ko for drill in DRILLS.values())


def test_a_broken_promise_is_seen() -> None:
    report = DrillReport("x")
    assert not report.ok, "nothing was judged, so nothing is well"
    report.promises.append(Promise("kept", "지킴", True))
    assert report.ok
    report.promises.append(Promise("broken", "깨짐", False, "so many"))
    assert not report.ok
    assert [p.en for p in report.broken()] == ["broken"]
    assert "BROKEN broken" in str(report)


def test_nothing_of_the_callers_environment_reaches_a_drill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("RAG_DATABASE_URL", "RAG_REDIS_URL", "OPENAI_API_KEY", "ADMIN_TOKEN")
    for name in names:
        monkeypatch.setenv(name, "postgresql://live/data")
    with clean_environment():
        assert not [k for k in os.environ if k.startswith(FOREIGN)]
    assert all(os.environ[name] == "postgresql://live/data" for name in names)


def test_an_unknown_drill_is_a_usage_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unjam.cli.main", "drill", "nonsense"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no drill nonsense" in done.stderr
    assert "worker-kill" in done.stderr


@pytest.mark.slow
def test_the_command_prints_json_beside_live_settings(tmp_path: Path) -> None:
    """With settings of a live system around it, which it must not touch."""
    live = tmp_path / "live"
    live.mkdir()
    env = {**os.environ, "RAG_DATA_DIR": str(live), "RAG_REDIS_URL": "redis://127.0.0.1:1/5"}
    done = subprocess.run(
        [sys.executable, "-m", "unjam.cli.main", "drill", BY_COMMAND, "--json", "--lang", "ko"],
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] is True
    (drill,) = told["drills"]
    assert (drill["name"], drill["lost"]) == (BY_COMMAND, 0)
    assert "준비됨" in done.stderr
    assert list(live.iterdir()) == []
