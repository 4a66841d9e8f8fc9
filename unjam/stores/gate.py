"""The gate: fair turns for writers of one SQLite file, across processes and threads.

SQLite's busy handler polls, so a saturated writer can starve others for seconds, longer than a
lease lasts. Two ``flock``s make a turnstile instead: whoever wants to write takes *turn*, waits
there for *door*, and lets *turn* go once inside. A writer that leaves and comes again stands
behind everybody who is already in the turnstile. The kernel drops the locks of a dead process;
those of a frozen one are the guard's business (``gate_guard``), which only waiters call.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from unjam.stores.gate_guard import Guard


class Gate:
    """One user of the turnstile. Not to be shared by threads: give each its own."""

    def __init__(self, folder: Path, name: str = "ledger", guard: Guard | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name = folder, name
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._turn = os.open(folder / f"{name}.turn", flags, 0o600)
        self._door = os.open(folder / f"{name}.door", flags, 0o600)
        self._own_guard = guard is None
        self.guard = guard or Guard()
        self.guard.add(self)
        self.waiting_since: float | None = None
        """``time.monotonic()`` while it waits: read by the guard."""
        self.waited_s = 0.0
        """How long the last turn was waited for."""

    @property
    def locks(self) -> tuple[int, int]:
        """The descriptors that are locked."""
        return self._door, self._turn

    @contextmanager
    def hold(self, patience_s: float | None = None) -> Generator[None]:
        """Blocks until it is this writer's turn; with *patience_s* no longer than that.

        Raises:
            TimeoutError: *patience_s* ran out; its text names who sits in the gate.
        """
        if patience_s is not None:
            gate = self._enter_within(patience_s)
            try:
                yield
            finally:
                gate.close()  # and with it the lock
            return
        self._enter()
        try:
            yield
        finally:
            fcntl.flock(self._door, fcntl.LOCK_UN)

    def _enter(self) -> None:
        try:
            self._take(self._turn)
            try:
                self._take(self._door)
            finally:
                fcntl.flock(self._turn, fcntl.LOCK_UN)
        finally:
            since, self.waiting_since = self.waiting_since, None
            self.waited_s = 0.0 if since is None else time.monotonic() - since

    def _take(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if self.waiting_since is None:
                self.waiting_since = time.monotonic()
                self.guard.watch()
            fcntl.flock(lock, fcntl.LOCK_EX)

    def _enter_within(self, patience_s: float) -> Gate:
        """A gate of its own that is held. ``flock`` knows no time-out, and polling would stand
        behind everybody who blocks: so a thread blocks, and lets go if nobody wants it any more."""
        gate = Gate(self._folder, self._name, self.guard)
        decided = threading.Lock()
        inside, given_up = threading.Event(), threading.Event()

        def wait() -> None:
            gate._enter()
            with decided:
                inside.set()
                if given_up.is_set():
                    gate.close()

        threading.Thread(target=wait, name="ledger-gate", daemon=True).start()
        inside.wait(patience_s)
        with decided:
            if not inside.is_set():
                given_up.set()
                raise TimeoutError(no_turn(patience_s, self.guard))
        return gate

    def close(self) -> None:
        self.guard.remove(self)
        if self._own_guard:
            self.guard.close()
        os.close(self._turn)
        os.close(self._door)


def no_turn(patience_s: float, guard: Guard | None) -> str:
    """Why somebody gave up, with the evidence that there is."""
    who = f": {guard.sees}" if guard is not None and guard.sees else ""
    return f"no turn to write within {patience_s:g} s{who}"
