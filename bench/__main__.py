"""``make bench``: every benchmark in turn; each is a program of its own with its own options.

python -m bench            all of them, those of MODEST smaller than by themselves
python -m bench rivals …   one, with its options
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

NOT_ALONE = ("__main__", "queue_roles")
"""They have a main of their own and are no benchmarks."""

MODEST = {
    "bulk": "--texts 2000 --compare 500",
    "idle": "--documents 100000",
    "ledger": "--documents 100000",
    "ledger_many": "--seconds 3",
    "order": "--documents 20000",
    "recovery": "--rounds 3",
    "governor": "--minute 20 --minutes 3 --limit 200",
    "knobs": "--files 150 --only RAG_EMBEDDING_BATCH_SIZE",
    "latency": "--seconds 10 --vectors 20000",
    "memory": "--large-mb 50",
    "profile": "--files 300",
    "rivals": "--files 300",
    "simulate": "--hosts 1,10",
    "scale": "--store 0,1000 --backlog 5000,20000 --files 150",
    "vector_stores": "--vectors 5000 --queries 100",
    "wall": "--files 5",
}
"""What takes many minutes with its own defaults, in about one."""


def benches() -> list[str]:
    """Modules of this folder that can be run."""
    here = Path(__file__).parent
    return sorted(
        path.stem
        for path in here.glob("*.py")
        if path.stem not in NOT_ALONE and '__name__ == "__main__"' in path.read_text()
    )


def main() -> int:
    names = benches()
    if len(sys.argv) > 1:
        name = sys.argv[1]
        if name not in names:
            print(f"no benchmark {name!r}; there are: {', '.join(names)}", file=sys.stderr)
            return 2
        sys.argv = sys.argv[1:]
        runpy.run_module(f"bench.{name}", run_name="__main__", alter_sys=True)
        return 0
    failed: list[str] = []
    for name in names:
        more = MODEST.get(name, "").split()
        print(f"\n== {' '.join([name, *more])}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}", *more]).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
