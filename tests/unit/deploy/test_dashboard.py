"""The Grafana dashboard and Prometheus' sample configuration: sound, current, on our metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.promtool import needs_promtool, promtool
from unjam.observe.alert_table import ALERTS
from unjam.observe.metrics import FAMILIES

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "unjam.json").read_text("utf-8"))
EXPRESSIONS = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
EXPORTED = {f.name for f in FAMILIES if f.kind != "histogram"} | {
    f"{f.name}_{part}"
    for f in FAMILIES
    if f.kind == "histogram"
    for part in ("bucket", "sum", "count")
}
_METRIC = re.compile(r"\brag_[a-z_]+")


def named(expression: str) -> set[str]:
    """Metrics of an expression; label values (lanes) are no metrics."""
    return set(_METRIC.findall(re.sub(r'"[^"]*"', '""', expression)))


def test_generated_files_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/deploy.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *(a.expr for a in ALERTS)])
def test_expressions_name_only_metrics_that_exist(expression: str) -> None:
    assert named(expression)
    assert named(expression) <= EXPORTED


def test_every_metric_is_shown() -> None:
    shown = set().union(*(named(e) for e in EXPRESSIONS))
    unshown = EXPORTED - shown - {f"rag_job_duration_seconds_{p}" for p in ("sum", "count")}
    assert unshown == set()


def test_panels_do_not_overlap_and_have_their_own_ids() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


@needs_promtool
def test_every_panel_is_valid_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{n}", "expr": e.replace("$__rate_interval", "1m")}
        for n, e in enumerate(EXPRESSIONS)
    ]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", str(file), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_sample_configuration_is_sound() -> None:
    done = promtool("check", "config", "prometheus/prometheus.yml", cwd=DEPLOY)
    assert done.returncode == 0, done.stdout + done.stderr
