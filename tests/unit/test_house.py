"""What holds for the whole repository: sizes, directions, locks, light imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = sorted((ROOT / "unjam").rglob("*.py"))
MOST_LINES = 400
LONG_ON_PURPOSE = {"unjam/core/reasons.py", "unjam/core/causes.py", "unjam/stores/schema.py"}
"""Two tables, and one page of promises."""


def test_no_file_of_the_package_is_long() -> None:
    long = {
        str(p.relative_to(ROOT)): lines
        for p in SOURCE
        if (lines := len(p.read_text("utf-8").splitlines())) >= MOST_LINES
    }
    assert {k: v for k, v in long.items() if k not in LONG_ON_PURPOSE} == {}


def test_nothing_is_left_to_do() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError")
    found = [str(p.relative_to(ROOT)) for p in SOURCE if marks.search(p.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locks_hold_versions_and_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    assert not re.search(r"://|^--(index|extra|find|trusted)|file:", text, re.M)
    pins = re.split(r"^(?=[a-z0-9])", text, flags=re.M | re.I)
    unhashed = [pin.split()[0] for pin in pins if "==" in pin and "--hash=sha256:" not in pin]
    assert unhashed == []


def test_the_development_lock_holds_the_users_lock() -> None:
    def pins(lock: str) -> set[str]:
        found = re.findall(r"^([A-Za-z0-9._-]+==[^\s;\\]+)", (ROOT / lock).read_text("utf-8"), re.M)
        return set(found)

    assert pins("requirements.lock") <= pins("requirements-dev.lock")


def test_every_direct_dependency_is_locked() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    locked = set(
        re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.lock").read_text("utf-8"), re.M)
    )
    wanted = {re.split(r"[\[<>=!~; ]", line)[0] for line in project["dependencies"]}
    assert wanted <= locked


def test_importing_the_package_is_cheap() -> None:
    script = "import sys, json, unjam; json.dump(sorted(sys.modules), sys.stdout)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    heavy = {"pydantic", "chromadb", "openai", "fastapi", "onnxruntime", "sqlalchemy", "numpy"}
    assert not heavy & set(json.loads(done.stdout))


def test_the_public_surface_is_small_and_resolves() -> None:
    import unjam

    assert len(unjam.__all__) <= 7
    for name in unjam.__all__:
        assert getattr(unjam, name) is not None
    with pytest.raises(AttributeError):
        _ = unjam.Nothing


def test_import_directions_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_makefile_keeps_the_callers_environment_out_of_tests_and_demo() -> None:
    done = subprocess.run(
        ["make", "-n", "demo", "test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    clean = [line for line in done.stdout.splitlines() if "-m " in line]
    assert clean and all("env $(env | sed" in line for line in clean)


def test_a_current_environment_is_left_alone(tmp_path: Path) -> None:
    """The stamp decides: with it current, set-up neither runs pip nor looks for Python."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    key = subprocess.run(
        "echo $(cat requirements-dev.lock pyproject.toml scripts/setup.sh | sha256sum | "
        "cut -d' ' -f1) $PWD",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (venv / ".unjam-stamp").write_text(key)
    done = subprocess.run(
        ["bash", "scripts/setup.sh", str(venv)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_set_up_names_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "scripts/setup.sh", str(tmp_path / "venv")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": "/nowhere/python3"},
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "/nowhere/python3" in done.stderr
