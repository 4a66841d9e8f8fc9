"""Count completions by minute, keep what trimmed events add up to, find the oldest in each line."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_SQLITE = """INSERT INTO completions (minute, queue, jobs, duration_s)
SELECT CAST(e.at / 60 AS INTEGER), d.lane, count(*),
  sum(coalesce(json_extract(e.data, '$.duration_s'), 0.0))
FROM events e JOIN documents d ON d.id = e.document_id
WHERE e.kind = 'searchable' GROUP BY 1, 2"""

_POSTGRES = """INSERT INTO completions (minute, queue, jobs, duration_s)
SELECT floor(e.at / 60)::bigint, d.lane, count(*),
  sum(coalesce((e.data::json ->> 'duration_s')::float8, 0.0))
FROM events e JOIN documents d ON d.id = e.document_id
WHERE e.kind = 'searchable' GROUP BY 1, 2"""


def upgrade() -> None:
    """Completions so far come out of the events."""
    postgres = op.get_bind().dialect.name == "postgresql"
    key = sa.Text(collation="C") if postgres else sa.Text()
    op.create_table(
        "completions",
        sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("queue", key, primary_key=True),
        sa.Column("jobs", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("duration_s", sa.Double, nullable=False, server_default=sa.text("0")),
    )
    op.create_table(
        "event_days",
        sa.Column("day", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", key, primary_key=True),
        sa.Column("n", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    )
    op.create_index("ix_idempotency_at", "idempotency", ["at"])
    in_line = sa.text("state IN ('received', 'queued')")
    op.create_index(
        "ix_documents_in_line",
        "documents",
        ["lane", "updated_at"],
        sqlite_where=in_line,
        postgresql_where=in_line,
    )
    op.execute(_POSTGRES if postgres else _SQLITE)
