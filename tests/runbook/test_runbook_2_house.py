"""The runbook's diagnosis and first aid, typed literally at a house with workers of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.runbook.house import House, block, corrected, line, until

pytestmark = [pytest.mark.thorough, pytest.mark.alone, pytest.mark.slow]
REFUSED = "CANNOT-BE-EMBEDDED"


@contextmanager
def paused(house: House) -> Iterator[None]:
    """Documents stay where they are, so that queues can be looked at."""
    assert house.sh("unjam queue pause").code == 0
    try:
        yield
    finally:
        assert house.sh("unjam queue resume").code == 0


def commands(text: str) -> list[str]:
    """The one-line commands of *text*."""
    return [row for row in text.splitlines() if row and not row.startswith("#")]


# -- diagnosis --------------------------------------------------------------------------------
def test_step_1_queues(house: House) -> None:
    dashboard, *redis = commands(block("1단계"))
    with paused(house):
        ids = house.add(3)
        queue = json.loads(house.sh(dashboard).out)
        assert (queue["name"], queue["count"], queue["workers"]) == ("rag_processing", 3, 2)
        assert queue["oldest_age_s"] >= 0
        assert {"started", "failed", "scheduled", "deferred"} <= set(queue)
        length, listed, dead = (house.sh(row).out for row in redis)
        assert (length, listed, dead) == ("0", "", "0"), "database 0: a false all-clear"
        length, listed, dead = (house.sh(corrected(row)).out for row in redis)
        assert (length, dead) == ("3", "0")
        assert [row.rpartition("-")[0] for row in listed.split()] == ids
    house.searchable(ids)


def test_step_2_workers(house: House) -> None:
    ps, info, tail = commands(block("2단계"))
    rows = house.sh(ps).out.splitlines()
    assert len([r for r in rows if "rq worker rag_processing (unjam worker" in r]) == 2
    assert sum("grep" in r for r in rows) == 1, "it counts itself"
    assert "2 workers" in house.sh(info).out
    house.searchable(house.add(16))  # more than one worker's fair share: the log is the first one's
    shown = house.ground.screen(tail, r"finished\. Completed\..* Processing time: \d+ms\r?\n")
    assert "INFO: RAG worker started processing job" in shown


def test_step_3_redis(house: House) -> None:
    ping, stats, memory, clients = commands(block("3단계"))
    assert house.sh(ping).out == "PONG"
    assert re.fullmatch(r"total_connections_received:\d+", house.sh(stats).out), "one of the two"
    right = house.sh('redis-cli info clients | grep "^connected_clients"').out
    assert re.fullmatch(r"connected_clients:\d+", right)
    assert re.fullmatch(r"used_memory_human:[\d.]+[KM]", house.sh(memory).out)
    assert house.sh(clients).number >= 3


def test_step_4_dependencies(house: House) -> None:
    text = block("4단계")
    heartbeat = line(text, "curl -f")
    assert house.sh(heartbeat).code == 22
    status = house.sh(f"{heartbeat.replace('curl -f', 'curl -s')} -o /dev/null -w '%{{http_code}}'")
    assert status.out == "410", "a healthy server of today"
    assert house.sh(heartbeat.replace("/v1/", "/v2/")).code == 0
    api = line(text, "curl -H")
    answer = house.json(api.replace("https://api.openai.com/v1", "$OPENAI_BASE_URL"))
    assert len(answer["data"][0]["embedding"]) == 1536
    data = f"{house.ground.home}/.local/share/unjam"
    for row in (line(text, "ls"), line(text, "df")):
        assert house.sh(row).code != 0, "an example path"
        assert house.sh(row.replace("/path/to/document/storage", data)).code == 0


def test_doctor_answers_what_these_four_steps_ask(house: House) -> None:
    said = house.sh("unjam doctor --json")
    assert said.code in (0, 1), said
    checks = {row["name"]: row["said"] for row in json.loads(said.out)["checks"]}
    asked = "queues workers redis chroma embedding storage memory kernel ledger"
    assert set(asked.split()) <= set(checks)
    assert "clients" in checks["redis"] or "connections" in checks["redis"], checks["redis"]
    assert "410" in checks["chroma"], "why the runbook's heartbeat fails"
    assert "sk-runbook" not in said.out + said.err


# -- first aid --------------------------------------------------------------------------------
def test_pkill_drains_and_the_supervisor_brings_workers_back(house: House) -> None:
    house.fake(latency_ms=3_000)
    before = house.pids("rq worker rag_processing")
    assert len(before) == 2
    ids = house.add(6)
    until(lambda: house.states(ids), lambda found: "embedding" in found, "work is under way")
    crashes = 'cat /var/log/*.log | grep -c "Worker process terminated unexpectedly"'
    seen = house.sh(crashes).number
    failed = house.json("curl -s localhost:9181/api/queues")["queues"]
    assert house.sh('pkill -f "rq worker"').code == 0
    house.fake(latency_ms=0)

    def replaced(now: list[int]) -> bool:
        return len(now) == 2 and not set(now) & set(before)

    until(lambda: house.pids("rq worker rag_processing"), replaced, "two others", 90)
    house.searchable(ids)
    after = house.json("curl -s localhost:9181/api/queues")["queues"]
    assert [q["failed"] for q in failed] == [q["failed"] for q in after]
    assert house.ledger()["dead"] == 0
    assert house.sh(crashes).number == seen


def test_rq_requeue_of_dead_letters(house: House) -> None:
    requeue = line(block("우선순위 2"), "rq requeue")
    house.fake(refuse_marker=REFUSED)
    ids = house.add(3, word=REFUSED)
    until(lambda: house.states(ids), lambda found: set(found) == {"dead"}, "three dead letters")
    length = line(block("1단계"), "redis-cli LLEN rq:queue:rag_dlq")
    until(lambda: house.sh(corrected(length)).out, lambda n: n == "3", "in the list")
    assert house.sh(length).out == "0"
    said = house.sh(requeue)
    assert (said.code, said.out) == (0, "Nothing to do")
    assert set(house.states(ids)) == {"dead"}
    house.fake(refuse_marker="")
    assert "Requeueing 3 jobs" in house.sh(f"{requeue} --all").out
    house.searchable(ids)
    until(lambda: house.sh(corrected(length)).out, lambda n: n == "0", "no dead letter is left")


def test_a_stock_worker_on_the_dead_letters_does_nothing(house: House) -> None:
    house.fake(refuse_marker=REFUSED)
    (dead,) = house.add(1, word=f"{REFUSED}-TOO")
    until(lambda: house.states([dead]), lambda found: found == ["dead"], "a dead letter")
    length = "redis-cli -n 5 LLEN rq:queue:rag_dlq"
    until(lambda: house.sh(length).out, lambda n: n == "1", "in the list")
    house.fake(refuse_marker="")
    # Not --burst: the letter is put back each time, so such a worker would never end.
    log = house.ground.work / "rag-dlq.log"
    house.ground.start("exec rq worker rag_dlq --url redis://localhost:6379/5", log)
    until(log.read_text, lambda said: "Job OK" in said or "stale" in said, "it took the job")
    assert house.sh('pkill -f "rq worker rag_dlq"').code == 0
    until(lambda: house.pids("rq worker rag_dlq"), lambda pids: not pids, "it ends", 30)
    assert house.states([dead]) == ["dead"]
    until(lambda: house.sh(length).out, lambda n: n == "1", "it is put back")
    assert "1 jobs removed" in house.sh("rq empty rag_dlq --url redis://localhost:6379/5").out
    until(lambda: house.sh(length).out, lambda n: n == "1", "it is put back")
    assert house.states([dead]) == ["dead"]
    assert house.sh("unjam dlq retry --all --yes").code == 0
    house.searchable([dead])


def test_reorder_separate_prioritize(house: House) -> None:
    first = block("우선순위 2")
    admin = "curl -X POST http://localhost:8002/api/rag/admin/"
    reorder, separate = line(first, f"{admin}reorder"), line(first, f"{admin}separate")
    prioritize = line(block("시나리오 5"), "curl")
    for printed in (separate, prioritize):  # both are printed without a token
        problem = house.json(f"{printed} -s")
        assert problem["status"] == 401
        assert "ADMIN_TOKEN" in problem["hint"] + problem["detail"]
    token = '-s -H "Authorization: Bearer ${ADMIN_TOKEN}"'
    with paused(house):
        small = house.add(4)
        (medium,) = house.add(1, padding_mb=6)
        (large,) = house.add(1, padding_mb=11)
        moved = house.json(f"{reorder} -s")
        assert (moved["moved"], moved["ids"]) == (5, [*small, medium])
        assert house.json(f"{separate} {token}") == {"moved": 0, "ids": []}, "it has its own lane"
        five = separate.replace('"size_threshold_mb": 10', '"size_threshold_mb": 5')
        assert house.json(f"{five} {token}") == {"moved": 1, "ids": [medium]}
        sizes = house.sh(corrected(line(block("시나리오 5"), "redis-cli"))).out.split()
        assert len(sizes) == 4 and all(re.fullmatch(r'"file_size":\d+', row) for row in sizes)
        assert house.sh(line(block("시나리오 5"), "redis-cli")).out == ""
        counts = house.json(f"{prioritize} {token}")
        assert counts == {"high": 4, "normal": 2, "low": 0, "unmatched": 0}
        assert house.sh("redis-cli -n 5 LLEN rq:queue:rag_high").number == 4
        wrong = prioritize.replace("$gte", "$about")
        problem = house.json(f"{wrong} {token}")
        assert problem["status"] == 422 and "$about" in json.dumps(problem)
    house.searchable([*small, medium, large])


def test_priority_3_knobs_change_live(house: House) -> None:
    text = block("우선순위 3")
    exports = [row.split("#")[0] for row in text.splitlines() if row.startswith("export")]
    assert len(exports) == 2
    for export in exports:  # a shell's export reaches no running worker; this does
        name, value = export.removeprefix("export ").strip().split("=")
        assert house.sh(f"unjam set {name} {value}").code == 0
        assert house.sh("unjam set --json").out.count(name) == 1
    house.searchable(house.add(2))
    assert house.sh("unjam set RAG_EMBEDDING_BATCH_SIZE 999999").code != 0
    for name in ("RAG_EMBEDDING_BATCH_SIZE", "RAG_EMBEDDING_CONCURRENCY"):
        assert house.sh(f"unjam set {name} default").code == 0
    for row in [row for row in text.splitlines() if "CONFIG SET" in row]:
        assert "NOPERM" in house.sh(row).out
    assert house.sh("redis-cli CONFIG GET maxmemory-policy").out.split()[1] == "noeviction"
