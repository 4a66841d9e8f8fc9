"""``unjam capacity``: how much comes, how much is possible, what limits it, what would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from unjam.cli.common import CRITICAL, OK, WARNING, Json, Url, admin_client_for
from unjam.cli.lang import t

FULL, TIGHT = 0.0, 0.2
"""Headroom from which on it is too little, and worth a look."""


def register(app: typer.Typer) -> None:
    app.command(
        "capacity",
        help=t(
            "How much comes, how much is possible, what limits it.",
            "유입량, 처리 능력, 병목을 봅니다.",
        ),
    )(capacity)


def capacity(
    workers: Annotated[
        int, typer.Option("--workers", min=0, help=t("What if: workers.", "가정: 워커 수."))
    ] = 0,
    keys: Annotated[
        int, typer.Option("--keys", min=0, help=t("What if: key groups.", "가정: 키 그룹 수."))
    ] = 0,
    days: Annotated[
        int, typer.Option("--days", min=0, max=60, help=t("Days to look back.", "돌아볼 일수."))
    ] = 28,
    csv: Annotated[
        bool,
        typer.Option(
            "--csv",
            help=t(
                "Print the days as in rag-capacity.csv: DATE,JOBS,AVG (ms).",
                "rag-capacity.csv와 같은 형식(DATE,JOBS,AVG ms)으로 날짜별로 출력합니다.",
            ),
        ),
    ] = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Exit 0 when there is room, 1 when less than a fifth is left under load, 2 when more comes
    than can be done, or nothing of a backlog gets done."""
    from unjam.cli import render

    asked = {"days": str(days)}
    if workers:
        asked["workers"] = str(workers)
    if keys:
        asked["keys"] = str(keys)
    with admin_client_for(url) as client:
        found = client.call("GET", "/api/rag/admin/capacity", params=asked)
    if as_json:
        render.out_json(found)
    elif csv:
        for day in [*found["days"], *filter(None, [found.get("today")])]:
            render.out(f"{day['date']},{day['jobs']},{day['average_ms']}")
    else:
        _print(found)
    raise typer.Exit(verdict(found["headroom"], found["capability_per_s"], found["basis"]))


def verdict(headroom: float | None, capability_per_s: float | None, basis: str) -> int:
    """The exit code. A capability that was only seen without load is a lower bound: no alarm
    comes of it. A backlog of which nothing is done is one."""
    if basis != "measured":
        return OK
    if capability_per_s == 0:
        return CRITICAL
    if headroom is None or headroom >= TIGHT:
        return OK
    return CRITICAL if headroom < FULL else WARNING


def _print(found: Mapping[str, Any]) -> None:
    from unjam.cli import render

    house = found["house"]
    keys = ""
    if house["key_groups"]:
        keys = t(
            f"{house['key_groups']} key groups, {house['keys_ready']} keys ready",
            f"키 그룹 {house['key_groups']}개, 사용 가능한 키 {house['keys_ready']}개",
        )
    render.facts(
        [
            (t("arrivals", "유입"), _rates(found["arrivals_per_s"])),
            (t("completed", "완료"), _rates(found["completions_per_s"])),
            (t("capability", "처리 능력"), _capability(found)),
            (t("headroom", "여유"), _headroom(found)),
            (t("waiting", "대기"), _waiting(found)),
            (t("bottleneck", "병목"), _bottleneck(found)),
            (
                t("workers", "워커"),
                t(
                    f"{house['workers']} on {house['cores']} cores",
                    f"{house['workers']}개, 코어 {house['cores']}개",
                ),
            ),
            (t("endpoint", "엔드포인트"), keys),
            (t("would do", "필요 워커"), _enough(found)),
            (t("trend", "추세"), _trend(found["trend"])),
        ]
    )
    if found["what_if"]:
        render.remark(t("What if (bounds, not promises):", "가정별 상한(약속이 아닙니다):"))
        head = t("workers keys documents/s limit", "워커 키 문서/초 한계").split()
        rows: list[list[str]] = [
            [str(w["workers"]), str(w["key_groups"]), f"{w['per_s']:.2f}", stage_name(w["limit"])]
            for w in found["what_if"]
        ]
        render.table(head, rows, numbers=(0, 1, 2))


