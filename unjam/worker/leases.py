"""LeaseKeeper: keeps a process's leases alive from a thread and a connection of its own.

The event loop may be busy for seconds; the leases must not notice. Life and progress are told
apart: the thread renews as long as the process lives, and reports what each attempt has reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import threading
import time
from collections.abc import Callable

from unjam.core.errors import UnjamError
from unjam.core.lease import RENEW_S
from unjam.core.ports import Ledger, WorkerRef
from unjam.pipeline.run import Attempt


class LeaseKeeper:
    """``hold`` an attempt, ``drop`` it when it is settled; *lost* is called in the loop."""

    def __init__(
        self,
        ledger: Ledger,
        me: WorkerRef,
        lost: Callable[[str], None],
        trouble: Callable[[UnjamError | None], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._me = me
        self._lost = lost
        self._trouble = trouble
        self._attempts: dict[str, Attempt] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hold(self, attempt: Attempt) -> None:
        with self._lock:
            self._attempts[attempt.claim.document_id] = attempt

    def drop(self, attempt: Attempt) -> None:
        with self._lock:
            if self._attempts.get(attempt.claim.document_id) is attempt:
                del self._attempts[attempt.claim.document_id]

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join, 5.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._renew()
                self._tell(self._trouble, None)
            except UnjamError as error:
                # The ledger is away: hold the work. Fencing decides at the end who owned it.
                self._tell(self._trouble, error)
            except Exception as error:  # whatever it is, this thread must renew again
                self._tell(self._trouble, UnjamError(f"{type(error).__name__}: {error}"))
            self._stop.wait(max(0.1, RENEW_S - (time.monotonic() - began)))

    def _renew(self) -> None:
        with self._lock:
            attempts = list(self._attempts.values())
        tokens = {a.claim.document_id: a.claim.token for a in attempts}
        progress = [a.progress() for a in attempts]
        lost = self._ledger.renew(self._me, tokens, progress, peak_rss_bytes())
        for document_id in lost:
            with self._lock:
                attempt = self._attempts.get(document_id)
            # A newer claim of the same document by ourselves is not the one that was lost.
            if attempt is not None and attempt.claim.token == tokens[document_id]:
                self.drop(attempt)
                self._tell(self._lost, document_id)

    def _tell(self, listener: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is listening
            self._loop.call_soon_threadsafe(listener, *args)


def peak_rss_bytes() -> int:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
