"""The ledger's tables and indexes, for SQLite and PostgreSQL (counts: ``triggers``).

``documents`` holds one row per accepted id, for ever (a deleted one is a tombstone). Times named
``…_at`` are Unix seconds; ``lease_until``, ``seen`` and ``leaders.until`` are on the lease clock
(CLOCK_BOOTTIME on SQLite, the database's clock on PostgreSQL). A change here needs a migration in
``migrations/versions`` and a new HEAD; a test compares the two.

A migration runs while older programs still let go of what they hold (renew, report, settle, retire:
``ledger.commit.Op.parting``), so it only adds: tables, indexes, columns with a default.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

HEAD = "0009"
"""The newest migration; revisions sort as text, so a greater one means a newer program."""

metadata = MetaData()

# Byte order on PostgreSQL as well: ids are compared by cursors, and must sort alike everywhere.
Key = Text().with_variant(Text(collation="C"), "postgresql")
Serial = BigInteger().with_variant(Integer(), "sqlite")


def _text(name: str, default: str = "") -> Column[str]:
    return Column(name, Text, nullable=False, server_default=text(f"'{default}'"))


def _int(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


documents = Table(
    "documents",
    metadata,
    Column("id", Key, primary_key=True),
    # cold: written when a generation begins, and at deletion
    Column("user_id", Key, nullable=False),
    Column("shown", Integer, nullable=False, server_default=text("1")),  # 0 = deleted
    Column("filename", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("content_hash", Key, nullable=False),
    Column("pin_id", Key, nullable=False),
    Column("home_lane", Text, nullable=False),  # where it belongs when it is no suspect
    _text("metadata", "{}"),
    Column("created_at", Double, nullable=False),
    # hot: written by transitions
    Column("state", Key, nullable=False),
    _int("generation"),
    _int("visible_generation"),
    _text("visible_hash"),
    Column("visible_pin", Key, nullable=False, server_default=text("''")),
    _int("chunks"),
    Column("lane", Text, nullable=False),
    _int("enqueue_seq"),
    _int("token"),
    _text("reason"),
    _text("detail"),
    Column("next_step_at", Double),
    _int("progress_done"),
    _int("progress_total"),
    _int("errors"),
    _int("deaths"),
    _int("throttles"),
    _int("suspect"),
    _int("alone"),
    _int("death_done"),  # progress at the last counted death …
    _int("death_step"),  # … and the step, 1 (parsing) to 4 (storing); 0 = none counted
    Column("worker", Key, nullable=False, server_default=text("''")),
    Column("lease_until", Double),
    Column("claimed_at", Double),
    _int("started_generation"),  # newest generation that was ever claimed
    Column("updated_at", Double, nullable=False),
    Column("searchable_at", Double),
    Column("slo_since", Double),  # NULL once its timeliness has been counted
    Index("ix_documents_shown", "shown", "id"),
    Index("ix_documents_user", "user_id", "shown", "id"),
    Index("ix_documents_state", "state", "id"),
    Index("ix_documents_user_state", "user_id", "state", "id"),
    Index("ix_documents_user_content", "user_id", "content_hash"),
    Index("ix_documents_content", "content_hash"),
)


def _partial(name: str, columns: tuple[str, ...], where: str) -> Index:
    condition = text(where)
    return Index(
        name,
        *(documents.c[c] for c in columns),
        sqlite_where=condition,
        postgresql_where=condition,
    )


_partial("ix_documents_leased", ("lease_until",), "worker <> ''")
_partial("ix_documents_worker", ("worker",), "worker <> ''")
# Exactly the waiting ones. Not "state = 'waiting'": SQLite would take ix_documents_state for that
# and sort everything that waits.
_partial("ix_documents_waiting", ("next_step_at",), "next_step_at IS NOT NULL")
_partial("ix_documents_dead", ("reason", "id"), "state = 'dead'")
_partial("ix_documents_in_line", ("lane", "updated_at"), "state IN ('received', 'queued')")
_partial("ix_documents_slo", ("slo_since",), "slo_since IS NOT NULL")
_partial("ix_documents_visible_pin", ("visible_pin", "state"), "visible_pin <> ''")
_partial("ix_documents_visible_hash", ("visible_hash",), "visible_hash <> ''")
# The audit of vectors walks it in slices, and adds up its chunks without a look at the rows. Not
# "shown = 1": SQLite would take ix_documents_shown for that, and walk all documents.
_partial(
    "ix_documents_seen",
    ("visible_pin", "id", "chunks", "visible_generation", "shown"),
    "visible_generation > 0 AND shown <> 0",
)

is_shown = documents.c.shown != 0
"""Where another column finds the row. With "= 1" SQLite, which has no statistics, takes an index
that begins with *shown* or with the user, and walks all documents."""

COLD = [
    "user_id",
    "shown",
    "filename",
    "media_type",
    "size_bytes",
    "content_hash",
    "pin_id",
    "home_lane",
    "metadata",
    "created_at",
]
HOT = [c.name for c in documents.columns if c.name not in COLD and c.name != "id"]
HOT_SET = frozenset(HOT)

generations = Table(
    "generations",
    metadata,
    Column("document_id", Key, ForeignKey("documents.id"), primary_key=True),
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("content_hash", Key, nullable=False),
    Column("pin_id", Key, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("chunks", BigInteger),
    Column("created_at", Double, nullable=False),
    Column("visible_at", Double),
)

pins = Table(
    "pins",
    metadata,
    Column("id", Key, primary_key=True),
    Column("fingerprint_id", Key, nullable=False),
    Column("json", Text, nullable=False),
)

names = Table(
    "names",
    metadata,
    Column("document_id", Key, ForeignKey("documents.id"), primary_key=True),
    Column("filename", Key, primary_key=True),
    _text("metadata", "{}"),
    Column("at", Double, nullable=False),
)

acceptances = Table(
    "acceptances",
    metadata,
    Column("document_id", Key, primary_key=True),
    Column("at", Double, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("seq", Serial, primary_key=True),
    Column("document_id", Key, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    _text("data", "{}"),
    Index("ix_events_document", "document_id", "seq"),
    sqlite_autoincrement=True,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("user_id", Key, primary_key=True),
    Column("key", Key, primary_key=True),
    Column("content_hash", Key, nullable=False),
    Column("document_id", Key, nullable=False),
    Column("at", Double, nullable=False),
    Index("ix_idempotency_at", "at"),
)

tallies = Table(
    "tallies",
    metadata,
    Column("name", Key, primary_key=True),  # a state, or "accepted"; kept by triggers only
    Column("visible", Integer, primary_key=True, autoincrement=False),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    _int("n"),
)

completions = Table(  # what became searchable, by minute; older than a few days by quarter-hour
    "completions",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),  # Unix minutes
    Column("queue", Key, primary_key=True),
    _int("jobs"),
    Column("duration_s", Double, nullable=False, server_default=text("0")),  # their sum
)

event_days = Table(  # what is left of events that were trimmed
    "event_days",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),  # Unix days (UTC)
    Column("kind", Key, primary_key=True),
    _int("n"),
)

counters = Table(
    "counters",
    metadata,
    Column("name", Key, primary_key=True),
    Column("queue", Key, primary_key=True),
    Column("value", Double, nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    Column("content_hash", Key, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("unreferenced_since", Double),
    Index(
        "ix_blobs_unreferenced",
        "unreferenced_since",
        sqlite_where=text("unreferenced_since IS NOT NULL"),
        postgresql_where=text("unreferenced_since IS NOT NULL"),
    ),
)

cleanups = Table(
    "cleanups",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("document_id", Key, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("collection", Text, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("due_at", Double, nullable=False, index=True),
    sqlite_autoincrement=True,
)

gaps = Table(  # visible generations with chunks that the vector store lacks
    "gaps",
    metadata,
    Column("document_id", Key, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
)

processes = Table(
    "processes",
    metadata,
    Column("id", Key, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("seen", Double, nullable=False),
    _int("rss_bytes"),  # peak, at the last heartbeat
)

exits = Table(  # how processes ended, as their supervisor saw it; kept an hour
    "exits",
    metadata,
    Column("worker", Key, primary_key=True),
    Column("code", Integer, nullable=False),  # negative: the signal
    Column("at", Double, nullable=False),
)

leaders = Table(
    "leaders",
    metadata,
    Column("role", Key, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", Double, nullable=False),
)

knobs = Table(
    "knobs",
    metadata,
    Column("name", Key, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("at", Double, nullable=False),
    Column("by", Text, nullable=False),
    Column("action", Text, nullable=False),
    _text("data", "{}"),
    sqlite_autoincrement=True,
)

dependencies = Table(
    "dependencies",
    metadata,
    Column("name", Key, primary_key=True),
    Column("state", Text, nullable=False),
    _text("reason"),
    _text("detail"),
    Column("until", Double),
    _int("failures"),
    Column("updated_at", Double, nullable=False),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("cause", Key, nullable=False),
    Column("subject", Key, nullable=False),
    Column("severity", Text, nullable=False),
    Column("state", Key, nullable=False),  # open, handed_over, closed
    Column("started_at", Double, nullable=False),
    Column("noticed_at", Double, nullable=False),
    Column("closed_at", Double),
    _text("evidence", "[]"),  # [[en, ko], …]
    _text("effects", "[]"),
    _int("max_queue_length"),
    _int("affected_users"),
    _int("affected_anonymous"),
    _int("failed_jobs"),
    _int("flaps"),
    _text("undo", "{}"),
    Index("ix_incidents_key", "cause", "subject", "id"),
    sqlite_autoincrement=True,
)
Index(
    "ix_incidents_open",
    incidents.c.id,
    sqlite_where=text("state <> 'closed'"),
    postgresql_where=text("state <> 'closed'"),
)

incident_events = Table(
    "incident_events",
    metadata,
    Column("seq", Serial, primary_key=True),
    Column("incident_id", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", Key, nullable=False),
    _text("what"),  # of an action: the remedy …
    _text("outcome"),  # … and what came of it
    _text("data", "{}"),
    Index("ix_incident_events_incident", "incident_id", "seq"),
    Index("ix_incident_events_at", "at"),
    sqlite_autoincrement=True,
)

remedies = Table(  # what hosts' supervisors are asked to do
    "remedies",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("incident_id", BigInteger),
    Column("host", Key, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("process_id", Text, nullable=False),
    Column("asked_at", Double, nullable=False),
    Column("done_at", Double),
    _text("outcome"),
    Index(
        "ix_remedies_asked",
        "host",
        sqlite_where=text("done_at IS NULL"),
        postgresql_where=text("done_at IS NULL"),
    ),
    sqlite_autoincrement=True,
)

meta = Table(
    "meta",
    metadata,
    Column("key", Key, primary_key=True),  # ledger_id, boot_id, epoch, chunks_missing
    Column("value", Text, nullable=False),
)

alembic_version = Table(
    "alembic_version",
    metadata,
    # The name and shape that Alembic expects.
    Column("version_num", Text().with_variant(Text(), "postgresql"), primary_key=True),
)
