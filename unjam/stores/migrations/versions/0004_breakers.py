"""Count how often a circuit breaker opened in a row."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Breakers live for minutes, so the table is made anew."""
    postgres = op.get_bind().dialect.name == "postgresql"
    key = sa.Text(collation="C") if postgres else sa.Text()
    op.drop_table("dependencies")
    op.create_table(
        "dependencies",
        sa.Column("name", key, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("detail", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("until", sa.Double),
        sa.Column("failures", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("updated_at", sa.Double, nullable=False),
    )
