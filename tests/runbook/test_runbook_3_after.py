"""The runbook's scenarios, checks, schedules and reports, typed literally; and nothing is lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fixtures.promtool import PROMTOOL
from tests.runbook.house import RUNBOOK, House, block, blocks, corrected, line, until

pytestmark = [pytest.mark.thorough, pytest.mark.alone, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
FIELDS = (
    "stagnation_start_time",
    "duration_minutes",
    "max_queue_length",
    "affected_users",
    "failed_jobs",
    "root_cause",
    "solution_applied",
    "prevention_measures",
)
LANES = {"rag_processing", "rag_large_docs", "rag_high", "rag_low"}


# -- scenarios --------------------------------------------------------------------------------
def test_scenario_1_redis(house: House) -> None:
    """Its `if` asks after a pipe, which never fails: nothing is restarted, whatever is wrong."""
    text = block("시나리오 1")
    workers = house.pids("rq worker")
    said = house.sh(text)
    assert said.code == 0 and said.out.splitlines()[0] == "PONG"
    assert int(said.out.splitlines()[1]) >= 3
    away = house.sh(text.replace("redis-cli", "redis-cli -p 6390"))
    assert "Connection refused" in away.err and "issue detected" not in away.out
    assert house.pids("rq worker") == workers


def test_scenario_1_a_restarted_redis_needs_no_new_workers(house: House) -> None:
    workers = house.pids("rq worker rag_processing")
    assert house.sh("kill $(jq .pid ~/.local/share/unjam/valkey/valkey.pid)").code == 0
    ids = house.add(2)
    house.searchable(ids)
    assert house.pids("rq worker rag_processing") == workers
    words = "(ERROR: RQ worker connection lost|WARNING: Redis connection timeout in RAG worker)"
    assert house.sh(f'cat /var/log/rag-worker*.log | grep -cE "{words}"').number > 0
    assert "2 workers" in house.sh("rq info --url redis://localhost:6379/5").out


def test_scenario_3_a_restarted_chroma_needs_no_new_workers(house: House) -> None:
    workers = house.pids("rq worker rag_processing")
    assert house.sh("kill -9 $(jq .pid ~/.local/share/unjam/chroma.pid)").code == 0
    ids = house.add(2)
    house.searchable(ids)
    assert house.pids("rq worker rag_processing") == workers
    assert house.ledger()["dead"] == 0


def test_scenario_3_chroma(house: House) -> None:
    """Its `if` asks after `||`, which never fails; its `until` would never end."""
    text = block("시나리오 3")
    workers = house.pids("rq worker")
    said = house.sh(text)
    assert (said.code, said.out) == (0, "ChromaDB DOWN"), "said of a healthy server"
    assert house.pids("rq worker") == workers
    probe = line(text, "until").strip().removeprefix("until ").split(";")[0]
    assert house.sh(probe).code == 22
    right = house.sh(text.replace("/v1/", "/v2/"))
    assert "DOWN" not in right.out


def test_scenario_2_rate_limit(house: House) -> None:
    text = block("시나리오 2")
    house.fake(fault="429", retry_after_s=1)
    ids = house.add(2)
    grep = line(text, "grep")
    house_words = line(text, "grep").replace("rate.*limit", "ERROR: Embedding API rate limit")
    found = until(lambda: house.sh(house_words).out, bool, "the log says so")
    assert "Embedding API rate limit exceeded" in found
    assert house.sh(grep).out, "the printed pattern finds it too"
    house.fake(fault="")
    house.searchable(ids)
    assert house.ledger()["dead"] == 0
    for name in ("RAG_EMBEDDING_RATE_LIMIT", "RAG_EMBEDDING_DELAY_MS"):
        value = re.search(rf"export {name}=(\d+)", text)
        assert value is not None
        assert house.sh(f"unjam set {name} {value[1]}").code == 0
        assert house.sh(f"unjam set {name} default").code == 0


# -- monitoring and checks --------------------------------------------------------------------
def test_live_monitoring(house: House) -> None:
    shown = house.ground.screen(block("대시보드 지표"), "PONG")
    assert "=== RAG Queue Status ===" in shown and "Mem:" in shown
    tail, *counts = [row for row in block("로그 실시간").splitlines() if row.startswith(("t", "g"))]
    house.searchable(house.add(1))
    assert "Processing" in house.ground.screen(tail, r"Completed\.")
    succeeded = house.sh(counts[0]).out.splitlines()
    assert len(succeeded) >= 2 and sum(int(row.rpartition(":")[2]) for row in succeeded) > 0
    assert house.sh(counts[1]).out


def test_the_checklist_of_the_first_minutes(house: House) -> None:
    assert house.sh('ps aux | grep "rq worker" | wc -l').number == 3, "one of them is grep"
    assert house.sh("redis-cli -n 5 LLEN rq:queue:rag_processing").number == 0
    assert house.sh('grep -h "Processing job" /var/log/rag-worker*.log').code == 0
    said = house.sh("unjam verify --now --json", timeout_s=90)
    assert said.code in (0, 1), said
    assert "canary" in said.out


def test_performance_of_the_last_ten_minutes(house: House) -> None:
    text = block("성능 확인")
    average = house.sh(line(text, "grep")).out
    assert re.fullmatch(r"Avg: ?[\d.]+ ?ms", average), average
    completed = line(text, "redis-cli")
    assert house.sh(completed).out == "", "database 0"
    # The key holds whole minutes: what was completed in this one is in the next one's.
    house.searchable(house.add(1))
    fresh = corrected(completed).replace("10 minutes", "9 minutes")
    count = until(lambda: house.sh(fresh).out, lambda n: n.isdigit() and int(n) > 0, "counted")
    assert int(count) <= house.ledger()["accepted"] + 100
    assert house.sh(corrected(completed)).out.isdigit(), "0, not nil"
    assert house.sh("redis-cli -n 5 GET rag:stats:jobs_completed:$(date +%Y%m%d%H%M)").out.isdigit()


# -- prevention -------------------------------------------------------------------------------
def test_capacity_of_the_day(house: House) -> None:
    text = block("용량 계획")
    house.searchable(house.add(1))
    scripts = house.ground.work / "bin"
    scripts.mkdir(exist_ok=True)
    # As printed, but for its place; and the crontab is a stand-in's.
    (scripts / "crontab").write_text(f"#!/bin/sh\ncat > {scripts}/table\n")
    (scripts / "crontab").chmod(0o755)
    with_cron = f"PATH={scripts}:$PATH\n"
    first = with_cron + block("자동 복구 스크립트", 2)
    assert house.sh(first).code == 0
    assert house.sh(with_cron + text.replace("/usr/local/bin", str(scripts))).code == 0
    table = (scripts / "table").read_text()
    assert "rag-capacity-stats" in table and "queue-monitor" not in table, "the second one wins"
    today = house.sh("date +%Y%m%d").out
    daily = f"redis-cli -n 5 GET rag:stats:daily:{today}"
    jobs = until(lambda: house.sh(daily).out, lambda n: n.isdigit() and int(n) > 0, "counted")
    house.sh(f"bash {scripts}/rag-capacity-stats.sh")
    literal = house.sh("tail -1 /var/log/rag-capacity.csv").out
    assert re.fullmatch(rf"{today},,[\d.]+", literal), "database 0: the cell is blank"
    shipped = house.sh(f"{ROOT / 'deploy' / 'bin' / 'rag-capacity-stats.sh'}")
    assert shipped.code == 0
    rows = [row for row in shipped.out.splitlines() if row.startswith(today)]
    assert re.fullmatch(rf"{today},\d+,\d+(\.\d+)?", rows[-1])
    assert int(rows[-1].split(",")[1]) >= int(jobs)


def test_the_daily_line_is_written_by_itself(house: House) -> None:
    """The house lives at ten past eleven in the evening."""
    today = house.sh("date +%Y%m%d").out
    found = until(
        lambda: house.sh(f"grep ^{today}, /var/log/rag-capacity.csv").out, bool, "the day's line"
    )
    assert re.match(rf"{today},\d+,[\d.]+", found)


def test_postmortem_has_the_eight_fields(house: House) -> None:
    (printed,) = re.findall(r"### 필수 기록 항목\n(.*?)\n---", RUNBOOK, re.S)
    assert re.findall(r"\$\{(\w+)\}", printed) == [name.upper() for name in FIELDS]
    # An incident for the report: somebody pauses the queue.
    assert house.sh("unjam queue pause").code == 0
    (late,) = house.add(1)
    listed = "unjam postmortem --list --json"
    until(lambda: house.sh(listed).out, lambda s: "stopped_by_person" in s, "it is noticed", 40)
    assert house.sh("unjam queue resume").code == 0
    house.searchable([late])
    report = house.json("unjam postmortem --json")
    assert [name for name in FIELDS if name not in report] == []
    korean = house.sh("unjam --lang ko postmortem").out
    assert "정체" in korean


# -- alerts -----------------------------------------------------------------------------------
def test_the_literal_alert_expressions_have_their_series(house: House) -> None:
    text = house.sh("curl -s localhost:8002/metrics").out
    for name in (
        "rag_queue_length",
        "rag_worker_active_jobs",
        "rag_jobs_completed_total",
        "rag_jobs_started_total",
        "rag_job_duration_seconds_bucket",
    ):
        labels = re.findall(rf"^{name}\{{([^}}]*)\}}", text, re.M)
        plain = {re.sub(r',?le="[^"]*",?', "", row) for row in labels}
        assert plain == {f'queue="{lane}"' for lane in LANES}, name
    assert 'le="300"' in text


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not here: apt-get install prometheus")
def test_the_literal_alert_rules_are_accepted(house: House) -> None:
    rules = "\n".join(re.findall(r"^```yaml\n(.*?)^```", RUNBOOK, re.M | re.S))
    body = "\n".join(f"      {row}" for row in rules.splitlines() if not row.startswith("#"))
    file = house.ground.work / "rules.yml"
    file.write_text(f"groups:\n  - name: runbook\n    rules:\n{body}\n")
    said = house.sh(f"promtool check rules {file}")
    assert said.code == 0 and "4 rules found" in said.out, said


# -- all of it --------------------------------------------------------------------------------
def test_every_block_of_the_runbook_is_walked() -> None:
    here = "".join(p.read_text("utf-8") for p in Path(__file__).parent.glob("test_*.py"))
    walked = re.findall(r'\bblock\("([^"]+)"', here)
    missed = [name for name in blocks() if not any(name.startswith(start) for start in walked)]
    assert missed == []


def test_the_related_documents_exist() -> None:
    linked = re.findall(r"\]\(\.\./(docs/[^)]+)\)", RUNBOOK)
    assert len(linked) == 4
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_after_the_whole_walk_nothing_is_lost(house: House) -> None:
    for start in range(0, len(house.ids), 100):
        house.searchable(house.ids[start : start + 100])
    ledger = house.ledger()
    assert ledger["missing"] == ledger["dead"] == 0
    ends = ("searchable", "running", "queued", "waiting", "dead", "cancelled", "deleted", "missing")
    assert ledger["accepted"] == sum(ledger[name] for name in ends)
    assert ledger["accepted"] >= len(house.ids)
