"""The runbook's own workers, started and ended as it says, do all the work of a house."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.runbook.house import House, block, corrected, line, until

pytestmark = [pytest.mark.thorough, pytest.mark.alone, pytest.mark.slow]
EXECUTED = "RAG queue auto-recovery executed"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def by_hand(stock: House) -> None:
    """The watchdog looks on: it would start workers before the runbook's operator does."""
    assert stock.sh("unjam recover --pause").code == 0


def sweep(house: House) -> None:
    """End all stock workers as the runbook does, and wait until they are gone."""
    house.sh('pkill -f "rq worker"')
    until(lambda: house.pids("rq worker"), lambda pids: not pids, "stock workers drain", 30)


def logged(house: House, words: str) -> int:
    """How often the stock workers' logs hold *words*."""
    return house.sh(f'cat /var/log/rag-worker*.log | grep -c "{words}"').number


def test_priority_1_two_workers_in_the_background(stock: House) -> None:
    ids = stock.add(2)
    assert stock.sh(corrected(line(block("1단계"), "redis-cli LLEN"))).number == 2
    said = stock.sh(block("우선순위 1"))
    assert said.code == 0, said
    before, _, after = said.out.partition("Updated")
    assert "0 workers" in before and "rag_processing" in before
    assert "2 workers" in after, "after five seconds both are registered"
    stock.searchable(ids)
    assert logged(stock, "Successfully processed") == 2
    assert logged(stock, "Processing job") == 2
    assert logged(stock, "ERROR") == logged(stock, "WARNING") == 0


def test_pkill_of_stock_workers_at_work_loses_nothing(stock: House) -> None:
    stock.fake(latency_ms=60_000)
    ids = stock.add(2)
    until(lambda: stock.states(ids), lambda found: "embedding" in found, "one is embedded")
    sweep(stock)
    stock.fake(latency_ms=0)
    # Their work horses were ended in the middle of a job. Four new ones, and a Redis that refuses.
    said = stock.sh(block("우선순위 3"))
    assert said.out.count("NOPERM") == 2, said
    assert stock.sh("redis-cli CONFIG GET maxmemory-policy").out.split()[1] == "noeviction"
    assert stock.sh("redis-cli CONFIG GET maxmemory").out.split()[1] == "0"
    stock.searchable(ids)
    assert "4 workers" in stock.sh("rq info --url redis://localhost:6379/5").out
    assert stock.ledger()["dead"] == 0
    assert stock.sh("redis-cli -n 5 LLEN rq:queue:rag_dlq").number == 0


def test_scenario_4_simple_workers(stock: House) -> None:
    sweep(stock)
    text = block("시나리오 4")
    kernel = line(text, "dmesg")
    assert stock.sh(kernel).code in (0, 1)  # what it holds is the machine's own
    said = stock.sh(text.replace(kernel, ""))
    assert "Mem:" in said.out and "Optimizing memory usage" in said.out
    ids = stock.add(2)
    stock.searchable(ids)
    assert "2 workers" in stock.sh("rq info --url redis://localhost:6379/5").out
    assert len(stock.pids("rq worker rag_processing.*SimpleWorker")) == 2


def test_scenario_5_a_worker_for_large_documents(stock: House) -> None:
    sweep(stock)
    (large,) = stock.add(1, padding_mb=11)
    assert stock.sh("redis-cli -n 5 LLEN rq:queue:rag_large_docs").number == 1
    assert stock.sh("redis-cli -n 5 LLEN rq:queue:rag_processing").number == 0
    assert stock.sh(line(block("시나리오 5"), "nohup")).code == 0
    stock.searchable([large])
    log = stock.sh("cat /var/log/rag-worker-large.log").out
    assert re.search(rf"Successfully processed {large}-\d+, finished\. Completed\.", log)
    sweep(stock)


def test_prevention_the_recovery_script_and_what_does_its_work(stock: House) -> None:
    """The printed script reads the wrong database, so it never acts; the watchdog does."""
    sweep(stock)
    scripts = stock.ground.work / "bin"
    scripts.mkdir(exist_ok=True)
    script = scripts / "rag-queue-monitor.sh"
    script.write_text(block("자동 복구 스크립트").partition("\n")[2])
    ids = stock.add(51)
    assert stock.sh("redis-cli -n 5 LLEN rq:queue:rag_processing").number == 51
    assert stock.sh(f"bash {script}").code == 0
    assert stock.sh("pgrep -f 'rq worker'").code == 1, "51 documents wait, and it starts nobody"
    assert stock.sh("unjam recover --resume").code == 0
    pids = until(lambda: stock.pids("rq worker rag_processing"), len, "workers are started", 30)
    assert len(pids) <= 3
    stock.searchable(ids)
    told = until(stock.told, lambda said: EXECUTED in said, "Slack hears of it", 30)
    assert "unjam postmortem" in told
    log = stock.sh("cat /var/log/rag-auto-recovery.log").out
    assert "RAG queue stagnation detected, auto-recovery starting" in log
    assert f"{EXECUTED} incident=" in log
    shipped = stock.sh(f"{ROOT / 'deploy' / 'bin' / 'rag-queue-monitor.sh'}")
    assert shipped.code in (0, 1), shipped  # 1: the incident is still watched


def test_sigterm_ends_the_house_in_order(stock: House) -> None:
    assert stock.stop() == 0
    if stock.ground.isolated:
        assert stock.sh('pgrep -af "^(unjam|chroma|valkey|rq)"').out == ""
