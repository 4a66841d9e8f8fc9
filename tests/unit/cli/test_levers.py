"""``unjam queue`` and ``unjam set`` as operators run them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.fixtures.web import ADMIN, Web
from tests.unit.cli.test_dlq import Done
from unjam.cli.levers import _UNITS_KO
from unjam.core.tuning import KNOBS
from unjam.queue.lanes import DEFAULT_LANES, HIGH, LOW, PROCESSING


async def unjam(web: Web, *arguments: str, token: str = ADMIN) -> Done:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "UNJAM_", "ADMIN_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "unjam.cli.main", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**kept, "UNJAM_URL": web.url, "ADMIN_TOKEN": token, "LOGNAME": "kim"},
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return Done(process.returncode or 0, out.decode(), err.decode())


async def waiting(web: Web, count: int) -> list[str]:
    ids = [await web.added(f"text {n}".encode(), f"{n}.txt") for n in range(count)]
    tickets = await web.house.ledger.pushable(1000)
    await web.house.queue.push(tickets)
    await web.house.ledger.mark_pushed(tickets)
    await web.house.queue.register_worker("w1", DEFAULT_LANES, 1)
    return ids


async def test_order_lanes_and_pauses(web: Web) -> None:
    ids = await waiting(web, 3)
    done = await unjam(web, "queue", "reorder", "newest_first", "--limit", "2")
    assert (done.code, done.out.split()) == (0, [ids[2], ids[1]])
    done = await unjam(web, "queue", "separate", "--over-mb", "0", "--to", LOW, "--json")
    assert json.loads(done.out)["moved"] == 3
    done = await unjam(web, "queue", "prioritize", '[{"attempts": 0, "priority": "high"}]')
    assert done.out.split("\n")[0].split() == ["high", "3"]
    done = await unjam(web, "queue", "pause", HIGH)
    assert (done.code, done.out.strip()) == (0, HIGH)
    listed = await unjam(web, "queue", "list")
    rows = {line.split("\t")[0]: line.split("\t") for line in listed.out.splitlines()}
    assert (rows[HIGH][1], rows[HIGH][5], rows[PROCESSING][5]) == ("3", "paused", "")
    assert listed.code == 1
    korean = await unjam(web, "queue", "list", "--lang", "ko")
    assert "일시 중지" in korean.out
    done = await unjam(web, "queue", "resume")
    assert (done.out, done.err.strip()) == ("", "no queue is paused")
    assert (await unjam(web, "queue", "list", "--json")).code == 0
    entries, _ = await web.house.ledger.audit_page()
    assert {e["by"] for e in entries} == {"operator kim"}


async def test_ringing_again(web: Web) -> None:
    ids = await waiting(web, 2)
    web.house.queue.lose_everything()
    done = await unjam(web, "queue", "requeue", ids[0], "nobody")
    assert (done.code, done.out.strip()) == (1, ids[0])
    done = await unjam(web, "queue", "requeue", "--queue", PROCESSING, "--json")
    assert (done.code, json.loads(done.out)["ids"]) == (0, [ids[1]])
    assert (await unjam(web, "queue", "requeue")).code == 2


async def test_rules_from_a_file_and_mistakes_in_one_line(web: Web, tmp_path: Path) -> None:
    await waiting(web, 1)
    rules = tmp_path / "rules.json"
    rules.write_text('{"rules": [{"file_size_mb": {"$lt": 5}, "priority": "low"}]}')
    done = await unjam(web, "queue", "prioritize", f"@{rules}", "--json")
    assert json.loads(done.out) == {"high": 0, "normal": 0, "low": 1, "unmatched": 0}
    for wrong, named in (
        (("prioritize", "{}"), "no list"),
        (("prioritize", '[{"size": 1, "priority": "low"}]'), "'size'"),
        (("prioritize", f"@{tmp_path}/none"), "No such file"),
        (("reorder", "random"), "random"),
        (("separate", "--to", "rag_pdf"), "rag_pdf"),
        (("pause", "rag_typo"), "rag_typo"),
    ):
        done = await unjam(web, "queue", *wrong)
        assert done.code == 2, done
        assert named in done.err


async def test_live_settings(web: Web) -> None:
    done = await unjam(web, "set")
    assert [line.split("\t")[0] for line in done.out.splitlines()] == list(KNOBS)
    done = await unjam(web, "set", "RAG_EMBEDDING_BATCH_SIZE", "16")
    assert done.out.split("\t")[:3] == ["RAG_EMBEDDING_BATCH_SIZE", "16", "32"]
    done = await unjam(web, "set", "rag_embedding_batch_size=8", "--json")
    assert json.loads(done.out)["items"][0]["value"] == 8
    done = await unjam(web, "set", "RAG_EMBEDDING_BATCH_SIZE", "default", "--lang", "ko")
    assert done.out.split("\t")[1] == "32"
    assert "요청당 텍스트 수" in done.out
    for wrong, named in (
        (("RAG_EMBEDDING_BATCH_SIZE", "0"), "1 to 2048"),
        (("RAG_EMBEDDING_BATCH_SIZE", "many"), "many"),
        (("RAG_TYPO", "1"), "RAG_TYPO"),
        (("RAG_TYPO",), "RAG_TYPO"),
    ):
        done = await unjam(web, "set", *wrong)
        assert done.code == 2, done
        assert named in done.err
    assert set(_UNITS_KO) == set(KNOBS)


async def test_without_the_token_it_says_how(web: Web) -> None:
    done = await unjam(web, "queue", "pause", token="wrong")
    assert done.code == 2
    assert "ADMIN_TOKEN" in done.err
