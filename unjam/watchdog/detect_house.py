"""Symptoms of the house as a whole: is it running at all? Only a look from outside can tell."""

from __future__ import annotations

from collections.abc import Iterator

from unjam.core.incident import Saying
from unjam.watchdog.facts import Facts
from unjam.watchdog.symptom import Symptom


def detect_house(facts: Facts) -> Iterator[Symptom]:
    if not facts.one_off:
        return
    beating = [p for p in facts.processes if p.beats and p.ref.kind != "api"]
    if not beating and facts.api and not any(p.frozen for p in facts.processes):
        last_s = min((p.age_s for p in facts.processes), default=None)
        heard = "nobody" if last_s is None else f"nobody for {last_s:.0f} s"
        heard_ko = "없음" if last_s is None else f"{last_s:.0f}초 전"
        if facts.stock_workers == 0:
            yield Symptom(
                "not_running",
                Saying(
                    f"The API does not answer ({facts.api}); heartbeats: {heard}",
                    f"API가 응답하지 않습니다({facts.api}). 마지막 신호: {heard_ko}",
                ),
                since=facts.at,
            )
            return
    if facts.api:
        yield Symptom("api_down", Saying(facts.api, facts.api), since=facts.at)
    if facts.vitals is not None and not any(p.ref.kind == "watchdog" for p in beating):
        yield Symptom(
            "watchdog_none",
            Saying("No watchdog has a heartbeat", "살아 있는 워치독이 없습니다"),
            since=facts.at,
        )
