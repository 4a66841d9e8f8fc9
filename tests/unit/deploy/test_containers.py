"""The image and the compose file: read by the real tools, and true about our own programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.deployed import (
    DEPLOY,
    ROOT,
    WORKER_DRAIN_S,
    composed,
    ran,
    tool,
    unknown,
    wrong_command,
)
from unjam.web.auth import require_tokens
from unjam.web.server import GRACE_S
from unjam.worker.worker import WorkerOptions

CONTAINERFILE = DEPLOY / "container" / "Containerfile"
HEALTHY = DEPLOY / "container" / "unjam-healthy"


# -- the image ------------------------------------------------------------------------------------
def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, rest), continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", CONTAINERFILE.read_text("utf-8"), flags=re.M)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(head, " ".join(rest.split())) for head, _, rest in (x.partition(" ") for x in lines)]


def of(name: str) -> list[str]:
    return [rest for head, rest in instructions() if head == name]


def test_the_linter_has_no_complaint() -> None:
    done = ran([tool("hadolint"), str(CONTAINERFILE)])
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = [
        source
        for rest in of("COPY")
        if "--from=" not in rest
        for source in [w for w in rest.split() if not w.startswith("--")][:-1]
    ]
    assert {"requirements.lock", "unjam"} <= set(copied)
    assert [c for c in copied if not (ROOT / c).exists()] == []
    assert set(copied) == allowed  # and nothing that nobody copies


def test_packages_come_from_the_hashed_locks_only() -> None:
    installs = re.findall(r"pip install ([^&]+)", " && ".join(of("RUN")))
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--no-deps --no-build-isolation ." in install
    # The line that takes the build backend out of the development lock still finds it.
    (program,) = re.findall(r"sed -n '([^']+)' requirements-dev.lock", " ".join(of("RUN")))
    block = ran(["sed", "-n", program, "requirements-dev.lock"]).stdout
    assert re.match(r"setuptools==\S+ \\\n    --hash=sha256:", block)
    assert len(re.findall(r"^\S", block, re.M)) == 1


@pytest.mark.thorough
def test_a_wheel_comes_out_of_what_is_copied(tmp_path: Path) -> None:
    """With everything that is no Python: scripts of Redis, migrations, pages."""
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY_NOTICES.md"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "unjam", source / "unjam", ignore=shutil.ignore_patterns("*.pyc"))
    python = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels)]
    done = ran([*python, "--no-deps", "--no-build-isolation", "--no-index", "."], cwd=source)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(wheels.iterdir())) as wheel:
        inside = set(wheel.namelist())
    wanted = [p for p in (ROOT / "unjam").rglob("*") if p.is_file() and p.suffix != ".pyc"]
    assert {str(p.relative_to(ROOT)) for p in wanted} <= inside


def test_it_runs_as_nobody_in_particular_and_hears_signals() -> None:
    assert of("USER") == ["10001:10001"]
    assert of("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(of("ENTRYPOINT")[0]) == ["/usr/bin/tini", "--"]
    assert wrong_command(json.loads(of("CMD")[0])) == ""
    assert set(of("EXPOSE")[0].split()) == {"8002", "9181"}
    named = re.findall(r"\b([A-Z][A-Z_]+)=", of("ENV")[-1])
    assert {"RAG_DATA_DIR", "HF_HUB_OFFLINE"} <= set(named)
    assert unknown(named) == set()


def test_the_model_is_built_where_the_image_looks_for_it() -> None:
    (built,) = re.findall(
        r"XDG_CACHE_HOME=(\S+) \S+ -m unjam.embedding.model_build", str(of("RUN"))
    )
    assert f"XDG_CACHE_HOME={built} " in of("ENV")[-1]


# -- is it alive? ---------------------------------------------------------------------------------
def healthy(*arguments: str, **env: str) -> int:
    path = {"PATH": f"{Path(tool('python')).parent}:{os.environ['PATH']}"}
    return ran([str(HEALTHY), *arguments], env={**path, **env}).returncode


def test_a_beat_that_is_fresh_and_one_that_is_not(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    assert healthy(RAG_BEAT_FILE=str(beat)) == 1
    beat.touch()
    assert healthy(RAG_BEAT_FILE=str(beat)) == 0
    os.utime(beat, (0, 0))
    assert healthy(RAG_BEAT_FILE=str(beat)) == 1
    assert healthy("99999999999", RAG_BEAT_FILE=str(beat)) == 0


async def test_an_api_that_answers_and_one_that_does_not(web: Any, unused: int) -> None:
    import asyncio

    assert await asyncio.to_thread(healthy, str(web.port)) == 0
    assert await asyncio.to_thread(healthy, str(unused)) != 0


@pytest.fixture
def unused() -> int:
    from tests.fixtures.chroma import free_port

    return free_port()


# -- compose --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return composed(tmp_path_factory.mktemp("compose") / "compose")


OURS = ("api", "worker", "watchdog")


def test_compose_refuses_a_file_with_a_fault(tmp_path: Path) -> None:
    """So that its silence means something."""
    (tmp_path / "compose.yaml").write_text("services: {a: {image: x, portz: ['1:1']}}\n")
    done = ran([tool("docker-compose"), "config", "--quiet"], cwd=tmp_path)
    assert done.returncode != 0 and "portz" in done.stderr


def test_every_part_and_every_server_is_there(model: dict[str, Any]) -> None:
    services, servers = model["services"], {"valkey", "chroma", "postgres"}
    assert set(services) == {*OURS, *servers}
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        assert service["stop_grace_period"]
    for name in OURS:
        after = services[name]["depends_on"]
        assert set(after) == servers
        assert {c["condition"] for c in after.values()} == {"service_healthy"}
    # Ours have the image's own check.
    assert {n for n, s in services.items() if "healthcheck" in s} == servers


@pytest.mark.parametrize("name", OURS)
def test_commands_and_variables_exist(model: dict[str, Any], name: str) -> None:
    service = model["services"][name]
    assert wrong_command(service["command"]) == ""
    assert unknown(service["environment"]) == set()
    assert unknown(s["source"] for s in service["secrets"]) == set()
    assert {"RAG_REDIS_URL", "RAG_CHROMA_URL", "RAG_STORAGE_URL"} <= set(service["environment"])
    assert service["environment"]["RAG_SECRETS_DIR"] == "/run/secrets"
    assert ("RAG_BEAT_FILE" in service["environment"]) == (name != "api")


def test_only_this_machine_reaches_it_unless_told_otherwise(
    model: dict[str, Any], tmp_path: Path
) -> None:
    published = {n: s["ports"] for n, s in model["services"].items() if "ports" in s}
    assert set(published) == {"api"}
    assert {(p["host_ip"], p["published"], p["target"]) for p in published["api"]} == {
        ("127.0.0.1", "8002", 8002),
        ("127.0.0.1", "9181", 9181),
    }
    assert model["networks"]["inside"]["internal"] is True
    for name in ("valkey", "chroma", "postgres"):
        assert set(model["services"][name]["networks"]) == {"inside"}
    other = composed(tmp_path / "c", UNJAM_BIND="0.0.0.0", UNJAM_WORKERS="5")
    assert {p["host_ip"] for p in other["services"]["api"]["ports"]} == {"0.0.0.0"}
    assert other["services"]["worker"]["deploy"]["replicas"] == 5


def seconds(text: str) -> float:
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert found is not None, text
    return 60.0 * int(found[1] or 0) + int(found[2] or 0)


def test_a_stop_leaves_time_to_drain(model: dict[str, Any]) -> None:
    assert WorkerOptions(lanes=()).drain_s + 5 == WORKER_DRAIN_S
    graces = {n: seconds(s["stop_grace_period"]) for n, s in model["services"].items()}
    assert graces["worker"] >= WORKER_DRAIN_S + 15
    assert graces["api"] > GRACE_S


def test_our_containers_may_do_little(model: dict[str, Any]) -> None:
    for name in (*OURS, "chroma"):
        service = model["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_queue_never_evicts_and_loses_nothing(model: dict[str, Any]) -> None:
    said = " ".join(model["services"]["valkey"]["command"])
    assert "--maxmemory-policy noeviction" in said
    assert "--appendonly yes --appendfsync always" in said


def test_secrets_are_made_once_and_serve_as_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unjam.settings import Settings

    folder = tmp_path / "compose"
    model = composed(folder)
    assert ran([str(folder / "make-secrets")]).returncode == 0
    secrets = folder / "secrets"
    before = {p.name: p.read_text() for p in secrets.iterdir()}
    assert secrets.stat().st_mode & 0o077 == 0
    assert set(before) == set(model["secrets"])
    assert before["POSTGRES_PASSWORD"].strip() in before["RAG_DATABASE_URL"]
    assert len({before[n] for n in ("RAG_API_TOKEN", "ADMIN_TOKEN", "POSTGRES_PASSWORD")}) == 3

    monkeypatch.setenv("RAG_SECRETS_DIR", str(secrets))
    settings = Settings()  # type: ignore[call-arg]
    require_tokens(settings, "0.0.0.0")
    assert settings.database_url == before["RAG_DATABASE_URL"].strip()
    assert settings.uses_local_model  # an empty file is no key
    assert settings.slack_webhook_url is None
    assert ran([str(folder / "make-secrets")]).returncode == 0
    assert {p.name: p.read_text() for p in secrets.iterdir()} == before
