"""The first thing a Python child runs: tie its life to its parent, take its title, run its module.

    python -m unjam.worker.boot <title> <parent pid> <signal> <module> [argument …]

The title first stands among the arguments and then replaces them in ``/proc/<pid>/cmdline``, so
``ps`` and ``pkill -f`` see it from the first moment on. (An ``argv[0]`` of one's own choice at exec
would make CPython lose its virtual environment, which it finds through ``argv[0]``; the package
``setproctitle`` would make RQ rename its workers.)
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
from select import POLLIN, poll

from unjam.pipeline.process_title import set_title

PR_SET_PDEATHSIG = 1
ORPHAN_GRACE_S = 8.0
"""An orphan that was asked to stop and still lives after this long is killed."""


def die_with_parent(parent: int, death_signal: int, grace_s: float = ORPHAN_GRACE_S) -> None:
    """Get *death_signal* when *parent* ends, and SIGKILL *grace_s* later.

    The kernel sends it when the parent's *thread* that spawned us ends: spawn from the main one.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(0)
    if death_signal != signal.SIGKILL:
        threading.Thread(
            target=_outlive, args=(parent, grace_s), name="orphan-guard", daemon=True
        ).start()


def _outlive(parent: int, grace_s: float) -> None:
    try:
        pidfd = os.pidfd_open(parent)
    except OSError:
        return
    watch = poll()
    watch.register(pidfd, POLLIN)
    watch.poll()
    threading.Event().wait(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


def main(argv: list[str]) -> None:
    title, parent, death_signal, module, *rest = argv
    die_with_parent(int(parent), int(death_signal))
    set_title(title)
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
