"""What the end of a parsing child means for its document, and the evidence it leaves."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

from unjam.core.errors import (
    DependencyDown,
    DocumentFailed,
    DocumentRejected,
    SetupError,
    UnjamError,
)
from unjam.core.ports import ParseJob

_CRASHES = frozenset(
    {
        signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE,
        signal.SIGTRAP, signal.SIGSYS, signal.SIGXFSZ,
    }
)  # fmt: skip
_NEAR_CAP = 0.5
"""A fatal signal at this share of the memory cap is called a lack of memory."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended, as the zygote saw it; *gone* when the zygote ended itself."""

    signal: int = 0
    status: int = 0
    rss_bytes: int = 0
    cpu_s: float = 0.0
    stderr: str = ""
    gone: bool = False

    def evidence(self, job: ParseJob) -> dict[str, Any]:
        """What a dead letter keeps of the child's end, beside the limits that it had."""
        return {
            "signal": signal_name(self.signal),
            "exit_status": self.status,
            "max_rss_bytes": self.rss_bytes,
            "cpu_s": round(self.cpu_s, 3),
            "stderr": self.stderr.strip(),
            **limits(job),
        }


def signal_name(number: int) -> str:
    """``SIGSEGV``; the number where it has no name (real-time signals); "" for none."""
    if number in signal.valid_signals() and number in set(signal.Signals):
        return signal.Signals(number).name
    return str(number) if number else ""


class Interrupted(Exception):
    """The child ended through no fault of the document."""


class NoChild(Interrupted):
    """There was none: the parent could not fork."""


def verdict(ended: Exit, job: ParseJob) -> Exception:
    """Why a child ended without a result."""
    if ended.gone:
        return Interrupted("the parsing parent died")
    if ended.status == -1 and not ended.signal:
        return NoChild(f"no child could be started ({ended.stderr})")
    cap = job.memory_bytes
    evidence = ended.evidence(job)
    said = (
        f"signal {ended.signal}, exit status {ended.status}, "
        f"{ended.rss_bytes >> 20} MiB resident, cap {cap >> 20} MiB"
    )
    if ended.stderr.strip():
        said += f"; it said: {ended.stderr.strip()[-500:]}"
    if ended.signal == signal.SIGXCPU:
        return DocumentFailed(
            f"Parsing used more than {job.cpu_s:g} s of CPU time ({said}).",
            code="parser_timeout",
            evidence=evidence,
        )
    starved = ended.rss_bytes > cap * _NEAR_CAP or "memory" in ended.stderr.lower()
    if starved and (ended.signal in _CRASHES or ended.signal == signal.SIGKILL or ended.status):
        return DocumentFailed(
            f"Parsing ran out of memory ({said}).", code="parser_memory", evidence=evidence
        )
    if ended.signal and ended.signal not in _CRASHES:
        return Interrupted(f"the child got signal {ended.signal}")
    return DocumentFailed(f"The parser crashed ({said}).", code="parser_crashed", evidence=evidence)


def limits(job: ParseJob) -> dict[str, Any]:
    return {
        "memory_cap_bytes": job.memory_bytes,
        "cpu_limit_s": job.cpu_s,
        "wall_limit_s": job.wall_s,
        "output_limit_bytes": job.output_bytes,
    }


def fault_of(result: dict[str, str], job: ParseJob, evidence: dict[str, Any]) -> UnjamError:
    """What the child said of its failure, as an error."""
    kind, code, detail = result["kind"], result["code"], result["detail"]
    if kind == "rejected":
        return DocumentRejected(detail, code=code, evidence=evidence)
    if kind == "down":
        return DependencyDown(detail, code=code)
    if kind == "setup":
        return SetupError(detail)
    if code == "parser_memory":
        detail = f"Parsing needs more than {job.memory_bytes >> 20} MiB ({detail})."
    return DocumentFailed(detail, code=code, evidence=evidence)
