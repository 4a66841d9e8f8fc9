"""Every error that unjam raises on purpose.

    UnjamError                      code, detail, hint
    ├── UsageError                  the caller's mistake: bad option, unknown id, wrong body
    │   ├── NotFound
    │   ├── Conflict                the document's state does not allow it; Idempotency-Key reuse
    │   └── TooLarge
    ├── NotNow                      try again later (retry_after_s)
    │   ├── Backlogged              too much waits already
    │   └── DependencyDown          Redis, Chroma, embedding, blobs, ledger: documents wait
    ├── DocumentTrouble             this document's own: carries evidence
    │   ├── DocumentRejected        the bytes cannot become text: the document is parked
    │   └── DocumentFailed          an error that a retry may cure
    ├── LeaseLost                   this worker no longer owns the document: stop, touch nothing
    ├── SetupError                  the installation or its settings cannot work as they are
    │   └── WorkerUnfit             this process lacks memory, processes or files (retry_after_s)
    └── LedgerVersionError          the ledger is newer than this program

Each says what is wrong (*detail*) and what to do next (*hint*); *code* is stable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class UnjamError(Exception):
    """Base of all. ``str()`` of it is fit for a user."""

    code = "error"
    hint = ""

    def __init__(self, detail: str, *, code: str = "", hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        if code:
            self.code = code
        if hint:
            self.hint = hint


class UsageError(UnjamError):
    code = "bad_request"


class NotFound(UsageError):
    code = "not_found"


class Conflict(UsageError):
    code = "conflict"


class TooLarge(UsageError):
    code = "too_large"


class NotNow(UnjamError):
    """Nothing is broken for good; the same call is welcome after *retry_after_s* seconds."""

    code = "not_now"

    def __init__(
        self, detail: str, *, code: str = "", hint: str = "", retry_after_s: float = 5.0
    ) -> None:
        super().__init__(detail, code=code, hint=hint)
        self.retry_after_s = retry_after_s


class Backlogged(NotNow):
    code = "backlog_full"


class DependencyDown(NotNow):
    """A dependency is away, slow or refuses. *code* is a waiting reason of ``core.reasons``.

    *throttled* tells a refusal for load (429) from trouble. Not *shared*: only this document or
    this process meets it (it is pinned to an endpoint that nobody configured any more), so nobody
    else need wait.
    """

    code = "dependency_down"

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        hint: str = "",
        retry_after_s: float = 5.0,
        throttled: bool = False,
        shared: bool = True,
    ) -> None:
        super().__init__(detail, code=code, hint=hint, retry_after_s=retry_after_s)
        self.throttled = throttled
        self.shared = shared


class DocumentTrouble(UnjamError):
    """*evidence*: what a person needs to judge it (signal, memory, CPU time, output, limits)."""

    def __init__(
        self,
        detail: str,
        *,
        code: str = "",
        hint: str = "",
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail, code=code, hint=hint)
        self.evidence: dict[str, Any] = dict(evidence or {})


class DocumentRejected(DocumentTrouble):
    """These bytes will never become text. *code* is a dead reason of ``core.reasons``."""

    code = "unparseable"


class DocumentFailed(DocumentTrouble):
    """This document's attempt failed, and another may succeed. *code* as in ``core.reasons``."""

    code = "processing_error"


class LeaseLost(UnjamError):
    """The fencing token is no longer valid: somebody else owns the document now."""

    code = "lease_lost"


class SetupError(UnjamError):
    code = "setup"


class WorkerUnfit(SetupError):
    """This process cannot do its work now: no memory, no further processes or open files, or its
    parser does not start. Another one may; it may itself after *retry_after_s* seconds."""

    code = "worker_unfit"

    def __init__(self, detail: str, *, hint: str = "", retry_after_s: float = 5.0) -> None:
        super().__init__(detail, hint=hint)
        self.retry_after_s = retry_after_s


class LedgerVersionError(SetupError):
    code = "ledger_newer"
