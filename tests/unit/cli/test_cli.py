"""The command line as users run it: a process, pipes, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures.web import WORKER, Web
from unjam.testing.wait import until

HEAVY = ("rich", "pydantic", "httpx", "numpy", "fastapi", "uvicorn", "chromadb", "sqlalchemy",
         "redis", "rq", "openai", "onnxruntime", "watchfiles", "asyncio")  # fmt: skip


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


async def run(*arguments: str, stdin: bytes = b"", **env: str) -> Done:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "UNJAM_", "LC_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "unjam.cli.main", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**kept, **env},
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin)
    assert b"Traceback" not in err, err.decode()
    return Done(process.returncode or 0, out.decode(), err.decode())


async def unjam(web: Web, *arguments: str, stdin: bytes = b"", **env: str) -> Done:
    return await run(*arguments, stdin=stdin, UNJAM_URL=web.url, **env)


async def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['unjam', '--help']\n"
        "from unjam.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert err.decode().strip() == "[]"
    for command in ["up", "add", "list", "show", "search", "status", "why", "delete", "worker"]:
        assert f"  {command} " in out.decode()


async def test_help_of_every_command_in_both_languages() -> None:
    text = "up api worker watchdog add list show search status why cancel retry delete"
    commands = text.split()
    for done in await asyncio.gather(*(run(c, "--help") for c in commands)):
        assert done.code == 0
    assert "검색" in (await run("search", "--help", "--lang", "ko")).out
    assert "검색" in (await run("--lang=ko", "search", "--help")).out
    assert "검색" in (await run("search", "--help", RAG_LANG="ko_KR.UTF-8")).out
    wrong = await run("list", "--lang", "fr")
    assert (wrong.code, "fr" in wrong.err) == (2, True)


async def test_completion_script_can_be_shown() -> None:
    # Which shell calls is read from the process tree; a test has none to speak of.
    done = await run("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.code == 0, done.err
    assert "unjam" in done.out


async def test_no_server_is_one_line_and_a_hint() -> None:
    for command in (["list"], ["status"], ["add", __file__], ["search", "x"], ["why", "abc"]):
        done = await run(*command, "--url", "http://127.0.0.1:1")
        assert done.code == 3, done
        assert done.out == ""
        assert "no server answers at http://127.0.0.1:1" in done.err
        assert "unjam up" in done.err
        assert len(done.err.strip().splitlines()) <= 3
    korean = await run("list", "--url", "http://127.0.0.1:1", "--lang", "ko")
    assert "시작" in korean.err


async def test_usage_errors_exit_2(web: Web, tmp_path: Path) -> None:
    assert (await run("fly")).code == 2
    assert (await run("list", "--limit", "x")).code == 2
    assert (await unjam(web, "list", "--state", "flying")).code == 2
    assert (await unjam(web, "show", "nobody")).code == 2
    bad = await unjam(web, "add", str(tmp_path), "--metadata", "{")
    assert bad.code == 2
    assert "--metadata" in bad.err
    assert (await run("list", "--url", "nonsense")).code == 2
    setting = await run("api", RAG_EMBEDDING_BATCH_SIZE="many", RAG_DATA_DIR=str(tmp_path))
    assert setting.code == 2
    assert "RAG_EMBEDDING_BATCH_SIZE" in setting.err


async def test_add_finds_files_folders_patterns_and_stdin(web: Web, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("a.txt", "sub/b.txt", "sub/deep/c.md", ".hidden", ".git/config", "x.part"):
        file = tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tree / "pipe").symlink_to("/dev/null")
    done = await unjam(web, "add", str(tree))
    assert done.code == 0, done.err
    assert sorted(Path(line[2]).name for line in done.lines) == ["a.txt", "b.txt", "c.md"]
    assert "3 added, 0 already there, 0 failed" in done.err
    again = await unjam(web, "add", str(tree / "**/*.txt"))
    assert [line[3] for line in again.lines] == ["(already there)"] * 2
    piped = await unjam(web, "add", "-", "--name", "표준입력.txt", stdin=b"from stdin " * 10_000)
    shown = await unjam(web, "show", piped.lines[0][0], "--json")
    document = json.loads(shown.out)
    assert (document["filename"], document["size_bytes"]) == ("표준입력.txt", 110_000)


async def test_add_goes_on_after_a_bad_file_and_says_so(web: Web, tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.txt" for n in range(10)]
    for n, file in enumerate(files):
        file.write_text(f"text {n}")
    missing = tmp_path / "none.txt"
    done = await unjam(web, "add", *map(str, files), str(missing), str(tmp_path / "*.pdf"))
    assert done.code == 1
    assert len(done.lines) == 10
    assert "none.txt" in done.err
    assert "*.pdf" in done.err
    assert "10 added, 0 already there, 2 failed" in done.err
    as_json = await unjam(web, "add", str(files[0]), str(missing), "--json")
    rows = {Path(r["path"]).name: r for r in map(json.loads, as_json.out.splitlines())}
    assert rows["0.txt"]["duplicate_of"]
    assert rows["none.txt"]["error"] == "unreadable_file"


async def test_add_wait_ends_with_the_documents(web: Web, tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.txt" for n in range(3)]
    for n, file in enumerate(files):
        file.write_text(f"wait {n}")

    async def adding(*more: str) -> Done:
        return await unjam(web, "add", *map(str, files), "--wait", "--user", "kim", *more)

    task = asyncio.create_task(adding())

    async def arrived() -> list:
        return list((await web.house.ledger.list(user_id="kim")).items)

    await until("three documents", arrived, lambda d: len(d) == 3)
    await web.house.intake.close()
    documents = await arrived()
    for document in documents[:2]:
        await web.house.finish(document.id, ["text"])
    await web.house.park(documents[2].id)
    done = await task
    assert done.code == 1
    assert sorted(line[1] for line in done.lines) == ["dead", "searchable", "searchable"]
    (dead,) = [line for line in done.lines if line[1] == "dead"]
    assert dead[3].startswith("encrypted: ")
    await web.http.delete(f"/api/rag/documents/{documents[2].id}")
    good = await unjam(web, "add", *[
        str(f) for f in files if f.name != documents[2].filename
    ], "--wait", "--user", "kim")  # fmt: skip
    assert good.code == 0, good.err
    late = await unjam(web, "add", __file__, "--wait", "--timeout", "0.3")
    assert late.code == 1
    assert "unjam why" in late.err


async def test_looking_and_changing(web: Web) -> None:
    one = await web.added(b"1", "연차 규정.txt", user_id="kim")
    two = await web.added(b"2", "b\x1b[31m.txt")
    await web.house.intake.close()
    await web.house.finish(one, ["연차 휴가는 15일이다", "출장비"])
    await web.house.park(two)
    listed = await unjam(web, "list", NO_COLOR="1")
    assert [(r[0], r[1]) for r in listed.lines] == [(two, "dead"), (one, "searchable")]
    assert listed.lines[1][5] == "연차 규정.txt"
    assert "\x1b" not in listed.out
    assert [d["id"] for d in json.loads((await unjam(web, "list", "--json")).out)] == [two, one]
    assert [r[0] for r in (await unjam(web, "list", "--state", "dead")).lines] == [two]
    found = await unjam(web, "search", "연차", "휴가는", "15일이다", "-k", "1")
    assert found.code == 0
    assert "연차 규정.txt, p. 1" in found.out
    assert "15일이다" in found.out
    hits = json.loads((await unjam(web, "search", "연차", "--json", "--user", "kim")).out)
    assert {h["document_id"] for h in hits} == {one}
    none = await unjam(web, "search", "x", "--filter", '{"user_id": "nobody"}')
    assert (none.code, none.out) == (1, "")
    assert (await unjam(web, "why", one)).code == 0
    why = await unjam(web, "why", two)
    assert why.code == 2
    assert "password" in why.out
    korean = await unjam(web, "why", two, "--lang", "ko")
    assert "암호를 해제" in korean.out
    assert json.loads((await unjam(web, "why", two, "--json")).out)["reason"] == "encrypted"
    retried = await unjam(web, "retry", two, "nobody")
    assert retried.code == 1
    assert retried.lines[0][0] == two
    cancelled = await unjam(web, "cancel", two, "--json")
    assert json.loads(cancelled.out)["state"] == "cancelled"
    deleted = await unjam(web, "delete", one, two)
    assert [line[1] for line in deleted.lines] == ["deleted", "deleted"]
    assert (await unjam(web, "delete", "nobody")).code == 2


async def test_status_says_how_it_is_with_its_exit_code(web: Web) -> None:
    unready = await unjam(web, "status")
    assert unready.code == 2
    assert "no_worker" in unready.err
    web.house.ledger.renew(WORKER, {}, [])
    web.apps[0].state.readiness = None
    ready = await unjam(web, "status", "--json")
    assert ready.code == 0, ready
    assert json.loads(ready.out)["ledger"]["accepted"] == 0
    document_id = await web.added(b"x")
    await web.house.intake.close()
    await web.house.park(document_id)
    assert (await unjam(web, "status")).code == 1


async def test_everything_works_under_lang_c_and_other_encodings(web: Web, tmp_path: Path) -> None:
    file = tmp_path / "한글 이름.txt"
    file.write_text("내용")
    for env in ({"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}):
        added = await unjam(web, "add", str(file), **env)
        assert added.code == 0, (env, added)
        listed = await unjam(web, "list", **env)
        assert listed.code == 0, (env, listed)
    utf8 = await unjam(web, "list", LC_ALL="C", PYTHONUTF8="1")
    assert "한글 이름.txt" in utf8.out


async def test_a_reader_that_closes_the_pipe_is_no_error(web: Web) -> None:
    for n in range(30):
        await web.added(f"{n}".encode() * 50)
    command = f"{sys.executable} -m unjam.cli.main list --json --limit 0 | head -c 10"
    process = await asyncio.create_subprocess_shell(
        command,
        env={**os.environ, "UNJAM_URL": web.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (len(out), err) == (10, b"")


async def test_the_data_folder_tells_where_the_server_is(web: Web, tmp_path: Path) -> None:
    (tmp_path / "house.json").write_text(json.dumps({"api_url": web.url}))
    assert (await run("list", RAG_DATA_DIR=str(tmp_path))).code == 0
    (tmp_path / "house.json").write_text("{broken")
    fallback = await run("list", "--url", web.url, RAG_DATA_DIR=str(tmp_path))
    assert fallback.code == 0


async def test_a_terminal_gets_a_table_and_colours_unless_asked_not_to(web: Web) -> None:
    await web.added(b"1", "표.txt")

    async def on_terminal(**env: str) -> str:
        outer, inner = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "unjam.cli.main", "list"),
            stdout=inner,
            env={**os.environ, "UNJAM_URL": web.url, "TERM": "xterm", **env},
        )
        os.close(inner)
        assert await process.wait() == 0
        text = os.read(outer, 100_000).decode()
        os.close(outer)
        return text

    coloured = await on_terminal()
    assert "\x1b[" in coloured
    assert "표.txt" in coloured
    assert "\x1b" not in await on_terminal(NO_COLOR="1")


async def test_watch_adds_what_appears_and_updates_what_changes(web: Web, tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    (folder / "first.txt").write_text("first")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "unjam.cli.main", "add", str(folder), "--watch"),
        env={**os.environ, "UNJAM_URL": web.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None

    async def documents() -> dict[str, int]:
        page = await web.house.ledger.list()
        return {d.filename: d.generation for d in page.items}

    try:
        async with asyncio.timeout(30):
            while b"Watching" not in await process.stderr.readline():
                pass
        (folder / ".hidden").write_text("no")
        (folder / "second.txt").write_text("second")
        await until("the new file", documents, lambda d: "second.txt" in d)
        (folder / "first.txt").write_text("changed")
        await until("a new generation", documents, lambda d: d["first.txt"] == 2)
        assert set(await documents()) == {"first.txt", "second.txt"}
        assert process.stdout is not None
        async with asyncio.timeout(30):  # it says so a moment after the server knows it
            told = [await process.stdout.readline() for _ in range(3)]
    finally:
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert b"Traceback" not in err
    assert all(told)


@pytest.mark.parametrize("given", ["up", "worker", "watchdog", "api"])
async def test_running_commands_describe_their_options(given: str) -> None:
    assert "--data-dir" in (await run(given, "--help")).out
