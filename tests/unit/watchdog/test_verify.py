"""The runbook's checklist, judged from looks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from unjam.core.breaker import Breaker
from unjam.core.document import State
from unjam.core.incident import Saying
from unjam.core.ports import Backlog, Completed, Equation, WorkerRef
from unjam.core.vitals import Vitals
from unjam.watchdog.facts import (
    ChromaFacts,
    Facts,
    HostFacts,
    LedgerFacts,
    Process,
    RedisFacts,
)
from unjam.watchdog.verify import (
    Canary,
    Check,
    exit_code,
    judge,
    judge_canary,
    judge_equation,
    verdict,
)

AT = 1_800_000_000.0


def look(
    at: float = AT,
    *,
    queued: int = 0,
    running: int = 0,
    completed: float = 0,
    started: float = 0,
    failed: float = 0,
    workers: tuple[str, ...] = ("w1", "w2"),
    free: float = 0.5,
    minutes: tuple[Completed, ...] = (),
) -> Facts:
    counters = {
        ("jobs_completed", "rag_processing"): completed,
        ("jobs_started", "rag_processing"): started,
        ("jobs_failed", "rag_processing"): failed,
    }
    breakers: dict[str, Breaker] = {}
    vitals = Vitals(
        ledger_id="x",
        now=at,
        counts={State.QUEUED: queued},
        backlog=Backlog(queued, 0, 0.0),
        oldest_since={},
        breakers=breakers,
        processes=(),
        died={},
        running=(),
        running_count=running,
        heads=(),
        deaths=(),
        dead=(),
        paid=(),
        last_event=0,
        counters=counters,
        completions=minutes,
        waiting_for={},
        missing=0,
        epoch=1,
        knobs={},
    )
    return Facts(
        at,
        0.0,
        HostFacts(0.0, memory_bytes=1000, memory_free_bytes=int(1000 * free)),
        LedgerFacts(True, vitals=vitals),
        RedisFacts(True),
        ChromaFacts(True),
        processes=tuple(
            Process(WorkerRef(w, "h", n, "0"), 1.0, True) for n, w in enumerate(workers, 1)
        ),
    )


def levels(checks: list[Check]) -> dict[str, str]:
    return {c.code: c.level for c in checks}


def test_a_quiet_house_is_well() -> None:
    looks = [look(), look(AT + 4)]
    found = [c for m in (2, 10, 30) for c in judge(m, looks)]
    assert set(levels(found).values()) == {"ok"} and exit_code(found) == 0


def test_a_house_at_work_is_well() -> None:
    minute = Completed(int(AT // 60), "rag_processing", 40, 80.0)
    looks = [
        look(queued=900, running=30, completed=100, started=130),
        look(AT + 60, queued=860, running=30, completed=140, started=170, minutes=(minute,)),
    ]
    found = [c for m in (2, 10, 30) for c in judge(m, looks)]
    assert set(levels(found).values()) == {"ok"}
    texts = {c.code: c.said for c in found}
    assert "40 became searchable" in texts["queue_shrinks"].en
    assert texts["processing_time"] == Saying("Avg: 2000ms", "평균 2000ms")


@pytest.mark.parametrize(
    ("looks", "window", "code", "level"),
    [
        ([look(), look(AT + 9, workers=())], 2, "workers", "critical"),
        ([look(queued=60), look(AT + 9, queued=60)], 2, "queue_shrinks", "critical"),
        ([look(queued=60), look(AT + 9, queued=80, completed=5)], 2, "queue_shrinks", "warning"),
        ([look(queued=60), look(AT + 9, queued=60)], 2, "work_starts", "critical"),
        ([look(), look(AT + 9, workers=("w2", "w3"))], 10, "processes_stable", "warning"),
        ([look(), look(AT + 9, workers=("w1", "w2", "w3"))], 10, "processes_stable", "ok"),
        ([look(), look(AT + 1), look(AT + 2), look(AT + 9, failed=2)], 10, "errors_end", "warning"),
        (
            [look(), look(AT + 1, failed=2), look(AT + 8, failed=2), look(AT + 9, failed=2)],
            10,
            "errors_end",
            "ok",
        ),
        ([look(), look(AT + 9, free=0.1)], 10, "memory", "warning"),
        ([look(queued=5), look(AT + 9, queued=5)], 30, "throughput", "critical"),
    ],
)
def test_what_is_wrong_is_seen(looks: list[Facts], window: int, code: str, level: str) -> None:
    assert levels(judge(window, looks))[code] == level


def test_an_unreachable_ledger_is_not_good_news() -> None:
    silent = replace(look(), ledger=LedgerFacts(False))
    assert exit_code(judge(2, [look(), silent])) == 3
    assert exit_code(judge(2, [])) == 3


def test_the_equation_and_the_canary() -> None:
    whole: dict[str, Any] = dict.fromkeys(
        ("searchable", "running", "queued", "waiting", "dead", "cancelled", "deleted"), 1
    )
    assert judge_equation(Equation(accepted=7, missing=0, **whole)).level == "ok"
    assert judge_equation(Equation(accepted=8, missing=1, **whole)).level == "warning"
    assert judge_equation(Equation(accepted=9, missing=0, **whole)).level == "critical"
    assert judge_equation(None).level == "unknown"
    assert judge_canary(Canary(True, 1.5)).level == "ok"
    assert judge_canary(Canary(False, 0, "lost")).level == "critical"
    assert judge_canary(Canary(False, 0, "no API", asked=False)).level == "unknown"


def test_critical_is_worse_than_not_knowing() -> None:
    def check(level: str) -> Check:
        return Check(2, "x", level, Saying("", ""))  # type: ignore[arg-type]

    assert verdict([check("ok"), check("warning")]) == "warning"
    assert verdict([check("unknown"), check("warning")]) == "unknown"
    assert verdict([check("unknown"), check("critical")]) == "critical"
    assert exit_code([]) == 0
