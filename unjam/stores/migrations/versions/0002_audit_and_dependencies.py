"""Add the audit of operators' changes, and the circuit breakers' rows."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    key = sa.Text(collation="C") if postgres else sa.Text()
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger() if postgres else sa.Integer(), primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False, server_default=sa.text("'{}'")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "dependencies",
        sa.Column("name", key, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("detail", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("until", sa.Double),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
