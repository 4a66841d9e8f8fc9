"""``make bench``: every benchmark in turn; each is a program of its own with its own options.

python -m bench            all of them
python -m bench rivals …   one, with its options
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path


def benches() -> list[str]:
    """Modules of this folder that can be run."""
    here = Path(__file__).parent
    return sorted(
        path.stem
        for path in here.glob("*.py")
        if path.stem != "__main__" and '__name__ == "__main__"' in path.read_text()
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
    failed = [n for n in names if subprocess.run([sys.executable, "-m", f"bench.{n}"]).returncode]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
