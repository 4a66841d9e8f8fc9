"""``unjam dlq`` as operators run it: a process, pipes, a terminal that asks."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures.web import ADMIN, Web
from unjam.core.document import CLAIMABLE, State
from unjam.core.reasons import REASONS


@dataclass
class Done:
    code: int
    out: str
    err: str


async def dlq(web: Web, *arguments: str, stdin: int | None = None, **env: str) -> Done:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "UNJAM_", "ADMIN_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "unjam.cli.main", "dlq", *arguments),
        stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**kept, "UNJAM_URL": web.url, "ADMIN_TOKEN": ADMIN, **env},
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return Done(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def letters(web: Web) -> list[str]:
    """Three corrupt ones and an encrypted one of kim's."""
    ids = [await web.added(f"text {n}".encode(), f"표 {n}.txt") for n in range(3)]
    ids.append(await web.added(b"secret", "계약.pdf", user_id="kim"))
    for n, document_id in enumerate(ids):
        await web.house.park(document_id, "encrypted" if n == 3 else "corrupt")
    return ids


async def states(web: Web, ids: list[str]) -> list[State]:
    found = [await web.house.ledger.get(i) for i in ids]
    return [d.state for d in found if d is not None]


async def test_grouped_by_cause_in_both_languages(web: Web, letters: list[str]) -> None:
    done = await dlq(web, "list")
    assert done.code == 0
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert [line[:2] for line in lines] == [["3", "corrupt"], ["1", "encrypted"]]
    assert lines[0][2:] == [REASONS["corrupt"].what, REASONS["corrupt"].hint]
    assert "unjam dlq retry --reason corrupt" in done.err
    korean = await dlq(web, "list", "--lang", "ko")
    assert REASONS["corrupt"].hint_ko in korean.out


async def test_filtered_and_as_json(web: Web, letters: list[str]) -> None:
    done = await dlq(web, "list", "--user", "kim")
    assert done.out.split("\t")[:2] == [letters[3], "encrypted"]
    assert "계약.pdf" in done.out
    assert "1 dead letter\n" in done.err
    body = json.loads((await dlq(web, "list", "--json", "--limit", "2")).out)
    assert (body["total"], len(body["items"]), len(body["groups"])) == (4, 2, 2)


async def test_show_has_the_evidence(web: Web, letters: list[str]) -> None:
    done = await dlq(web, "show", letters[0])
    assert done.code == 0
    for word in ("corrupt", "page 1 of 3", REASONS["corrupt"].hint, "parsing", "claimed", "dead"):
        assert word in done.out
    body = json.loads((await dlq(web, "show", letters[0], "--json")).out)
    assert body["evidence"]["errors"] == 0
    missing = await dlq(web, "show", "nobody")
    assert (missing.code, "nobody" in missing.err) == (2, True)


async def test_retry_by_reason(web: Web, letters: list[str]) -> None:
    done = await dlq(web, "retry", "--reason", "corrupt")
    assert (done.code, done.out.split()) == (0, letters[:3])
    assert "3 dead letters" in done.err
    assert {*(await states(web, letters))[:3]} <= CLAIMABLE
    assert (await states(web, letters))[3] is State.DEAD
    again = await dlq(web, "retry", "--reason", "corrupt", "--json")
    assert (again.code, json.loads(again.out)) == (1, {"retry": 0, "ids": []})


async def test_drop_by_user_and_all(web: Web, letters: list[str]) -> None:
    assert (await dlq(web, "drop", "--user", "kim")).out.split() == letters[3:]
    assert await states(web, letters) == [State.DEAD] * 3 + [State.CANCELLED]
    assert (await dlq(web, "drop", "--all", "--yes")).code == 0
    assert await states(web, letters) == [State.CANCELLED] * 4


async def test_by_id_says_what_was_not_dead(web: Web, letters: list[str]) -> None:
    done = await dlq(web, "retry", letters[1], "nobody")
    assert (done.code, done.out.split()) == (1, [letters[1]])
    first, second, *rest = await states(web, letters)
    assert second in CLAIMABLE
    assert {first, *rest} == {State.DEAD}


async def test_nothing_happens_unless_it_is_said_to_what(web: Web, letters: list[str]) -> None:
    for arguments in ([], [letters[0], "--all"]):
        done = await dlq(web, "retry", *arguments)
        assert done.code == 2
    assert "--reason" in (await dlq(web, "drop")).err
    assert await states(web, letters) == [State.DEAD] * 4


async def test_a_terminal_is_asked_with_the_exact_number(web: Web, letters: list[str]) -> None:
    async def answer(word: str, *arguments: str) -> Done:
        outer, inner = pty.openpty()
        os.write(outer, f"{word}\n".encode())
        try:
            return await dlq(web, *arguments, stdin=inner)
        finally:
            os.close(inner)
            os.close(outer)

    no = await answer("n", "retry", "--reason", "corrupt")
    assert (no.code, "Retry 3 dead letters?" in no.err) == (2, True)
    assert await states(web, letters) == [State.DEAD] * 4
    yes = await answer("y", "drop", "--all", "--lang", "ko")
    assert (yes.code, "4개" in yes.err) == (0, True)
    assert await states(web, letters) == [State.CANCELLED] * 4


async def test_the_token_of_the_data_folder_is_found(
    web: Web, letters: list[str], tmp_path: Path
) -> None:
    bare = await dlq(web, "list", ADMIN_TOKEN="", RAG_DATA_DIR=str(tmp_path / "none"))
    assert (bare.code, "ADMIN_TOKEN" in bare.err) == (2, True)
    (tmp_path / "admin-token").write_text(ADMIN + "\n")
    found = await dlq(web, "list", ADMIN_TOKEN="", RAG_DATA_DIR=str(tmp_path))
    assert (found.code, "corrupt" in found.out) == (0, True)
