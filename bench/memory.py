"""What the whole system holds in memory at most: proportional set sizes of all its processes.

    python -m bench.memory [--files 1000] [--large-mb 300]

First many small documents with a slow endpoint, so that as many are in flight as the cap allows;
then one large text file in a fresh system, whose addition is told apart from Chroma's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.corpus import GIANT_BYTES, make_corpus, text_of
from bench.house import House, Peak, house, sampled
from bench.report import table, write_json

PROMISED_MIB = 1.2 * 1024
PROMISED_LARGE_MIB = 300.0
MIB = 1024 * 1024


def small(files: int, latency_ms: float) -> tuple[Peak, dict[str, float], int]:
    """The peak, what the idle system held before, and the most documents in flight."""
    with tempfile.TemporaryDirectory() as folder, house(latency_ms=latency_ms) as ours:
        make_corpus(Path(folder), files)
        before = ours.pss_mib()
        most, stop = 0, threading.Event()

        def watch() -> None:
            nonlocal most
            while not stop.wait(0.25):
                most = max(most, ours.counts()["running"])

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with sampled(ours.pss_mib) as peak:
                ours.command("add", folder, "--wait")
        finally:
            stop.set()
            watcher.join()
        return peak, before, most


def write_large(path: Path, size: int) -> None:
    with path.open("wb") as out:
        number = 0
        while out.tell() < size:
            out.write(text_of(number, GIANT_BYTES).encode()[: size - out.tell()])
            number += 1


def large(mb: int) -> tuple[Peak, dict[str, float], float, int]:
    """One file: the peak without Chroma, what there was before, seconds, chunks."""

    def rest(ours: House) -> dict[str, float]:
        return {role: mib for role, mib in ours.pss_mib().items() if role != "Chroma"}

    with tempfile.TemporaryDirectory() as folder, house() as ours:
        path = Path(folder) / "warm.txt"
        path.write_text(text_of(1, 20_000))
        ours.command("add", str(path), "--wait")  # so that what is loaded on first use is there
        path = Path(folder) / "large.txt"
        write_large(path, mb * MIB)
        before = rest(ours)
        started = time.perf_counter()
        with sampled(lambda: rest(ours)) as peak:
            ours.command("add", str(path), "--wait", limit_s=1800)
        took_s = time.perf_counter() - started
        return peak, before, took_s, ours.fake.stats()["texts"]


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--files", type=int, default=1000)
    ask.add_argument("--latency-ms", type=float, default=400.0)
    ask.add_argument("--large-mb", type=int, default=300, help="0: leave it out")
    options = ask.parse_args()
    peak, before, most = small(options.files, options.latency_ms)
    roles = sorted(peak.parts, key=lambda role: -peak.parts[role])
    rows: list[list[object]] = [
        [
            "peak of everything",
            f"{peak.total / PROMISED_MIB:.2f}×",
            peak.total,
            sum(before.values()),
            PROMISED_MIB,
        ]
    ]
    rows += [[f"  {role}", "", peak.parts[role], before.get(role, 0.0), ""] for role in roles]
    head = ["MiB", "to promise", "peak", "idle before", "promise"]
    print(table(head, rows))
    print(f"{most} documents in flight at most, {peak.samples} samples\n")
    facts = {"options": vars(options), "peak": peak.parts, "before": before, "in_flight": most}
    if options.large_mb:
        peak, before, took_s, chunks = large(options.large_mb)
        more = peak.total - sum(before.values())
        rows = [
            [
                f"a text file of {options.large_mb} MB, without Chroma",
                f"{more / PROMISED_LARGE_MIB:.2f}×",
                more,
                PROMISED_LARGE_MIB,
            ]
        ]
        for role in sorted(peak.parts, key=lambda role: -peak.parts[role]):
            rows.append([f"  {role}", "", peak.parts[role] - before.get(role, 0.0), ""])
        print(table(["MiB", "to promise", "more than before", "promise"], rows))
        print(f"{took_s:.0f} s, {chunks:,} chunks, {chunks / took_s:,.0f} chunks/s")
        facts |= {"large_peak": peak.parts, "large_before": before, "large_s": took_s}
    print(write_json("memory", facts), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
