"""Incidents, their timelines, and what hosts' supervisors are asked to do about them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    key = sa.Text(collation="C") if postgres else sa.Text()
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

    def text(name: str, default: str = "") -> sa.Column[str]:
        return sa.Column(name, sa.Text, nullable=False, server_default=sa.text(f"'{default}'"))

    def number(name: str) -> sa.Column[int]:
        return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))

    op.create_table(
        "incidents",
        sa.Column("id", serial, primary_key=True),
        sa.Column("cause", key, nullable=False),
        sa.Column("subject", key, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("state", key, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("noticed_at", sa.Double, nullable=False),
        sa.Column("closed_at", sa.Double),
        text("evidence", "[]"),
        text("effects", "[]"),
        number("max_queue_length"),
        number("affected_users"),
        number("affected_anonymous"),
        number("failed_jobs"),
        number("flaps"),
        text("undo", "{}"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_incidents_key", "incidents", ["cause", "subject", "id"])
    still_open = sa.text("state <> 'closed'")
    op.create_index(
        "ix_incidents_open",
        "incidents",
        ["id"],
        sqlite_where=still_open,
        postgresql_where=still_open,
    )
    op.create_table(
        "incident_events",
        sa.Column("seq", serial, primary_key=True),
        sa.Column("incident_id", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", key, nullable=False),
        text("what"),
        text("outcome"),
        text("data", "{}"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_incident_events_incident", "incident_events", ["incident_id", "seq"])
    op.create_index("ix_incident_events_at", "incident_events", ["at"])
    op.create_table(
        "remedies",
        sa.Column("id", serial, primary_key=True),
        sa.Column("incident_id", sa.BigInteger),
        sa.Column("host", key, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("process_id", sa.Text, nullable=False),
        sa.Column("asked_at", sa.Double, nullable=False),
        sa.Column("done_at", sa.Double),
        text("outcome"),
        sqlite_autoincrement=True,
    )
    unanswered = sa.text("done_at IS NULL")
    op.create_index(
        "ix_remedies_asked",
        "remedies",
        ["host"],
        sqlite_where=unanswered,
        postgresql_where=unanswered,
    )
