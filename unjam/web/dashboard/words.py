"""What the pages call things, and how they write numbers, sizes and times, in both languages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo

from unjam.core.document import State

Pair = tuple[str, str]
"""English, Korean."""

STATES: Mapping[str, Pair] = {
    State.RECEIVED: ("received", "접수됨"),
    State.QUEUED: ("in line", "대기열"),
    State.PARSING: ("parsing", "파싱"),
    State.CHUNKING: ("chunking", "청크 분할"),
    State.EMBEDDING: ("embedding", "임베딩"),
    State.STORING: ("storing", "저장"),
    State.SEARCHABLE: ("searchable", "검색 가능"),
    State.WAITING: ("waiting", "보류"),
    State.DEAD: ("dead letter", "데드레터"),
    State.CANCELLED: ("cancelled", "취소됨"),
    State.DELETED: ("deleted", "삭제됨"),
}

TONES: Mapping[str, str] = {
    State.SEARCHABLE: "ok",
    State.WAITING: "warning",
    State.DEAD: "critical",
    State.CANCELLED: "quiet",
    State.DELETED: "quiet",
    State.RECEIVED: "quiet",
    State.QUEUED: "quiet",
}
"""State → tone of its badge; those that are being worked on are "busy"."""

LANES: Mapping[str, Pair] = {
    "rag_high": ("high priority", "우선 처리"),
    "rag_processing": ("normal", "일반"),
    "rag_low": ("low priority", "낮은 우선순위"),
    "rag_large_docs": ("large documents and suspects", "대형·의심 문서"),
    "rag_bulk": ("back-fill (unjam bulk)", "일괄 처리(unjam bulk)"),
    "rag_dlq": ("dead letters", "데드레터"),
}

DEPENDENCIES: Mapping[str, Pair] = {
    "ledger": ("Ledger", "원장"),
    "redis": ("Redis", "Redis"),
    "blobs": ("Original files", "원본 저장소"),
    "embedding": ("Embedding", "임베딩"),
    "chroma": ("Vector store", "벡터 저장소"),
}

BREAKER_STATES: Mapping[str, Pair] = {
    "closed": ("answers", "정상"),
    "open": ("away, waiting", "응답 없음, 대기 중"),
    "half_open": ("away, trying again", "응답 없음, 재확인 중"),
}

KINDS: Mapping[str, Pair] = {
    "worker": ("worker", "워커"),
    "stock": ("stock RQ worker", "기본 RQ 워커"),
    "watchdog": ("watchdog", "워치독"),
    "api": ("API", "API"),
}

EVENTS: Mapping[str, Pair] = {
    "accepted": ("Accepted and safe on disk", "접수되어 디스크에 안전하게 저장됨"),
    "duplicate": ("The same bytes arrived again", "같은 내용이 다시 업로드됨"),
    "updated": ("A new version was uploaded", "새 버전이 업로드됨"),
    "queued": ("Stands in a lane", "대기열에 들어감"),
    "claimed": ("A worker took it", "워커가 처리 시작"),
    "stage": ("Next stage", "다음 단계"),
    "searchable": ("Searchable", "검색 가능"),
    "waiting": ("Waits", "보류"),
    "requeued": ("Back to work", "다시 대기열로"),
    "worker_died": ("Its worker died", "처리하던 워커가 종료됨"),
    "dead": ("Parked as a dead letter", "데드레터로 격리됨"),
    "retried": ("Put back to work by a person", "사람이 재시도함"),
    "cancelled": ("Cancelled", "취소됨"),
    "deleted": ("Deleted", "삭제됨"),
    "index_suspect": ("Index check was not conclusive", "인덱스 확인이 불확실함"),
}

ACTIONS: Mapping[str, Pair] = {
    "planned": ("planned", "예정"),
    "asked": ("asked for", "요청함"),
    "done": ("done", "완료"),
    "failed": ("failed", "실패"),
    "refused": ("refused", "거부됨"),
}

INCIDENT_STATES: Mapping[str, Pair] = {
    "open": ("open", "진행 중"),
    "handed_over": ("needs a person", "사람의 조치 필요"),
    "closed": ("closed", "종료"),
}

SEVERITIES: Mapping[str, Pair] = {
    "info": ("info", "정보"),
    "warning": ("warning", "경고"),
    "critical": ("critical", "심각"),
}

KNOBS: Mapping[str, Pair] = {
    "RAG_EMBEDDING_BATCH_SIZE": ("Texts per embedding request", "임베딩 요청당 텍스트 수"),
    "RAG_EMBEDDING_CONCURRENCY": (
        "Embedding requests in flight, per process",
        "프로세스당 동시 임베딩 요청",
    ),
    "RAG_EMBEDDING_RATE_LIMIT": (
        "Embedding requests a minute, per key group",
        "키 그룹별 분당 임베딩 요청",
    ),
    "RAG_EMBEDDING_TOKENS_PER_MINUTE": (
        "Embedding tokens a minute (0 = no limit)",
        "분당 임베딩 토큰(0 = 제한 없음)",
    ),
    "RAG_EMBEDDING_DELAY_MS": ("Pause between requests, ms", "요청 사이 간격(ms)"),
    "RAG_MAX_CHUNK_SIZE": ("Chunk size, tokens (new documents)", "청크 크기, 토큰(새 문서부터)"),
    "RAG_CHUNK_OVERLAP": ("Chunk overlap, tokens (new documents)", "청크 겹침, 토큰(새 문서부터)"),
    "RAG_MAX_CONCURRENT_JOBS": ("Documents in flight, whole system", "전체 동시 처리 문서"),
}


STRATEGIES: Mapping[str, Pair] = {
    "oldest_first": ("oldest first", "오래된 순"),
    "newest_first": ("newest first", "최신순"),
    "smallest_first": ("smallest first", "작은 순"),
    "largest_first": ("largest first", "큰 순"),
    "fair": ("users in turn", "사용자 번갈아"),
}

STAGES: Mapping[str, Pair] = {
    "parse": ("parsing", "파싱"),
    "chunk": ("chunking", "청크 분할"),
    "embed": ("embedding", "임베딩"),
    "store": ("storing", "저장"),
    "endpoint_limit": ("limit of the embedding API", "임베딩 API 한도"),
}

EVIDENCE: Mapping[str, Pair] = {
    "worker": ("worker", "워커"),
    "step": ("step", "단계"),
    "done": ("chunks stored", "저장된 청크"),
    "total": ("chunks in all", "전체 청크"),
    "held_s": ("held for, s", "처리 시간(초)"),
    "errors": ("errors of its own", "문서 오류"),
    "deaths": ("workers that died on it", "종료된 워커"),
    "throttles": ("waits for rate limits", "속도 제한 대기"),
    "signal": ("signal", "시그널"),
    "exit_status": ("exit status", "종료 코드"),
    "max_rss_bytes": ("most memory, bytes", "최대 메모리(바이트)"),
    "cpu_s": ("CPU time, s", "CPU 시간(초)"),
    "stderr": ("last words of the parser", "파서의 마지막 출력"),
    "exception": ("exception", "예외"),
    "traceback": ("traceback", "역추적"),
    "last_reason": ("last reason", "마지막 사유"),
    "last_error": ("last error", "마지막 오류"),
    "lone_deaths": ("deaths while alone", "단독 처리 중 종료"),
    "others_died": ("other workers that died", "함께 종료된 다른 워커"),
}


def said(table: Mapping[str, Pair], key: str, lang: str) -> str:
    """The word for *key*, or *key* itself."""
    pair = table.get(key)
    return key if pair is None else pair[lang == "ko"]


def count(value: float) -> str:
    """12,345."""
    return f"{round(value):,}"


def many(n: int, noun: str) -> str:
    """In English: ``1 worker``, ``2 workers``."""
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"


def size(value: float) -> str:
    """Binary units under their common names: 1 MB = 1,048,576 bytes, as in the runbook."""
    if value < 1024:
        return f"{round(value)} B"
    unit = "B"
    for unit in ("KB", "MB", "GB", "TB"):  # noqa: B007
        value /= 1024
        if value < 1024:
            break
    return f"{value:.1f} {unit}" if value < 10 else f"{round(value):,} {unit}"


_UNITS = ((86400, " d", "일"), (3600, " h", "시간"), (60, " min", "분"), (1, " s", "초"))


def duration(seconds: float | None, lang: str) -> str:
    """Two units at most: ``3 min 12 s``; below ten seconds with a tenth, below one in ms."""
    if seconds is None:
        return "–"
    ko = lang == "ko"
    if seconds < 1:
        return f"{round(seconds * 1000)}{'밀리초' if ko else ' ms'}"
    if seconds < 10:
        return f"{seconds:.1f}{'초' if ko else ' s'}"
    left, said_parts = round(seconds), list[str]()
    for unit_s, en, korean in _UNITS:
        n, left = divmod(left, unit_s)
        if n or said_parts:
            said_parts.append(f"{n}{korean if ko else en}" if n else "")
        if len(said_parts) == 2:
            break
    return " ".join(p for p in said_parts if p)


def about(seconds: float | None, lang: str) -> str:
    """A forecast, as coarse as it is certain: ``about 3 min``."""
    if seconds is None:
        return ""
    ko = lang == "ko"
    if seconds < 5:
        return "몇 초" if ko else "a few seconds"
    if seconds < 60:
        n, unit = max(10, round(seconds / 10) * 10), ("초" if ko else " s")
    elif seconds < 5400:
        n, unit = round(seconds / 60), ("분" if ko else " min")
    elif seconds < 172_800:
        n, unit = round(seconds / 3600), ("시간" if ko else " h")
    else:
        n, unit = round(seconds / 86400), ("일" if ko else " days")
    return f"약 {n}{unit}" if ko else f"about {n}{unit}"


def clock(at: float, zone: tzinfo | None) -> str:
    """10:03:12; with the date when it is not today."""
    then = datetime.fromtimestamp(at, UTC).astimezone(zone)
    today = datetime.now(UTC).astimezone(zone).date()
    return then.strftime("%H:%M:%S" if then.date() == today else "%Y-%m-%d %H:%M")


def moment(at: float, zone: tzinfo | None) -> str:
    """2026-11-23 10:03:12 KST."""
    return datetime.fromtimestamp(at, UTC).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %Z")
