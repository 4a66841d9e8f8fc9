"""Words that only the generated pages need: Korean for what the code says in English.

``scripts/docs.py`` fails on anything that lacks its Korean, and so does the test suite.
"""

from __future__ import annotations

SETTINGS_KO: dict[str, str] = {
    "RAG_EMBEDDING_BATCH_SIZE": "요청 한 번에 보내는 텍스트 수",
    "RAG_EMBEDDING_CONCURRENCY": "프로세스당 동시에 진행하는 요청 수",
    "RAG_EMBEDDING_RATE_LIMIT": "키 그룹별 분당 요청 수(모든 프로세스와 호스트 합산)",
    "RAG_EMBEDDING_TOKENS_PER_MINUTE": "키 그룹별 분당 토큰 수(합산). 0이면 제한 없음",
    "RAG_EMBEDDING_DELAY_MS": "한 프로세스의 요청 사이 최소 간격(ms)",
    "OPENAI_API_KEY": "OpenAI 호환 엔드포인트의 키",
    "OPENAI_API_KEYS": "쉼표로 구분한 여러 키. 각각 `key` 또는 `group:key` 형식이며, 그룹이 없는 "
    "키는 한도를 함께 씁니다",
    "USE_API_KEY_ROTATION": "요청을 OPENAI_API_KEYS에 나누어 보냅니다",
    "OPENAI_BASE_URL": "OpenAI 호환 엔드포인트 주소",
    "RAG_EMBEDDING_MODEL": "모델 이름. 비우면 키가 없을 때 multilingual-e5-small, 있을 때 "
    "text-embedding-3-small",
    "RAG_MAX_CHUNK_SIZE": "사용 중인 모델의 토큰 수이며 모델 한도를 넘지 않습니다. 비우면 1024, 로컬 "
    "모델은 256. 새 세대에만 적용됩니다",
    "RAG_CHUNK_OVERLAP": "토큰 수. 비우면 128, 로컬 모델은 32. 새 세대에만 적용됩니다",
    "RAG_MAX_CONCURRENT_JOBS": "시스템 전체에서 동시에 처리하는 문서 수",
    "RAG_WORKER_MEMORY_MB": "MiB. 파싱 자식 프로세스의 상한이자 메모리 압박 대응의 기준. 비우면 호스트 "
    "메모리의 4분의 1, 최대 2048",
    "RAG_LARGE_DOCUMENT_MB": "이 크기(MiB)부터 문서가 rag_large_docs로 갑니다",
    "RAG_MAX_QUEUED_DOCUMENTS": "대기 중인 문서가 이 수에 이르면 업로드에 429로 답합니다",
    "RAG_MAX_QUEUED_MB": "대기 중인 문서의 합계가 이 크기(MiB)에 이르면 업로드에 429로 답합니다",
    "RAG_MAX_QUEUE_AGE_S": "가장 오래된 문서가 이 시간(초)을 기다리면 업로드에 429로 답합니다",
    "RAG_MIN_FREE_DISK_MB": "원본 저장 디스크의 여유가 이보다 적으면(MiB) 업로드에 429로 답합니다",
    "RAG_RESERVE_MB": "SQLite 원장 옆에 확보해 두는 공간(MiB). 디스크가 가득 차면 내주어 진행 중인 "
    "작업을 기록합니다. 0: 없음",
    "RAG_MAX_UPLOAD_MB": "업로드 최대 크기(MiB). 넘으면 413",
    "RAG_TYPE_QUEUES": "파일 종류별 레인. 예: `pdf=rag_pdf,docx=rag_office`",
    "RAG_REDIS_URL": "비우면 내장 Valkey(포트 6379, db 5). `redis://`, `rediss://`, `redis+sentinel://host,host2/service/5`",
    "RAG_CHROMA_URL": "비우면 내장 Chroma 서버(포트 8000). `http(s)://host?token=…`",
    "RAG_VECTOR_STORE_URL": "Chroma가 아닌 벡터 저장소: `lancedb:///폴더`, `postgresql://…`(pgvector), "
    "`qdrant+http://…`. 비우면 RAG_CHROMA_URL의 Chroma",
    "RAG_DATABASE_URL": "원장. 비우면 데이터 폴더의 SQLite, 여러 호스트에서는 postgresql://…(서버 하나 또는 여럿: postgresql://user@db1,db2/name)",
    "RAG_STORAGE_URL": "원본 저장소. 비우면 데이터 폴더 안의 폴더. `file:///공유/폴더`, 또는 표준 `AWS_*` 변수와 함께 쓰는 `s3://bucket/prefix`",
    "RAG_STORAGE_CACHE_MB": "버킷에 있는 원본을 이 호스트에 복사해 두는 한도(MiB)",
    "RAG_DATA_DIR": "모든 데이터를 담는 폴더 하나",
    "RAG_LOG_DIR": "비우면 데이터 폴더의 `logs`",
    "RAG_EMBEDDING_CACHE_MB": "임베딩 캐시의 상한(MiB)",
    "ADMIN_TOKEN": "운영자 토큰. 비우면 `<data>/admin-token`에 생성됩니다",
    "RAG_API_TOKEN": "공개 API의 토큰. 비우면 루프백에서는 토큰 없이 열려 있습니다",
    "RAG_ALLOWED_HOSTS": "서버를 부를 수 있는 추가 호스트 이름(쉼표 구분)",
    "SLACK_WEBHOOK_URL": "장애 상태가 바뀔 때마다 메시지 한 건",
    "RAG_WEBHOOK_URL": "서명된 문서·장애 이벤트",
    "RAG_WEBHOOK_SECRET": "웹훅 서명 키. `whsec_`와 base64. 비우면 `<data>/webhook-secret`에 생성됩니다",
    "RAG_REDIS_REPAIR": "워치독이 외부 Redis를 `noeviction`으로 되돌리도록 허용합니다",
    "RAG_ALLOW_RESTART": "워치독이 재시작해도 되는 systemd 유닛과 컨테이너(`docker:이름`, 쉼표 구분). "
    "이름에 redis, valkey, chroma, postgres, qdrant 중 하나가 들어 있어야 합니다",
    "RAG_TIMEZONE": "통계에 쓰는 IANA 시간대 이름. 비우면 호스트의 시간대",
    "RAG_LANG": "`en` 또는 `ko`",
    "RAG_LOG_FORMAT": "`text` 또는 `json`",
    "RAG_SECRETS_DIR": "변수마다 파일 하나를 둔 폴더. 환경에 드러내지 않을 값에 씁니다. 변수가 설정되어 "
    "있으면 파일보다 우선합니다",
    "RAG_BEAT_FILE": "워커나 워치독이 루프가 도는 동안 5초마다 갱신하는 파일. 컨테이너의 활성 프로브가 "
    "이 파일의 시각을 봅니다",
}

