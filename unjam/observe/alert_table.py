"""The alerts. The first four bear the names, severities and times of the runbook."""

from __future__ import annotations

from collections.abc import Sequence

from unjam.observe.alerts import Alert, Now, Scrape, above, by_label, idle, none_of, unserved

_PAUSED = "unless on (queue) max by (queue) (rag_queue_paused) > 0"
_FAILED = "sum(max by (queue) (increase(rag_jobs_failed_total[30m])))"
_ENDED_WELL = "(sum(max by (queue) (increase(rag_jobs_completed_total[30m]))) or vector(0))"
LATE_SHARE = 0.01
"""The promise: 99 of 100 documents are searchable within five minutes of being accepted."""


def _oldest(scrape: Scrape) -> list[str]:
    ages, paused = (
        by_label(scrape, f"rag_queue_{m}") for m in ("oldest_job_age_seconds", "paused")
    )
    slow = ("rag_low", "rag_large_docs")
    return [q for q, s in ages.items() if s > (3600 if q in slow else 900) and not paused.get(q)]


def _no_key(scrape: Scrape) -> list[str]:
    ready, all_ = (by_label(scrape, f"rag_embedding_keys{m}").get("", 0) for m in ("_ready", ""))
    return [""] if all_ and not ready else []


def _handed_over(scrape: Scrape) -> list[str]:
    return [""] if by_label(scrape, "rag_incidents").get("handed_over") else []


def _unsafe(reason: str) -> Now:
    return lambda scrape: [reason] if by_label(scrape, "rag_redis_unsafe").get(reason) else []


def _burn(factor: float, long: str, short: str) -> str:
    """Multi-window burn rate (Google, The Site Reliability Workbook, chapter 5); a handful of late
    documents at night is not enough."""
    parts = [
        f"max(increase(rag_ingest_slo_late_total[{window}])) / "
        f"max(increase(rag_ingest_slo_total[{window}])) > {factor} * {LATE_SHARE}"
        for window in (long, short)
    ]
    return "\nand on () ".join([*parts, f"max(increase(rag_ingest_slo_late_total[{long}])) >= 5"])


def _share(outcome: str, bound: float) -> str:
    counter, window = "rag_embedding_requests_total", "[5m]"
    chosen = f'{counter}{{outcome="{outcome}"}}{window}'
    return (
        f"max(rate({chosen})) / sum(max by (outcome) (rate({counter}{window}))) > {bound}\n"
        f"and on () max(increase({chosen})) >= 5"
    )


