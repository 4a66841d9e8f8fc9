"""``unjam doctor`` as an operator runs it: well, with parts dead, and with nothing running."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.chroma import ChromaServer
from tests.fixtures.outage import OwnValkey, Scene
from unjam.app.house import House
from unjam.testing.wait import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)

    @property
    def causes(self) -> list[str]:
        return [f["cause"] for f in self.json["findings"]]


async def doctor(env: Mapping[str, str], *more: str) -> Said:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAG_", "OPENAI_", "UNJAM_"))}
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "unjam.cli.main",
        "doctor",
        *more,
        env={**clean, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    assert child.returncode is not None
    return Said(child.returncode, out.decode(), err.decode())


@pytest.fixture
async def house(scene: Scene) -> Scene:
    """A whole house at work; ``house.json`` names its API."""
    stack = scene.stack
    url = str(scene.http.base_url).rstrip("/")
    replace(stack.services.house(), api_url=url).write(stack.data_dir)
    scene.run(workers=1)

    async def beating() -> set[str]:
        return {ref.kind for ref, age in await stack.services.ledger.processes() if age < 4.0}

    await until("worker and watchdog", beating, lambda kinds: {"worker", "watchdog"} <= kinds)
    return scene


def env_of(scene: Scene) -> dict[str, str]:
    return {**scene.stack.environment(), "OPENAI_API_KEY": "sk-very-secret-key"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but what the house's own processes write meanwhile (the day's line at 23:00)."""
    return {
        str(p): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
        and not p.name.startswith(("ledger", "reserve", "embeddings"))
        and p.suffix not in (".log", ".csv")
    }


def _well(said: Said) -> bool:
    return not said.causes


async def test_a_house_that_is_well(house: Scene) -> None:
    before = contents(house.stack.data_dir)
    audited = await house.stack.services.ledger.last_event()
    said = await doctor(env_of(house), "--json")
    assert (said.code, said.json["verdict"], said.causes) == (0, "ok", []), said.out
    checks = {c["name"]: c for c in said.json["checks"]}
    assert {"queues", "workers", "redis", "chroma", "storage", "memory", "kernel"} <= set(checks)
    assert "clients" in checks["redis"]["said"] and "memory" in checks["redis"]["said"]
    assert "410" in checks["chroma"]["said"]
    assert contents(house.stack.data_dir) == before
    assert await house.stack.services.ledger.last_event() == audited
    assert "sk-very-secret-key" not in said.out + said.err

    # From a shell without the endpoint's variables: it must not be said that no text leaves.
    bare = await doctor({"RAG_DATA_DIR": str(house.stack.data_dir)}, "--json")
    told = {c["name"]: c for c in bare.json["checks"]}["embedding"]["said"]
    assert "text is sent to http://127.0.0.1" in told, told

    probed = await doctor(env_of(house), "--probe-embedding", "--json")
    assert "dimensions" in {c["name"]: c for c in probed.json["checks"]}["embedding"]["said"]


async def test_one_part_after_the_other_dies(
    house: Scene, own_valkey: OwnValkey, chroma_server: ChromaServer
) -> None:
    await own_valkey.kill()
    said = await doctor(env_of(house), "--json")
    assert (said.code, said.causes) == (2, ["redis_down"]), said.out
    (finding,) = said.json["findings"]
    assert finding["evidence"] and finding["repair"] and finding["advice"]
    assert finding["command"] == f"redis-cli -p {own_valkey.plan.port} -n 5 ping"
    await own_valkey.start()
    await until("Redis is filled again", lambda: doctor(env_of(house), "--json"), _well)

    chroma_server.kill()
    korean = await doctor(env_of(house), "--lang", "ko")
    assert korean.code == 2
    assert korean.out.startswith("✗ 심각: 벡터 저장소가 응답하지 않습니다")
    assert "[chroma_down]" in korean.out and "[workers_hung]" not in korean.out
    assert f"{chroma_server.url}/api/v2/heartbeat" in korean.out
    chroma_server.start()

    for process in house.processes:
        process.popen.kill()
        await process.ended()
    said = await doctor(env_of(house), "--json")
    assert (said.code, said.causes) == (2, ["workers_none", "watchdog_none"]), said.out

    await own_valkey.kill()
    chroma_server.kill()
    known = House.read(house.stack.data_dir)
    assert known is not None
    replace(known, api_url="http://127.0.0.1:1").write(house.stack.data_dir)
    said = await doctor({"RAG_DATA_DIR": str(house.stack.data_dir)}, "--json")
    assert (said.code, said.causes) == (2, ["not_running"]), said.out
    (finding,) = said.json["findings"]
    assert finding["command"] == "unjam up"
    assert {"redis_down", "chroma_down", "workers_none"} <= set(finding["effects"])


async def test_no_house_at_all(tmp_path: Path) -> None:
    said = await doctor({"RAG_DATA_DIR": str(tmp_path / "none")}, "--json")
    assert (said.code, said.json["verdict"]) == (3, "unknown")
    assert not (tmp_path / "none").exists()


async def test_a_ledger_that_is_damaged_is_left_as_it_is(tmp_path: Path) -> None:
    text = b"this is no database, whatever its name says\n" * 300
    (tmp_path / "ledger.db").write_bytes(text)
    said = await doctor({"RAG_DATA_DIR": str(tmp_path)}, "--json")
    assert said.code == 2
    assert "ledger_down" in said.causes
    assert contents(tmp_path) == {}
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("ledger.db", text)]


async def test_every_code_is_explained() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "unjam.cli.main", "explain", "--json",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await child.communicate()
    causes, reasons, errors = json.loads(out)
    assert {"chroma_down"} <= {c["code"] for c in causes}
    assert {"encrypted"} <= {c["code"] for c in reasons}
    assert {"not_found"} <= {c["code"] for c in errors}
    assert all(c["what"] for c in (*causes, *reasons, *errors))
