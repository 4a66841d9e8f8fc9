"""The units and wrappers name commands and variables that exist, and systemd reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unjam.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
SYSTEMD = ROOT / "deploy" / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
WRAPPERS = sorted((ROOT / "deploy" / "bin").glob("*.sh"))
OURS = {"UNJAM_WORKERS", "UNJAM_HOST", "ANONYMIZED_TELEMETRY"}
VERIFY = shutil.which("systemd-analyze")


def commands() -> set[str]:
    page = (ROOT / "docs/en/reference/cli.md").read_text("utf-8")
    return set(re.findall(r"^## `unjam ([a-z]+)", page, re.M))


def test_the_runbooks_names_are_there() -> None:
    assert {"rag-worker-service.service", "unjam.service"} <= {unit.name for unit in UNITS}
    assert [w.name for w in WRAPPERS] == ["rag-capacity-stats.sh", "rag-queue-monitor.sh"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda p: p.name)
def test_units_call_commands_that_exist(unit: Path) -> None:
    called = re.findall(r"^ExecStart=/opt/unjam/\.venv/bin/unjam ([a-z]+)", unit.read_text(), re.M)
    assert set(called) <= commands()
    documents = re.findall(r"^Documentation=file:/opt/unjam/(\S+)$", unit.read_text(), re.M)
    assert all((ROOT / name).is_file() for name in documents)


@pytest.mark.parametrize("unit", UNITS, ids=lambda p: p.name)
def test_units_set_only_variables_that_mean_something(unit: Path) -> None:
    known = {str(field.alias) for field in Settings.model_fields.values()} | OURS
    text = unit.read_text() + (SYSTEMD / "unjam.env").read_text()
    named = re.findall(r"\b((?:RAG|UNJAM|OPENAI|SLACK|ADMIN|ANONYMIZED)_[A-Z_]+)=", text)
    assert named and set(named) <= known


@pytest.mark.parametrize("unit", UNITS, ids=lambda p: p.name)
def test_a_shared_folder_can_be_written_to(unit: Path) -> None:
    """ProtectSystem=strict shuts everything that is not named."""
    text = unit.read_text()
    if "EnvironmentFile=-/etc/unjam/unjam.env" in text:
        assert "ProtectSystem=strict" in text and "ReadWritePaths=-/srv/unjam\n" in text
    assert "RAG_STORAGE_URL=file:///srv/unjam\n" in (SYSTEMD / "unjam.env").read_text()


def test_a_stop_drains_and_a_large_document_takes_only_its_child_along() -> None:
    for name in ("unjam.service", "rag-worker@.service", "rag-worker-large.service"):
        text = (SYSTEMD / name).read_text()
        assert "KillMode=mixed" in text and "OOMPolicy=continue" in text
    for name in ("rag-worker@.service", "rag-worker-large.service"):
        assert "PartOf=rag-worker-service.service" in (SYSTEMD / name).read_text()


@pytest.mark.skipif(VERIFY is None, reason="systemd-analyze is not here: apt-get install systemd")
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    folder = Path(sys.executable).parent
    for unit in UNITS:
        text = unit.read_text().replace("/opt/unjam/.venv/bin", str(folder))
        (tmp_path / unit.name).write_text(text.replace("/opt/unjam", str(ROOT)))
    names = [u.name.replace("@.", "@1.") for u in UNITS]
    done = subprocess.run(
        [str(VERIFY), "verify", "--man=no", *names],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda p: p.name)
def test_wrappers_are_one_line_that_calls_unjam(wrapper: Path, tmp_path: Path) -> None:
    lines = wrapper.read_text().splitlines()
    assert lines[0] == "#!/bin/sh" and len(lines) == 2
    assert wrapper.stat().st_mode & 0o111
    called = re.fullmatch(r'exec unjam ([a-z]+)( --?[a-z-]+)* "\$@"', lines[1])
    assert called is not None and called[1] in commands()
    stand_in = tmp_path / "unjam"
    stand_in.write_text('#!/bin/sh\necho "$@"\nexit 2\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        [str(wrapper), "--json", "a b"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2  # what unjam says reaches cron
    assert done.stdout.endswith("--json a b\n")
