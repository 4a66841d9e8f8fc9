"""Results as a table on stdout and as JSON in ``bench/out``."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "out"


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "cpus": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def write_json(name: str, facts: Mapping[str, Any]) -> Path:
    """``bench/out/<name>.json`` with the facts and the machine."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **facts}, indent=1, ensure_ascii=False))
    return path


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Plain text; the first column to the left, numbers to the right."""
    cells = [[*head], *([_cell(v) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def bars(name: str, title: str, values: Mapping[str, float]) -> Path:
    """``bench/out/<name>.svg``: one bar per value, as long as its share of the largest."""
    most = max(values.values(), default=0.0) or 1.0
    lines = [f'<text x="8" y="18" font-weight="bold">{escape(title)}</text>']
    for number, (label, value) in enumerate(values.items()):
        top = 30 + 22 * number
        color = "#0b7285" if label.startswith("unjam") else "#adb5bd"
        lines += [
            f'<text x="230" y="{top + 13}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="238" y="{top}" width="{value / most * 400:.1f}" height="17" fill="{color}"/>',
            f'<text x="{246 + value / most * 400:.1f}" y="{top + 13}">{value:.1f}</text>',
        ]
    height = 40 + 22 * len(values)
    path = OUT / f"{name}.svg"
    body = "\n".join(lines)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" '
        f'font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'
    )
    return path


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which *share* (0 … 1) of all lie; the nearest measured one."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