def stage_name(stage: str) -> str:
    """A stage as people call it."""
    names = {
        "parse": t("parsing", "파싱"),
        "embed": t("embedding", "임베딩"),
        "store": t("vector store", "벡터 저장소"),
        "endpoint_limit": t("endpoint's rate limit", "엔드포인트 속도 제한"),
    }
    return names.get(stage, stage)


def _rate(per_s: float) -> str:
    """Documents a second, a minute or an hour: whichever reads best."""
    if per_s == 0:
        return "0"
    for factor, en, ko in ((1, "s", "초"), (60, "min", "분"), (3600, "h", "시간")):
        if per_s * factor >= 1 or factor == 3600:
            return t(f"{per_s * factor:.1f}/{en}", f"{ko}당 {per_s * factor:.1f}건")
    return ""


def _rates(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{_rate(rate)} ({window})" for window, rate in rates.items())


def _capability(found: Mapping[str, Any]) -> str:
    if found["capability_per_s"] is None:
        return t("unknown: nothing was completed lately", "알 수 없음: 최근 완료된 문서가 없습니다")
    basis = {
        "measured": t("measured under load", "부하 상태에서 측정"),
        "best_seen": t("at least: the best of the last day", "최소치: 최근 하루의 최고값"),
    }
    return f"{_rate(found['capability_per_s'])} ({basis.get(found['basis'], '')})"


def _headroom(found: Mapping[str, Any]) -> str:
    if found["headroom"] is None:
        return ""
    if found["basis"] == "best_seen":
        least = max(0.0, found["headroom"])
        return t(f"at least {least:.0%}: no load yet", f"최소 {least:.0%}: 아직 부하가 없었음")
    return f"{found['headroom']:.0%}"


def _waiting(found: Mapping[str, Any]) -> str:
    from unjam.cli import render

    text = str(found["waiting"])
    if found["drain_s"] and found["waiting"]:
        span = render.span(found["drain_s"])
        return text + t(f", gone in about {span}", f", 약 {span} 뒤 소진")
    if found["waiting"] and (found["headroom"] or 0) < 0:
        return text + t(
            ", growing: more comes than can be done", ", 증가 중: 능력보다 많이 들어옵니다"
        )
    return text


def _bottleneck(found: Mapping[str, Any]) -> str:
    if not found["bottleneck"]:
        return ""
    shares: Sequence[str] = [f"{stage_name(s)} {p:.0%}" for s, p in found["shares"].items()]
    return f"{stage_name(found['bottleneck'])} ({', '.join(shares)})"


def _enough(found: Mapping[str, Any]) -> str:
    if found["enough_workers"] is not None:
        return str(found["enough_workers"])
    if found["capability_per_s"] is None:
        return ""
    return t(
        f"more workers do not help: {stage_name(found['bottleneck'] or '')} is the limit",
        f"워커를 늘려도 소용없습니다: {stage_name(found['bottleneck'] or '')}이(가) 한계입니다",
    )


def _trend(trend: Mapping[str, Any] | None) -> str:
    if trend is None:
        return t("unknown: needs three whole days", "알 수 없음: 온전한 사흘의 기록이 필요합니다")
    growth, later = trend["growth_per_day"], trend["in_30_days"]
    text = t(
        f"{trend['jobs_per_day']:.0f} a day, {growth:+.1f} each day, {later:.0f} in 30 days",
        f"하루 {trend['jobs_per_day']:.0f}건, 매일 {growth:+.1f}건, 30일 뒤 {later:.0f}건",
    )
    if trend["full_in_days"] is not None:
        text += t(
            f"; full in {trend['full_in_days']} days", f"; {trend['full_in_days']}일 뒤 한계 도달"
        )
    return text
