"""Write the alert rules and the Grafana dashboard from the code, for hosts and for the Helm chart
(which can only read files of its own folder).

python scripts/deploy.py           write them
python scripts/deploy.py --check   exit 1 when one is not current, and name it
"""

from __future__ import annotations

import sys
from pathlib import Path

from unjam.observe.alert_table import ALERTS
from unjam.observe.alerts import rules_yaml
from unjam.observe.panels import dashboard_json

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    rules, dashboard = rules_yaml(ALERTS), dashboard_json()
    wanted = {
        "deploy/prometheus/unjam-rules.yml": rules,
        "deploy/grafana/unjam.json": dashboard,
        "deploy/k8s/unjam/files/unjam-rules.yml": rules,
        "deploy/k8s/unjam/files/unjam-dashboard.json": dashboard,
    }
    stale: list[str] = []
    for name, text in wanted.items():
        target = ROOT / name
        if target.exists() and target.read_text("utf-8") == text:
            continue
        if "--check" in sys.argv[1:]:
            stale.append(name)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
    for name in stale:
        print(f"{name} is not current: run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
