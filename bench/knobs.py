"""What the knobs do: the same files with one knob at another value each time.

    python -m bench.knobs [--files 300] [--latency-ms 100] [--repeat 3] [--only RAG_…]

Everything else is as it is shipped; every point is a fresh system. Ratios are to the default.
"""

from __future__ import annotations

import argparse
import sys

from bench.house import house
from bench.report import bars, median, table, write_json
from bench.scale import add_some

KNOBS: dict[str, tuple[str, list[str]]] = {
    "RAG_EMBEDDING_BATCH_SIZE": ("32", ["8", "16", "64", "128"]),
    "RAG_EMBEDDING_CONCURRENCY": ("3", ["1", "6", "12"]),
    "RAG_MAX_CONCURRENT_JOBS": ("50", ["10", "25", "100"]),
    "RAG_MAX_CHUNK_SIZE": ("1024", ["256", "512"]),
}
"""Variable → its default, and the other values that are tried."""


def point(name: str, value: str, files: int, latency_ms: float) -> tuple[float, float, float]:
    """Files per second, CPU milliseconds per file, embedding requests."""
    with house(latency_ms=latency_ms, settings={name: value} if name else {}) as ours:
        add_some(ours, 50, 900_000)  # what is loaded on first use
        before = ours.fake.stats()["requests"]
        ms, used = add_some(ours, files, 0)
        return 1e3 / ms, sum(used.values()), ours.fake.stats()["requests"] - before


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--files", type=int, default=300)
    ask.add_argument("--latency-ms", type=float, default=100.0)
    ask.add_argument("--repeat", type=int, default=1)
    ask.add_argument("--only", default=",".join(KNOBS), help="comma-separated")
    options = ask.parse_args()
    tries = [("", "defaults")]
    for name in options.only.split(","):
        tries += [(name, value) for value in KNOBS[name][1]]
    found: dict[str, list[tuple[float, float, float]]] = {}
    for turn in range(options.repeat):
        for name, value in tries:
            label = f"{name}={value}" if name else value
            found.setdefault(label, []).append(
                point(name, value, options.files, options.latency_ms)
            )
            done = f"{turn + 1}/{options.repeat} {label} {found[label][-1]}"
            print(done, file=sys.stderr, flush=True)
    medians = {
        label: [median(column) for column in zip(*f, strict=True)] for label, f in found.items()
    }
    base = medians["defaults"][0]
    rows = [[label, f"{m[0] / base:.2f}×", *m[:2], int(m[2])] for label, m in medians.items()]
    print(table(["", "to the defaults", "files/s", "CPU ms/file", "requests"], rows))
    facts = {"options": vars(options), "defaults": {n: d for n, (d, _) in KNOBS.items()}}
    print(write_json("knobs", facts | {"points": found}), file=sys.stderr)
    bars("knobs", "files per second by knob", {label: m[0] for label, m in medians.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
