"""Every setting: its environment variable, default, unit and meaning. Read once, frozen."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from unjam.core.errors import SetupError
from unjam.core.vector_kinds import vector_store_of

MIB = 1_048_576
SECRETS_DIR = "RAG_SECRETS_DIR"


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "unjam"


class _SecretFiles(SecretsSettingsSource):
    """An empty file sets nothing, as an empty variable does."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        return value or None, key, is_complex


def _check_secrets(folder: Path, names: Iterable[str]) -> None:
    if not folder.is_dir():
        raise SetupError(
            f"{SECRETS_DIR}={folder} is not a folder",
            hint="Mount the secrets there, or leave the variable empty.",
        )
    shut = [n for n in names if (folder / n).exists() and not os.access(folder / n, os.R_OK)]
    if shut:
        raise SetupError(
            f"{', '.join(shut)} in {folder} cannot be read by user {os.getuid()}",
            hint="Let this user read them.",
        )


class Settings(BaseSettings):
    """One frozen object for a whole process.

    Raises:
        pydantic.ValidationError: a variable holds something else than described here; the CLI
            turns it into one line per variable.
        SetupError: RAG_SECRETS_DIR names no folder, or a file in it cannot be read.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", case_sensitive=True, env_ignore_empty=True
    )

    # -- embedding --------------------------------------------------------------------------
    embedding_batch_size: int = Field(
        32, ge=1, le=2048, alias="RAG_EMBEDDING_BATCH_SIZE", description="texts per request"
    )
    embedding_concurrency: int = Field(
        3,
        ge=1,
        le=64,
        alias="RAG_EMBEDDING_CONCURRENCY",
        description="requests in flight per process",
    )
    embedding_rate_limit: int = Field(
        1000,
        ge=1,
        alias="RAG_EMBEDDING_RATE_LIMIT",
        description="requests per minute over all processes and hosts, per key group",
    )
    embedding_tokens_per_minute: int = Field(
        0,
        ge=0,
        alias="RAG_EMBEDDING_TOKENS_PER_MINUTE",
        description="tokens per minute, likewise; 0 = no limit",
    )
    embedding_delay_ms: int = Field(
        0,
        ge=0,
        le=60_000,
        alias="RAG_EMBEDDING_DELAY_MS",
        description="least time between requests of a process, ms",
    )
    openai_api_key: SecretStr | None = Field(
        None, alias="OPENAI_API_KEY", description="key of the OpenAI-compatible endpoint"
    )
    openai_api_keys: SecretStr | None = Field(
        None,
        alias="OPENAI_API_KEYS",
        description="several keys, comma-separated, each `key` or `group:key`; ungrouped keys "
        "share one limit",
    )
    use_api_key_rotation: bool = Field(
        False, alias="USE_API_KEY_ROTATION", description="spread requests over OPENAI_API_KEYS"
    )
    openai_base_url: str = Field(
        "https://api.openai.com/v1",
        alias="OPENAI_BASE_URL",
        description="an OpenAI-compatible endpoint",
    )
    embedding_model: str = Field(
        "",
        alias="RAG_EMBEDDING_MODEL",
        description="model name; empty: multilingual-e5-small without a key, "
        "text-embedding-3-small with one",
    )
    # -- chunks and work --------------------------------------------------------------------
    max_chunk_size: int | None = Field(
        None,
        ge=16,
        alias="RAG_MAX_CHUNK_SIZE",
        description="tokens of the model in use, never above its limit; empty: 1024, or 256 with "
        "the local model; new generations only",
    )
    chunk_overlap: int | None = Field(
        None,
        ge=0,
        alias="RAG_CHUNK_OVERLAP",
        description="tokens; empty: 128, or 32 with the local model; new generations only",
    )
    max_concurrent_jobs: int = Field(
        50,
        ge=1,
        le=10_000,
        alias="RAG_MAX_CONCURRENT_JOBS",
        description="documents in flight, whole system",
    )
    worker_memory_mb: int | None = Field(
        None,
        ge=256,
        alias="RAG_WORKER_MEMORY_MB",
        description="MiB: cap of a parsing child and trigger of pressure handling; empty: a "
        "quarter of the host's memory, at most 2048",
    )
    large_document_mb: int = Field(
        10,
        ge=1,
        alias="RAG_LARGE_DOCUMENT_MB",
        description="MiB from which a document goes to rag_large_docs",
    )
    max_upload_mb: int = Field(
        2048, ge=1, alias="RAG_MAX_UPLOAD_MB", description="largest upload, MiB; above it 413"
    )
    max_queued_documents: int = Field(
        1_000_000,
        ge=1,
        alias="RAG_MAX_QUEUED_DOCUMENTS",
        description="documents in line from which uploads get 429",
    )
    max_queued_mb: int = Field(
        102_400,
        ge=1,
        alias="RAG_MAX_QUEUED_MB",
        description="MiB of documents in line from which uploads get 429",
    )
    max_queue_age_s: int = Field(
        604_800,
        ge=1,
        alias="RAG_MAX_QUEUE_AGE_S",
        description="seconds in line of the oldest document from which uploads get 429",
    )
    min_free_disk_mb: int = Field(
        256,
        ge=0,
        alias="RAG_MIN_FREE_DISK_MB",
        description="MiB free where originals are stored below which uploads get 429",
    )
    reserve_mb: int = Field(
        16,
        ge=0,
        alias="RAG_RESERVE_MB",
        description="MiB kept beside a SQLite ledger, given up when its disk is full so that work "
        "in hand can be written down; 0: none",
    )
    type_queues: str = Field(
        "",
        alias="RAG_TYPE_QUEUES",
        description="lanes per file type, e.g. `pdf=rag_pdf,docx=rag_office`",
    )
    # -- where things are -------------------------------------------------------------------
    redis_url: str | None = Field(
        None,
        alias="RAG_REDIS_URL",
        description="empty: an embedded Valkey (port 6379, db 5); `redis://`, `rediss://`, or "
        "`redis+sentinel://host,host2/service/5`",
    )
    chroma_url: str | None = Field(
        None,
        alias="RAG_CHROMA_URL",
        description="empty: an embedded Chroma server (port 8000); `http(s)://host?token=…`",
    )
    vector_store_url: str | None = Field(
        None,
        alias="RAG_VECTOR_STORE_URL",
        description="another vector store than Chroma: `lancedb:///folder`, `postgresql://…` "
        "(pgvector), `qdrant+http://…`; empty: Chroma at RAG_CHROMA_URL",
    )
    database_url: str | None = Field(
        None,
        alias="RAG_DATABASE_URL",
        description="the ledger; empty: SQLite in the data folder; postgresql://… for many hosts, "
        "with one server or several (postgresql://user@db1,db2/name)",
    )
    storage_url: str | None = Field(
        None,
        alias="RAG_STORAGE_URL",
        description="originals; empty: a folder in the data folder; `file:///shared/folder`, or "
        "`s3://bucket/prefix` with the standard `AWS_*` variables",
    )
    storage_cache_mb: int = Field(
        1024,
        ge=64,
        alias="RAG_STORAGE_CACHE_MB",
        description="bound of this host's copies of originals that are in a bucket, MiB",
    )
    data_dir: Path = Field(
        default_factory=_default_data_dir, alias="RAG_DATA_DIR", description="the one data folder"
    )
    log_dir_setting: Path | None = Field(
        None, alias="RAG_LOG_DIR", description="empty: `logs` in the data folder"
    )
    cache_mb: int = Field(
        2048, ge=16, alias="RAG_EMBEDDING_CACHE_MB", description="bound of the embedding cache, MiB"
    )
    # -- access and people ------------------------------------------------------------------
    admin_token: SecretStr | None = Field(
        None,
        alias="ADMIN_TOKEN",
        description="operators' token; empty: generated into `<data>/admin-token`",
    )
    api_token: SecretStr | None = Field(
        None, alias="RAG_API_TOKEN", description="public API's token; empty: open on loopback"
    )
    allowed_hosts: str = Field(
        "",
        alias="RAG_ALLOWED_HOSTS",
        description="further host names under which the servers may be called, comma-separated",
    )
    slack_webhook_url: SecretStr | None = Field(
        None, alias="SLACK_WEBHOOK_URL", description="one message per change of an incident"
    )
    webhook_url: SecretStr | None = Field(
        None, alias="RAG_WEBHOOK_URL", description="signed document and incident events"
    )
    webhook_secret: SecretStr | None = Field(
        None,
        alias="RAG_WEBHOOK_SECRET",
        description="key of the webhooks' signatures, `whsec_` and base64; empty: generated into "
        "`<data>/webhook-secret`",
    )
    redis_repair: bool = Field(
        False,
        alias="RAG_REDIS_REPAIR",
        description="let the watchdog put an external Redis back to `noeviction`",
    )
    allow_restart: str = Field(
        "",
        alias="RAG_ALLOW_RESTART",
        description="systemd units and containers (`docker:NAME`) that the watchdog may restart, "
        "comma-separated; its name must say what it is: redis, valkey, chroma, postgres or qdrant",
    )
    timezone: str = Field(
        "", alias="RAG_TIMEZONE", description="IANA name for statistics; empty: the host's"
    )
    lang: Literal["en", "ko"] = Field("en", alias="RAG_LANG", description="`en` or `ko`")
    log_format: Literal["text", "json"] = Field(
        "text", alias="RAG_LOG_FORMAT", description="`text` or `json`"
    )
    secrets_dir: Path | None = Field(
        None,
        alias=SECRETS_DIR,
        description="folder with a file per variable, for values that an environment should not "
        "show; a variable that is set wins over its file",
    )
    beat_file: Path | None = Field(
        None,
        alias="RAG_BEAT_FILE",
        description="file that a worker or watchdog touches every 5 s while its loop turns, for "
        "the liveness probe of a container",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What was passed, then the environment, then the files of RAG_SECRETS_DIR.

        Raises:
            SetupError: that folder is missing, or a file of ours in it cannot be read.
        """
        folder = os.environ.get(SECRETS_DIR)
        if not folder:
            return init_settings, env_settings
        names = [str(field.alias) for field in cls.model_fields.values()]
        _check_secrets(Path(folder).expanduser(), names)
        return init_settings, env_settings, _SecretFiles(settings_cls, folder)

    @field_validator("data_dir", "log_dir_setting", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value is not None else None

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            if value:
                ZoneInfo(value)
        except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
            raise ValueError("no such time zone; use an IANA name, such as Asia/Seoul") from None
        return value

    @field_validator("lang", mode="before")
    @classmethod
    def _language(cls, value: object) -> object:
        return value[:2].lower() if isinstance(value, str) else value

    @property
    def vectors_url(self) -> str | None:
        """Of the vector store in use; None: none is known (yet)."""
        return self.vector_store_url or self.chroma_url

    @property
    def vector_store(self) -> str:
        """Its name for people: Chroma, LanceDB, pgvector or Qdrant."""
        return vector_store_of(self.vectors_url or "")

    @property
    def log_dir(self) -> Path:
        return self.log_dir_setting or self.data_dir / "logs"

    @property
    def api_keys(self) -> tuple[str, ...]:
        """All keys as given (``key`` or ``group:key``), first OPENAI_API_KEYS, without repeats."""
        several = self.openai_api_keys.get_secret_value().split(",") if self.openai_api_keys else []
        single = [self.openai_api_key.get_secret_value()] if self.openai_api_key else []
        return tuple(dict.fromkeys(k.strip() for k in [*several, *single] if k.strip()))

    @property
    def allowed_restarts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(n.strip() for n in self.allow_restart.split(",") if n.strip()))

    @property
    def uses_local_model(self) -> bool:
        """True when no text leaves the machine for embedding."""
        return not self.api_keys

    @property
    def model(self) -> str:
        if self.embedding_model:
            return self.embedding_model
        return "multilingual-e5-small" if self.uses_local_model else "text-embedding-3-small"

    @property
    def chunk_tokens(self) -> int:
        return self.max_chunk_size or (256 if self.uses_local_model else 1024)

    @property
    def overlap_tokens(self) -> int:
        default = 32 if self.uses_local_model else 128
        wanted = default if self.chunk_overlap is None else self.chunk_overlap
        return min(wanted, self.chunk_tokens // 2)

    @property
    def parser_memory_mb(self) -> int:
        if self.worker_memory_mb:
            return self.worker_memory_mb
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB
        return max(256, min(2048, host // 4))

    @property
    def max_upload_bytes(self) -> int:
        return self.max_upload_mb * MIB

    @property
    def reserve_bytes(self) -> int:
        return self.reserve_mb * MIB

    @property
    def large_document_bytes(self) -> int:
        return self.large_document_mb * MIB