ALERTS: Sequence[Alert] = (
    Alert(
        "RAGQueueStagnation",
        "critical",
        "5m",
        f"""
max by (queue) (rag_queue_length) > 50
unless on (queue) max by (queue) (increase(rag_jobs_completed_total{{queue!="rag_large_docs"}}[10m])) > 0
unless on (queue) max by (queue) (increase(rag_jobs_completed_total{{queue="rag_large_docs"}}[1h])) > 0
{_PAUSED}
""",
        "{{ $value }} documents wait in {{ $labels.queue }} and none is finished",
        "{{ $labels.queue }}에서 문서 {{ $value }}건이 대기 중이며 완료되는 문서가 없습니다",
        "More than 50 wait, nobody paused the lane, and nothing became searchable for ten minutes "
        "(an hour in rag_large_docs).",
        "50건 넘게 대기 중이고 레인을 멈춘 사람도 없는데 10분(rag_large_docs는 1시간) 동안 검색 가능해진 "
        "문서가 없습니다.",
        "unjam recover --plan",
    ),
    Alert(
        "NoActiveRAGWorkers",
        "warning",
        "2m",
        f"""
max by (queue) (rag_queue_length) > 0
unless on (queue) max by (queue) (rag_worker_active_jobs) > 0
unless on (queue) (max by (queue) (rag_workers_live) > 0
  and on () sum(max by (queue) (rag_worker_active_jobs)) > 0)
{_PAUSED}
""",
        "Documents wait in {{ $labels.queue }} and nobody works on them",
        "{{ $labels.queue }}에 문서가 대기 중이지만 처리하는 워커가 없습니다",
        "A lane is not empty, and either no live worker serves it or no worker holds anything.",
        "비어 있지 않은 레인을 담당하는 워커가 없거나, 어떤 워커도 문서를 맡고 있지 않습니다.",
        "unjam watch",
        unserved,
    ),
    Alert(
        "RAGProcessingTimeHigh",
        "warning",
        "10m",
        """
histogram_quantile(0.95, max by (queue, le) (rate(rag_job_duration_seconds_bucket{queue!="rag_large_docs"}[30m]))) > 300
or
histogram_quantile(0.95, max by (queue, le) (rate(rag_job_duration_seconds_bucket{queue="rag_large_docs"}[30m]))) > 1800
""",
        "One document in twenty of {{ $labels.queue }} takes longer than {{ $value | humanizeDuration }}",
        "{{ $labels.queue }} 문서 20건 중 1건은 {{ $value | humanizeDuration }}보다 오래 걸립니다",
        "The 95th percentile of working time over the last half hour is above 300 s (1,800 s in "
        "rag_large_docs); waiting is not counted.",
        "최근 30분 처리 시간의 95 백분위수가 300초(rag_large_docs는 1,800초)를 넘습니다. 대기 시간은 "
        "제외합니다.",
        "unjam capacity",
    ),
    Alert(
        "RAGSuccessRateLow",
        "warning",
        "15m",
        f"""
{_FAILED}
/ ({_FAILED} + {_ENDED_WELL}) > 0.1
and on () {_FAILED} > 2.5
""",
        "More than one document in ten is parked",
        "문서 10건 중 1건 넘게 데드레터로 보관되고 있습니다",
        "Of the documents that ended in the last half hour more than 10 % (at least three) became "
        "dead letters. Documents that are being worked on or wait count for neither side.",
        "최근 30분 동안 끝난 문서 가운데 10%(최소 3건)를 넘게 데드레터가 되었습니다. 처리 중이거나 대기 "
        "중인 문서는 어느 쪽에도 세지 않습니다.",
        "unjam dlq list",
    ),
    Alert(
        "RAGNoLiveWorkers",
        "critical",
        "1m",
        "max(rag_workers_live) == 0",
        "No worker lives",
        "살아 있는 워커가 없습니다",
        "No process reports that it serves any lane. Uploads are still taken and kept.",
        "어떤 레인도 담당하는 프로세스가 없습니다. 업로드는 계속 받아 보존합니다.",
        "unjam watch --once",
        none_of("rag_workers_live"),
    ),
    Alert(
        "RAGIdleWorkersWithBacklog",
        "warning",
        "2m",
        f"""
max by (queue) (rag_queue_length) > 0
and on (queue) max by (queue) (rag_workers_live) > 0
and on () sum(max by (queue) (rag_worker_active_jobs)) == 0
{_PAUSED}
""",
        "Workers live, documents wait in {{ $labels.queue }}, nobody takes them",
        "{{ $labels.queue }}에 문서가 대기 중이고 워커도 살아 있지만 아무도 맡지 않습니다",
        "Claims stop while a dependency is down; otherwise the workers hang.",
        "의존 서비스가 중단되면 문서를 맡지 않습니다. 그렇지 않다면 워커가 멈춘 것입니다.",
        "unjam watch",
        idle,
    ),
    Alert(
        "RAGOldestDocumentWaits",
        "warning",
        "5m",
        f"""
(max by (queue) (rag_queue_oldest_job_age_seconds{{queue!~"rag_low|rag_large_docs"}}) > 900
or max by (queue) (rag_queue_oldest_job_age_seconds) > 3600)
{_PAUSED}
""",
        "A document has waited {{ $value | humanizeDuration }} in {{ $labels.queue }}",
        "{{ $labels.queue }}에서 {{ $value | humanizeDuration }} 동안 대기한 문서가 있습니다",
        "Longer than 15 minutes in line (an hour in rag_low and rag_large_docs): too much work, or "
        "something holds it.",
        "15분(rag_low와 rag_large_docs는 1시간) 넘게 대기 중입니다. 작업이 너무 많거나 무언가 막고 있습니다.",
        "unjam capacity",
        _oldest,
    ),
    Alert(
        "RAGIngestSLOBurnFast",
        "critical",
        "2m",
        _burn(14.4, "1h", "5m"),
        "Documents become searchable too late, fast",
        "제때 검색 가능해지지 못하는 문서가 빠르게 늘고 있습니다",
        "More than 14.4 % missed their five minutes over the last hour and over the last five "
        "minutes: two days of the month's allowance in an hour.",
        "최근 1시간과 최근 5분 모두 14.4% 넘는 문서가 5분 기한을 넘겼습니다. 한 시간에 한 달 허용량의 "
        "이틀치를 쓰는 속도입니다.",
        "unjam watch",
    ),
    Alert(
        "RAGIngestSLOBurnSlow",
        "warning",
        "15m",
        _burn(6, "6h", "30m"),
        "Documents become searchable too late",
        "제때 검색 가능해지지 못하는 문서가 있습니다",
        "More than 6 % missed their five minutes over the last six hours and the last half hour.",
        "최근 6시간과 최근 30분 모두 6% 넘는 문서가 5분 기한을 넘겼습니다.",
        "unjam capacity",
    ),
    Alert(
        "RAGDeadLettersGrow",
        "warning",
        "0m",
        "sum(max by (queue) (increase(rag_jobs_failed_total[15m]))) >= 5",
        "{{ $value | humanize }} documents were parked within 15 minutes",
        "15분 동안 문서 {{ $value | humanize }}건이 데드레터로 보관되었습니다",
        "Each has a reason and evidence; retry exactly those of one reason once it is mended.",
        "각 문서에 사유와 증거가 있습니다. 원인을 고친 뒤 같은 사유의 문서만 다시 처리하세요.",
        "unjam dlq list",
    ),
    Alert(
        "RAGDocumentsMissing",
        "critical",
        "5m",
        "max(rag_documents_missing) > 0",
        "{{ $value }} accepted documents are missing or lack chunks",
        "접수된 문서 {{ $value }}건이 없거나 청크가 빠져 있습니다",
        "The ledger equation does not hold. Chunks that the vector store lost are restored from "
        "the cache; this alert means that it does not get done.",
        "원장 등식이 성립하지 않습니다. 벡터 저장소가 잃은 청크는 캐시에서 복구되지만, 이 알림은 복구가 "
        "끝나지 않고 있다는 뜻입니다.",
        "unjam status",
        above("rag_documents_missing"),
    ),
    Alert(
        "RAGEmbeddingThrottled",
        "warning",
        "10m",
        _share("throttled", 0.2),
        "The embedding endpoint refuses {{ $value | humanizePercentage }} of the requests (429)",
        "임베딩 엔드포인트가 요청의 {{ $value | humanizePercentage }}를 거부합니다(429)",
        "Documents wait and no attempt is spent. Lower the rate, or add keys of another project.",
        "문서는 대기하며 시도 횟수는 줄지 않습니다. 요청 속도를 낮추거나 다른 프로젝트의 키를 추가하세요.",
        "unjam capacity",
    ),
    Alert(
        "RAGEmbeddingFailing",
        "critical",
        "5m",
        _share("failed", 0.5),
        "The embedding endpoint fails {{ $value | humanizePercentage }} of the requests",
        "임베딩 요청의 {{ $value | humanizePercentage }}가 실패합니다",
        "Documents wait until it answers again.",
        "다시 응답할 때까지 문서가 대기합니다.",
        "unjam logs --grep embedding",
    ),
    Alert(
        "RAGEmbeddingKeysExhausted",
        "critical",
        "2m",
        "max(rag_embedding_keys_ready) == 0 and on () max(rag_embedding_keys) > 0",
        "No embedding key may be used",
        "사용할 수 있는 임베딩 키가 없습니다",
        "Every configured key was refused, or its account is empty. Silent with the local model.",
        "설정된 모든 키가 거부되었거나 계정 한도가 소진되었습니다. 로컬 모델에서는 울리지 않습니다.",
        "unjam logs --grep key",
        _no_key,
    ),
    Alert(
        "RAGRedisUnsafe",
        "critical",
        "0m",
        'max by (reason) (rag_redis_unsafe{reason="eviction_policy"}) > 0',
        "Redis may delete waiting jobs ({{ $labels.reason }})",
        "Redis가 대기 중인 작업을 지울 수 있습니다({{ $labels.reason }})",
        "maxmemory-policy is not noeviction. Lost jobs are queued again from the ledger, but set it "
        "back.",
        "maxmemory-policy가 noeviction이 아닙니다. 사라진 작업은 원장에서 다시 큐에 넣지만 설정을 되돌리세요.",
        "redis-cli CONFIG SET maxmemory-policy noeviction",
        _unsafe("eviction_policy"),
    ),
    Alert(
        "RAGRedisNotDurable",
        "warning",
        "30m",
        'max by (reason) (rag_redis_unsafe{reason="appendonly_off"}) > 0',
        "Redis forgets its queue when it restarts",
        "Redis를 다시 시작하면 큐 데이터가 사라집니다",
        "The append-only file is off. Documents are safe; after a restart all of them are queued "
        "again.",
        "AOF가 꺼져 있습니다. 문서는 안전하지만 다시 시작하면 전부 다시 큐에 넣어야 합니다.",
        "redis-cli CONFIG SET appendonly yes",
        _unsafe("appendonly_off"),
    ),
    Alert(
        "RAGVectorStoreErrors",
        "warning",
        "2m",
        "max(increase(rag_vector_store_errors_total[5m])) > 3",
        "The vector store fails ({{ $value | humanize }} documents in five minutes)",
        "벡터 저장소 호출이 실패합니다(5분 동안 문서 {{ $value | humanize }}건)",
        "Documents wait and go on by themselves; do not restart workers.",
        "문서는 대기하다가 자동으로 재개됩니다. 워커를 다시 시작하지 마세요.",
        "curl -f http://127.0.0.1:8000/api/v2/heartbeat",
    ),
    Alert(
        "RAGWorkerChurn",
        "warning",
        "5m",
        'max(changes(rag_workers_live{queue="rag_processing"}[15m])) > 8',
        "Workers come and go",
        "워커가 계속 종료되고 다시 시작됩니다",
        "The number of live workers changed more than eight times within 15 minutes.",
        "살아 있는 워커 수가 15분 동안 여덟 번 넘게 바뀌었습니다.",
        "unjam logs worker --grep 'terminated|signal'",
    ),
    Alert(
        "RAGRecoveryLoop",
        "warning",
        "0m",
        'sum by (action) (max by (action, outcome) (increase(rag_recovery_actions_total{outcome!="asked"}[1h]))) > 2.5',
        "The same remedy ({{ $labels.action }}) is tried again and again",
        "같은 복구 조치({{ $labels.action }})가 반복되고 있습니다",
        "Three times within an hour: it does not help for long.",
        "한 시간 안에 세 번 실행되었습니다. 효과가 오래가지 않습니다.",
        "unjam recover --plan",
    ),
    Alert(
        "RAGIncidentNeedsPerson",
        "critical",
        "0m",
        'max(rag_incidents{state="handed_over"}) > 0',
        "The watchdog handed an incident over to a person",
        "워치독이 장애를 사람에게 넘겼습니다",
        "Its remedies did not help, or there is none for this cause. Documents wait and are safe.",
        "복구 조치가 듣지 않았거나 이 원인에 대한 조치가 없습니다. 문서는 안전하게 대기합니다.",
        "unjam recover --plan",
        _handed_over,
    ),
    Alert(
        "RAGWatchdogAbsent",
        "critical",
        "1m",
        "max(rag_watchdogs_live) == 0",
        "No watchdog lives",
        "살아 있는 워치독이 없습니다",
        "Nobody takes over what dead workers held, and nothing is repaired.",
        "죽은 워커가 맡던 문서를 이어받거나 복구할 주체가 없습니다.",
        "unjam watchdog",
        none_of("rag_watchdogs_live"),
    ),
    Alert(
        "RAGMetricsAbsent",
        "critical",
        "2m",
        "absent(rag_queue_length)",
        "There are no figures",
        "메트릭이 없습니다",
        "No API answers /metrics, or the ledger cannot be read: all other alerts are blind.",
        "/metrics에 응답하는 API가 없거나 원장을 읽을 수 없습니다. 다른 모든 알림이 동작하지 않습니다.",
        "curl -s http://127.0.0.1:8002/readyz",
        lambda scrape: [] if scrape.get("rag_queue_length") else [""],
    ),
    Alert(
        "RAGLanePaused",
        "info",
        "1h",
        "max by (queue) (rag_queue_paused) > 0",
        "{{ $labels.queue }} has been paused for an hour",
        "{{ $labels.queue }}이(가) 한 시간째 멈춰 있습니다",
        "Somebody paused it and may have forgotten.",
        "누군가 멈춘 뒤 잊었을 수 있습니다.",
        "unjam watch --once",
        above("rag_queue_paused"),
    ),
)