UNITS_KO: dict[str, str] = {
    "texts per request": "요청당 텍스트 수",
    "requests in flight per process": "프로세스당 진행 중인 요청 수",
    "requests per minute and key group": "키 그룹별 분당 요청 수",
    "tokens per minute; 0 = none": "분당 토큰 수, 0이면 제한 없음",
    "ms between requests of a process": "한 프로세스의 요청 간격(ms)",
    "tokens; new generations only": "토큰, 새 세대에만 적용",
    "documents in flight, whole system": "시스템 전체의 처리 중 문서 수",
}

# HTTP operations by operation id.
HTTP_KO: dict[str, str] = {
    "add_documents": "문서를 하나 또는 여러 개 업로드합니다",
    "replace_document": "문서의 내용을 새 세대로 바꿉니다",
    "list_documents": "문서를 최신순으로 나열합니다",
    "show_document": "문서 한 건을 보여 줍니다",
    "document_events": "문서의 이벤트를 실시간(SSE)으로 보냅니다",
    "document_chunks": "검색에 쓰이는 청크를 나열합니다",
    "cancel_document": "문서 처리를 취소합니다",
    "retry_document": "문서를 다시 처리합니다",
    "delete_document": "문서를 삭제합니다",
    "search": "검색합니다",
    "ledger_equation": "원장 등식을 보여 줍니다",
    "queues": "레인별 대기, 담당 워커, 최장 대기 시간",
    "workers": "문서를 맡거나 감시하는 프로세스",
    "dead_letters": "데드레터(최신순)와 원인별 개수",
    "dead_letter": "데드레터 한 건과 증거",
    "retry_dead_letters": "데드레터를 한 번에 다시 처리합니다",
    "drop_dead_letters": "데드레터를 재시도 없이 한 번에 끝냅니다",
    "reorder_queue": "큐의 맨 앞으로 문서를 옮깁니다",
    "separate_large_jobs": "큰 문서를 전용 큐로 분리합니다",
    "prioritize_queue": "규칙에 따라 대기 문서를 큐로 보냅니다",
    "pause": "큐 하나 또는 전체의 처리를 멈춥니다",
    "resume": "멈춘 큐를 재개합니다",
    "requeue": "대기 중인 문서를 큐에 다시 알립니다",
    "settings": "실시간 설정과 허용 범위",
    "change_settings": "실시간 설정을 바꿉니다. 모든 워커가 다음 배치부터 따릅니다",
    "audit": "누가 무엇을 바꾸었는지(최신순)",
    "capacity_report": "유입량, 처리 능력, 병목",
    "incidents": "장애(최신순)",
    "incident": "장애 한 건과 경과",
    "incident_report": "장애의 사후 분석 보고서",
    "recover": "문제를 찾아 지금 복구하거나 계획만 봅니다",
    "pause_recovery": "자동 복구를 멈춥니다(킬 스위치)",
    "resume_recovery": "자동 복구를 다시 켭니다",
    "healthz": "프로세스가 응답하는지",
    "readyz": "문서를 받아 처리할 수 있는지",
    "metrics": "Prometheus 메트릭",
    "openapi": "OpenAPI 문서",
    "docs": "API 문서 페이지",
}
