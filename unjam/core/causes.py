"""Every cause that the watchdog tells apart, with what to do, in English and Korean.

One table: incidents, ``unjam doctor``, ``unjam explain``, the dashboard, the alerts' texts and the
generated pages read it. A code never changes its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unjam.core.incident import Severity


@dataclass(frozen=True, slots=True)
class Cause:
    """*rank*: of two causes at one moment the lower rank is named first; it explains more."""

    code: str
    rank: int
    severity: Severity
    title: str
    title_ko: str
    meaning: str = ""
    meaning_ko: str = ""
    repair: str = ""  # what the system does by itself
    repair_ko: str = ""
    advice: str = ""  # what a person may do
    advice_ko: str = ""
    command: str = "unjam doctor"  # the exact next command

    def said_in(self, part: str, lang: str) -> str:
        """*part*: title, meaning, repair or advice."""
        return getattr(self, f"{part}_ko" if lang == "ko" else part)


_TABLE = (
    # -- what everything stands on --------------------------------------------------------------
    Cause("disk_full", 10, "critical", "A disk is full", "디스크가 가득 찼습니다"),
    Cause("ledger_down", 11, "critical", "The ledger cannot be written", "원장에 쓸 수 없습니다"),
    Cause("clock_jump", 12, "warning", "A clock jumped", "시계가 크게 바뀌었습니다"),
    Cause(
        "stopped_by_person",
        15,
        "warning",
        "Somebody paused the queue",
        "누군가 큐를 일시 정지했습니다",
    ),
    # -- Redis ----------------------------------------------------------------------------------
    Cause("redis_down", 20, "critical", "Redis does not answer", "Redis가 응답하지 않습니다"),
    Cause(
        "redis_wrong_database",
        21,
        "critical",
        "Redis holds another house's queue",
        "다른 시스템의 Redis 데이터베이스입니다",
    ),
    Cause("redis_full", 22, "critical", "Redis is full", "Redis 메모리가 가득 찼습니다"),
    Cause(
        "redis_unsafe",
        23,
        "critical",
        "Redis may throw jobs away",
        "Redis 설정이 작업을 버릴 수 있습니다",
    ),
    Cause("redis_lost_data", 24, "warning", "Redis lost its data", "Redis 데이터가 사라졌습니다"),
    Cause("redis_slow", 25, "warning", "Redis answers slowly", "Redis 응답이 느립니다"),
    # -- Chroma ---------------------------------------------------------------------------------
    Cause("chroma_down", 30, "critical", "Chroma does not answer", "Chroma가 응답하지 않습니다"),
    Cause(
        "chroma_refuses_writes",
        31,
        "critical",
        "Chroma refuses writes",
        "Chroma가 쓰기를 거부합니다",
    ),
    Cause(
        "chroma_index_short",
        32,
        "warning",
        "Vectors are missing from Chroma",
        "Chroma에 벡터가 부족합니다",
    ),
    Cause("chroma_slow", 33, "warning", "Chroma answers slowly", "Chroma 응답이 느립니다"),
    # -- the embedding endpoint -----------------------------------------------------------------
    Cause(
        "embedding_key_bad",
        40,
        "critical",
        "Embedding keys are refused",
        "임베딩 키가 거부되었습니다",
    ),
    Cause(
        "embedding_quota",
        41,
        "critical",
        "The embedding quota is spent",
        "임베딩 할당량이 소진되었습니다",
    ),
    Cause(
        "embedding_dimension_changed",
        42,
        "critical",
        "The vectors' dimension changed",
        "임베딩 차원이 바뀌었습니다",
    ),
    Cause(
        "embedding_down",
        43,
        "critical",
        "The embedding API does not answer",
        "임베딩 API가 응답하지 않습니다",
    ),
    Cause(
        "embedding_throttled",
        44,
        "warning",
        "The embedding API throttles",
        "임베딩 API가 속도를 제한합니다",
    ),
    Cause("embedding_slow", 45, "warning", "The embedding API is slow", "임베딩 API가 느립니다"),
    # -- workers --------------------------------------------------------------------------------
    Cause("workers_none", 50, "critical", "No worker is running", "실행 중인 워커가 없습니다"),
    Cause(
        "workers_crash_looping",
        51,
        "critical",
        "Workers crash again and again",
        "워커가 반복해서 종료됩니다",
    ),
    Cause("workers_hung", 52, "critical", "Workers live but nothing moves", "워커가 멈춰 있습니다"),
    Cause(
        "version_mismatch",
        53,
        "warning",
        "Workers of different versions run",
        "워커 버전이 서로 다릅니다",
    ),
    Cause("memory_short", 54, "warning", "Memory is short", "메모리가 부족합니다"),
    Cause(
        "lane_unserved",
        55,
        "warning",
        "A lane has documents and no worker",
        "담당 워커가 없는 큐에 문서가 있습니다",
    ),
    # -- what is in line ------------------------------------------------------------------------
    Cause(
        "poison_document",
        60,
        "warning",
        "A document kills its workers",
        "워커를 죽이는 문서가 있습니다",
    ),
    Cause(
        "large_documents_block",
        61,
        "warning",
        "Large documents hold up small ones",
        "대형 문서가 작은 문서를 막고 있습니다",
    ),
    Cause(
        "user_flood",
        62,
        "info",
        "One user sends most of the work",
        "한 사용자가 대부분의 작업을 보냈습니다",
    ),
    Cause(
        "too_much_work",
        70,
        "info",
        "More work than workers; nothing is wrong",
        "작업이 워커보다 많을 뿐 이상은 없습니다",
    ),
    Cause(
        "unknown_stagnation",
        90,
        "critical",
        "Nothing moves and no cause was found",
        "원인 불명의 정체입니다",
    ),
)

CAUSES: Mapping[str, Cause] = {cause.code: cause for cause in _TABLE}
