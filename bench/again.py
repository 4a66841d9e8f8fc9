"""The same folder a second time: what is not done again.

    python -m bench.again [--files 2000] [--repeat 3]

The first run brings everything in; the second and later ones find every file known. Timed with
the start of the command, as a user runs it; the endpoint must not be asked for anything.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.corpus import make_corpus
from bench.house import house
from bench.report import median, table, write_json

PROMISED_PER_S = 1000.0


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    ask.add_argument("--files", type=int, default=2000)
    ask.add_argument("--repeat", type=int, default=3)
    options = ask.parse_args()
    with tempfile.TemporaryDirectory() as folder, house() as ours:
        corpus = make_corpus(Path(folder), options.files)
        first = ours.command("add", folder, "--wait")
        ours.wait_searchable(options.files)
        requests = ours.fake.stats()["requests"]
        runs = []
        for _ in range(options.repeat):
            before = ours.cpu_s()
            run = ours.command("add", folder, "--wait")
            used = {role: s - before.get(role, 0.0) for role, s in ours.cpu_s().items()}
            runs.append((run, used.get("API", 0.0)))
        asked = ours.fake.stats()["requests"] - requests
        counts = ours.counts()
    per_s = [options.files / run.wall_s for run, _ in runs]
    again = median(per_s)
    rows = [
        [
            "second run",
            f"{again / PROMISED_PER_S:.2f}×",
            again,
            median([run.wall_s for run, _ in runs]),
            median([run.cpu_s for run, _ in runs]) / options.files * 1e3,
            median([api for _, api in runs]) / options.files * 1e3,
            asked,
        ],
        [
            "first run",
            "",
            options.files / first.wall_s,
            first.wall_s,
            first.cpu_s / options.files * 1e3,
            "",
            requests,
        ],
    ]
    head = ["", "to promise", "files/s", "wall s", "client CPU ms/file", "API CPU ms/file"]
    print(table([*head, "embedding requests"], rows))
    facts = {"options": vars(options), "bytes": corpus.bytes, "per_s": per_s, "requests": asked}
    print(write_json("again", facts), file=sys.stderr)
    wrong = asked or counts["searchable"] != options.files
    if wrong:
        print(f"work was done again: {asked} requests, {counts}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
